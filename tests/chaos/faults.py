"""What goes wrong and when, as far as a seed can say it; and the count of what went wrong and counts.

The plan is fixed by the seed and the options: the same steps at the same seconds with the same draws. Which process a draw meets, and
what it has under way just then, is up to the machine.
"""

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

# The failpoints of each kind of process, in the order of the write ordering.
POINTS: dict[str, tuple[str, ...]] = {
    "api": (
        "launch.held",
        "launch.committed",
        "mail.committed",
        "mail.answered",
        "mail.written",
        "intake.verified",
        "intake.stored",
    ),
    "relay": ("relay.read", "relay.published", "relay.deleted"),
    "send": (
        "lease.taken",
        "claim.committed",
        "rows.read",
        "call.rendered",
        "call.signed",
        "call.checked",
        "call.written",
        "call.answered",
        "report.received",
        "results.copied",
        "results.committed",
        "shard.released",
    ),
    "apply": (
        "apply.taken",
        "apply.inserted",
        "apply.committed",
        "fold.rewritten",
        "fold.settled",
        "fold.committed",
        "reconcile.permitted",
        "reconcile.committed",
    ),
}
ALL_POINTS = tuple(itertools.chain.from_iterable(POINTS.values()))
# Whose ends count. The relay has only doorbells under way; its ends are printed apart.
COUNTED_ROLES = ("api", "send", "apply")
# Where a frozen process is worth the most: its lease, its signature, or its claim grows old meanwhile.
STOP_CHANCES = {
    "claim.committed": 0.004,
    "call.signed": 0.008,
    "call.checked": 0.012,
    "results.copied": 0.004,
    "fold.rewritten": 0.002,
}
ROLE_SHARE_MAX = 0.5
# From here on a role is spared, so that a few more self-ends do not carry it over the limit.
ROLE_SHARE_SPARED = 0.46
SHARE_MATTERS_FROM = 20
CHANCE_MAX = 0.25
CHANCE_UNTRIED = 0.08
# More than wanted, because late hits may be missed.
AMPLE = 1.25


class Action(StrEnum):
    """What a step does."""

    KILL = "kill"
    FREEZE = "freeze"
    DATABASE_CRASH = "database_crash"
    BROKER_KILL = "broker_kill"
    BROKER_WIPE = "broker_wipe"
    BLACKHOLE = "blackhole"
    HALF_CLOSE = "half_close"


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: when, after the faults begin, and two draws from [0, 1) for whom and how long."""

    at_s: float
    action: Action
    whom: float
    how_long: float


def plan(seed: int, means_s: Mapping[Action, float]) -> Iterator[Step]:
    """Steps without end, in the order of time: each action comes at random with its mean distance in seconds."""

    def lane(action: Action, mean_s: float) -> Iterator[Step]:
        chance = random.Random(f"plan:{seed}:{action}")
        at_s = 0.0
        while True:
            at_s += chance.expovariate(1 / mean_s)
            yield Step(at_s, action, chance.random(), chance.random())

    lanes = [lane(action, mean_s) for action, mean_s in sorted(means_s.items()) if mean_s > 0]
    return heapq.merge(*lanes, key=lambda step: (step.at_s, step.action))


def fingerprint(seed: int, means_s: Mapping[Action, float], steps: int = 1000) -> str:
    """Names a plan: equal for equal seeds and options."""
    text = "\n".join(
        f"{step.at_s:.6f} {step.action} {step.whom:.6f}" for step in itertools.islice(plan(seed, means_s), steps)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def chances(
    points: Sequence[str],
    hits: Mapping[str, int],
    kills: Mapping[str, int],
    wanted: int,
    elapsed_s: float,
    left_s: float,
) -> dict[str, dict[str, float]]:
    """The chance of a kill at each point for a process that starts now: what is still wanted there, spread over the hits that the
    rest of the run will bring if it goes on as it did. A frequent point gets a small chance, one that lags behind a large one.
    """
    armed: dict[str, dict[str, float]] = {}
    for point in points:
        missing = wanted * AMPLE - kills.get(point, 0)
        ends: dict[str, float] = {}
        if missing > 0 and hits.get(point, 0) < 3:
            ends["kill"] = CHANCE_UNTRIED
        elif missing > 0:
            hits_to_come = hits[point] / max(elapsed_s, 1.0) * max(left_s, 1.0)
            ends["kill"] = round(min(CHANCE_MAX, missing / max(hits_to_come, 1.0)), 5)
        if point in STOP_CHANCES:
            ends["stop"] = STOP_CHANCES[point]
        if ends:
            armed[point] = ends
    return armed


@dataclass(slots=True)
class Tally:
    """Ends of processes by our hand, and what else was done."""

    counted: Counter[str] = field(default_factory=Counter)  # by role
    idle: Counter[str] = field(default_factory=Counter)  # by role: nothing that counts was under way
    arrows: Counter[str] = field(default_factory=Counter)  # by the last point passed
    spans: Counter[str] = field(default_factory=Counter)  # by what was under way
    at_points: Counter[str] = field(default_factory=Counter)  # self-ends, counted or not
    relay: int = 0
    freezes: Counter[str] = field(default_factory=Counter)  # by role, or by point
    done: Counter[str] = field(default_factory=Counter)  # other actions
    exits: Counter[str] = field(default_factory=Counter)  # `role status` of processes that ended by themselves

    @property
    def kills(self) -> int:
        """Ends that count."""
        return self.counted.total()

    def killed(self, role: str, spans: Sequence[str], last_point: str, self_end_point: str | None) -> bool:
        """Takes in a SIGKILL; True if it counts. `spans`: the counted kinds that were open at that moment."""
        if self_end_point is not None:
            self.at_points[self_end_point] += 1
        if role == "relay":
            self.relay += 1
            return False
        if not spans:
            self.idle[role] += 1
            return False
        self.counted[role] += 1
        self.arrows[last_point or "start"] += 1
        self.spans.update(spans)
        return True

    def is_spared(self, role: str) -> bool:
        """Whether the role has had its share."""
        return self.kills >= SHARE_MATTERS_FROM and self.counted[role] > ROLE_SHARE_SPARED * self.kills

    def largest_share(self) -> float:
        """The part of the kills that the role with the most of them got."""
        return max(self.counted.values(), default=0) / max(self.kills, 1)
