"""One run of the kill harness: everything up, everything wrong, everything settled, and then the judge.

    python -m tests.chaos.run --seed 7 --kills 1000 --recipients 10000 --minutes 15

Prints what it did and found, and ends with status 1 if anything was wrong or a quota was missed.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

from mailrail._core import Codec
from tests.chaos import checker, cluster, story
from tests.chaos.checker import Verdict, judge
from tests.chaos.cluster import Cluster, Member, MessageBroker, Shape
from tests.chaos.controls import CONTROLS
from tests.chaos.customers import Campaign, Customers, Refused
from tests.chaos.faults import (
    ALL_POINTS,
    COUNTED_ROLES,
    POINTS,
    ROLE_SHARE_MAX,
    Action,
    Step,
    Tally,
    chances,
    fingerprint,
    plan,
)
from tests.chaos.history import COUNTED_SPANS, History, Scribe, lines
from tests.chaos.nursery import Process
from tests.chaos.snapshots import Snapshots
from tests.support.kafka import Broker
from tests.support.postgres import SECRET

FAULTS = {
    "latency_ms": 120,
    "throttle_429": 0.02,
    "server_error_before": 0.02,
    "server_error_after_accept": 0.02,
    "drop_request": 0.02,
    "drop_reply_after_accept": 0.03,
    "hang_after_accept": 0.02,
    "per_entry_transient": 0.01,
    "duplicate_events": 0.2,
    "reorder_events": 0.3,
}
# Where three of two hundred neighbours lost their events, silence proves nothing for good, and a day is too long here.
LOSSY = {"UNKNOWN_MAX_AGE_S": "60", "MAIL_MAX_AGE_S": "60"}
CUT_CHANCES = {"cut_before_reply": 0.004, "cut_after_sent": 0.002}
# Long enough to outlive lease, signature and fence, and to wake after others have sent again; most are much shorter.
FREEZE_S = (0.2, 16.0)
BLACKHOLE_S = 2.5
TICK_S = 0.01
# A kill waits this long for a process that has something under way.
AIM_S = 0.4
# What tenants have launched and SES has not accepted stays about this many seconds of the rate.
BACKLOG_S = 12.0
POLL_S = 2.0
SETTLE_RESERVE_S = 150.0
REPORT_S = 15.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. `minutes` bounds all of it; `control` names a broken build; the mean distances are in seconds."""

    seed: int
    kills: int = 1000
    recipients: int = 10_000
    minutes: float = 15.0
    kafka: bool = False
    control: str = "none"
    policy: str = "resend"
    lose_events: float = 0.0
    hits: int = 20
    snapshots: int = 500
    rate: float = 60.0
    kill_mean_s: float = 0.8
    freeze_mean_s: float = 4.0
    crash_mean_s: float = 20.0
    broker_mean_s: float = 25.0
    wipe_mean_s: float = 90.0
    network_mean_s: float = 8.0
    until_caught: bool = False
    keep: str = ""

    def means(self) -> dict[Action, float]:
        """How often each action comes."""
        return {
            Action.KILL: self.kill_mean_s,
            Action.FREEZE: self.freeze_mean_s,
            Action.DATABASE_CRASH: self.crash_mean_s,
            Action.BLACKHOLE: self.network_mean_s,
            Action.HALF_CLOSE: 2 * self.network_mean_s,
            Action.BROKER_KILL: self.broker_mean_s if self.kafka else 0.0,
            Action.BROKER_WIPE: self.wipe_mean_s if self.kafka else 0.0,
            **CONTROLS[self.control].means_s,
        }


@dataclass(slots=True)
class Findings:
    """What is wrong, and what was too little."""

    wrong: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)


class Run:
    """The conductor: carries out the plan, counts, and waits for the end."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.control = CONTROLS[options.control]
        self.history_file = folder / "history.jsonl"
        self.scribe = Scribe(self.history_file)
        self.history = History(self.history_file)
        self.tally = Tally()
        self.snapshots = Snapshots()
        self.random = random.Random(f"run:{options.seed}")
        self.begun = time.monotonic()
        self.faults_begun = self.begun
        self.faults_s = 0.0
        self.is_raging = False
        self.crash_s: list[float] = []
        self.unsettled: list[str] = []
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._frozen: set[int] = set()
        self._trouble: list[str] = []
        self.cluster: Cluster
        self.customers: Customers
        self.session: aiohttp.ClientSession
        self.launched, self.mailed = asyncio.Event(), asyncio.Event()

    async def carry_out(self) -> dict[str, Any]:
        """The whole run; returns its summary."""
        options = self.options
        print(
            f"chaos: seed {options.seed}, plan {fingerprint(options.seed, options.means())}, control {options.control}",
            flush=True,
        )
        shape = Shape(
            senders=self.control.senders,
            with_kafka=options.kafka,
            rate=options.rate,
            settings=self.control.settings | (LOSSY if options.lose_events else {}),
            patches=self.control.patches,
        )
        async with (
            cluster.running(self.folder, options.seed, shape, self.history_file, self.scribe.write) as self.cluster,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as self.session,
        ):
            self.cluster.armed, self.cluster.ended = self._armed, self._ended
            direct = self.cluster.direct
            self.customers = Customers(
                direct.worker_database_url, self.cluster.api_url, self.session, options.seed, options.policy
            )
            await self.customers.open_accounts()
            await self.cluster.start_simulator({})
            self.cluster.populate()
            watching = [
                asyncio.create_task(self.snapshots.watch(direct.worker_database_url)),
                asyncio.create_task(self._watch_history()),
                asyncio.create_task(self._report()),
            ]
            try:
                caught = await self._rage()
                settled_s = await self._settle(caught)
                return await self._judge(settled_s)
            finally:
                for task in (*watching, *self._side_tasks):
                    task.cancel()
                await asyncio.gather(*watching, *self._side_tasks, return_exceptions=True)

    # —— while everything goes wrong ——

    async def _rage(self) -> bool:
        """Faults until the quotas are met or the time is up; whether a broken build was caught at it."""
        self.faults_begun = time.monotonic()
        self.is_raging = True
        await self._set_faults({**FAULTS, "lose_events": self.options.lose_events, **self.control.faults})
        for name, chance in CUT_CHANCES.items():
            setattr(self.cluster.proxy.menu, name, chance)
        self.cluster.proxy.menu.delay_ms = 1.0
        launching = asyncio.create_task(self._launch_all())
        mailing = asyncio.create_task(self.customers.send_mails())
        caught = False
        looked_at = time.monotonic()
        try:
            for step in plan(self.options.seed, self.options.means()):
                while (wait_s := self.faults_begun + step.at_s - time.monotonic()) > 0 and not launching.done():
                    await asyncio.sleep(min(wait_s, 0.2))
                if launching.done():
                    break
                await self._take(step)
                if self.options.until_caught and time.monotonic() - looked_at > 4:
                    looked_at = time.monotonic()
                    caught = bool((await self._verdict()).duplicates)
                if caught or self._is_enough() or self._left_s() <= 0:
                    break
        finally:
            self.is_raging = False
            self.faults_s = time.monotonic() - self.faults_begun
            if launching.done():
                launching.result()
            # Each ends with its answer: a campaign or mail whose request was cut off may be out there all the same, or not at all.
            self.customers.is_closing = True
            self._aside(self._end(launching, self.launched))
            self._aside(self._end(mailing, self.mailed))
        return caught

    async def _end(self, asking: asyncio.Task[None], ended: asyncio.Event) -> None:
        await asking
        ended.set()

    def _is_enough(self) -> bool:
        tally, options = self.tally, self.options
        if options.control != "none":
            return False
        return (
            tally.kills >= options.kills
            and self.customers.recipients >= options.recipients
            and all(self.history.hits[point] >= options.hits for point in ALL_POINTS)
        )

    def _left_s(self) -> float:
        """What is left for faults."""
        reserve_s = SETTLE_RESERVE_S if self.options.minutes > 5 else self.options.minutes * 60 * 0.4
        return self.begun + self.options.minutes * 60 - reserve_s - time.monotonic()

    async def _launch_all(self) -> None:
        """Campaigns until the customers close, as long as SES has not too many before it."""
        while not self.customers.is_closing:
            async with self.session.get(f"{self.cluster.simulator_url}/_simulator/accepted?limit=0") as answer:
                accepted = (await answer.json())["total"]
            if self.customers.recipients - accepted < BACKLOG_S * self.options.rate:
                await self.customers.launch_one()
            else:
                await asyncio.sleep(0.2)

    async def _take(self, step: Step) -> None:
        match step.action:
            case Action.KILL:
                await self._kill(step)
            case Action.FREEZE:
                self._freeze(step)
            case Action.DATABASE_CRASH:
                if self.cluster.database.is_up.is_set():
                    self._aside(self._crash_database())
            case Action.BLACKHOLE:
                self.tally.done["blackhole"] += self.cluster.proxy.blackhole_one(step.how_long * BLACKHOLE_S)
            case Action.HALF_CLOSE:
                self.tally.done["half_close"] += self.cluster.proxy.half_close_one()
            case Action.BROKER_KILL | Action.BROKER_WIPE:
                if self.cluster.broker is not None and not self.cluster.broker.is_busy:
                    self._aside(self._upset_broker(self.cluster.broker, step.action))

    async def _kill(self, step: Step) -> None:
        """SIGKILL to a process that has something under way, of the role that the draw names if there is one in time."""
        roles = [role for role in COUNTED_ROLES if not self.tally.is_spared(role)]
        # Now and then the relay, whose ends are counted apart.
        wanted = "relay" if step.whom > 0.95 else roles[int(step.whom / 0.95 * len(roles)) % len(roles)]
        until = time.monotonic() + AIM_S
        while time.monotonic() < until:
            self._read_history()
            busy = [member for member in self.cluster.living() if self._open(member) and not self._is_frozen(member)]
            aimed = [member for member in busy if member.role == wanted] or (
                [member for member in busy if member.role in roles] if until - time.monotonic() < AIM_S / 2 else []
            )
            if aimed:
                victim = aimed[int(step.how_long * len(aimed))]
                assert victim.process is not None
                victim.is_killed = True
                victim.process.signal(signal.SIGKILL)
                return
            await asyncio.sleep(TICK_S / 2)

    def _open(self, member: Member) -> set[str]:
        assert member.process is not None
        open_spans = self.history.open_spans(member.process.pid)
        return open_spans if member.role == "relay" else open_spans & COUNTED_SPANS

    def _is_frozen(self, member: Member) -> bool:
        return member.process is not None and member.process.pid in self._frozen

    def _freeze(self, step: Step) -> None:
        living = [member for member in self.cluster.living() if not self._is_frozen(member)]
        if living:
            victim = living[int(step.whom * len(living))]
            assert victim.process is not None
            victim.process.signal(signal.SIGSTOP)
            self.scribe.write("chaos.frozen", process=victim.process.pid, role=victim.role)
            self.tally.freezes[victim.role] += 1
            self._aside(self._thaw(victim.process, step.how_long, FREEZE_S))

    async def _thaw(self, process: Process, how_long: float, between_s: tuple[float, float]) -> None:
        """Lets a frozen process go on after a while; most freezes are short. Nobody kills it meanwhile: what a process does that
        comes back late is the point.
        """
        least_s, most_s = between_s
        self._frozen.add(process.pid)
        try:
            await asyncio.sleep(least_s + (most_s - least_s) * how_long**3)
        finally:
            self._frozen.discard(process.pid)
            process.signal(signal.SIGCONT)

    async def _crash_database(self) -> None:
        self.scribe.write("chaos.database_crash")
        self.tally.done["database_crash"] += 1
        self.crash_s.append(await self.cluster.database.crash())

    async def _upset_broker(self, broker: MessageBroker, action: Action) -> None:
        self.scribe.write(f"chaos.{action}")
        self.tally.done[action.value] += 1
        await broker.do(Broker.restart if action is Action.BROKER_KILL else Broker.wipe)

    def _armed(self, role: str) -> dict[str, dict[str, float]]:
        """The failpoints of a process that starts now."""
        if not self.is_raging:
            return {}
        armed = chances(
            POINTS[role],
            self.history.hits,
            self.tally.at_points,
            self.options.hits,
            time.monotonic() - self.faults_begun,
            min(self._left_s(), 600.0),
        )
        if self.tally.is_spared(role):
            for ends in armed.values():
                ends.pop("kill", None)
        for point, chance in self.control.stops.items():
            if point in POINTS[role]:
                armed.setdefault(point, {})["stop"] = chance
        return {point: ends for point, ends in armed.items() if ends}

    async def _watch_history(self) -> None:
        while True:
            self._read_history()
            await asyncio.sleep(TICK_S)

    def _read_history(self) -> None:
        for end in self.history.read():
            if end.end == "stop":
                self.tally.freezes[end.point] += 1
                member = self.cluster.member_of(end.pid)
                if member is not None and member.process is not None:
                    self._aside(self._thaw(member.process, self.random.random(), self.control.freeze_s or FREEZE_S))

    def _ended(self, member: Member, process: Process, status: int) -> None:
        """A process is gone, and so all that it wrote is there to be read."""
        self._read_history()
        if status != -signal.SIGKILL:
            if self.is_raging or status not in (0, -signal.SIGTERM):
                self.tally.exits[f"{member.role} {status}"] += 1
            return
        self_end = self.history.self_end(process.pid)
        spans = sorted(self.history.open_spans(process.pid) & COUNTED_SPANS)
        if self_end is not None or member.is_killed:
            self.tally.killed(
                member.role, spans, self.history.last_point(process.pid), self_end.point if self_end else None
            )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            print(
                f"chaos: {time.monotonic() - self.begun:.0f} s, {self.tally.kills} kills {dict(self.tally.counted)}, "
                f"{self.tally.relay} of the relay, {len(self.customers.campaigns)} campaigns, {self.customers.recipients} recipients, "
                f"{self.snapshots.taken} snapshots",
                flush=True,
            )

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._end_aside)

    def _end_aside(self, task: asyncio.Task[None]) -> None:
        self._side_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble.append(f"the harness failed: {error!r}")

    # —— and then ——

    async def _settle(self, caught: bool) -> float:
        """No more faults; new processes that are not armed; then until every campaign is over. Returns the seconds."""
        begun = time.monotonic()
        self.cluster.proxy.menu = type(self.cluster.proxy.menu)()
        await self.cluster.database.is_up.wait()
        # Lost events stay lost: only what comes from now on is whole.
        await self._set_faults({"skew_check": self.control.faults.get("skew_check", True)})
        await self.cluster.renew()
        until = self.begun + self.options.minutes * 60
        while not caught and not self.launched.is_set() and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
        open_campaigns = [campaign for campaign in self.customers.campaigns if campaign.public_id]
        while open_campaigns and not caught and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
            open_campaigns = [campaign for campaign in open_campaigns if not await self._is_over(campaign)]
            if self.options.until_caught and (await self._verdict()).duplicates:
                break
        while not caught and time.monotonic() < until:
            if self.mailed.is_set() and await self.customers.count_queued_mails() == 0:
                break
            await asyncio.sleep(POLL_S)
        else:
            if not caught:
                self._trouble.append("transactional mails are still queued")
        self.unsettled = [f"{campaign.public_id} ({campaign.status})" for campaign in open_campaigns]
        return time.monotonic() - begun

    async def _is_over(self, campaign: Campaign) -> bool:
        """Completed; or, where events are lost for good, nobody left but those whose event may still be on its way."""
        shown = await self.customers.look(campaign)
        if shown["status"] == "completed" or not self.options.lose_events:
            return bool(shown["status"] == "completed")
        return await self.customers.count(campaign, ("pending", "submitting", "unknown")) == 0

    async def _verdict(self, excused: frozenset[str] = frozenset()) -> Verdict:
        accepted = await checker.accepted_by(self.session, self.cluster.simulator_url)
        codec = Codec(SECRET.encode())
        return judge(accepted, checker.claims_of(lines(self.history_file)), self.customers.asked(), codec, excused)

    async def _judge(self, settled_s: float) -> dict[str, Any]:
        unresolved: list[str] = []
        if self.options.policy == "never_resend" or self.options.lose_events:
            for campaign in self.customers.campaigns:
                unresolved += await self.customers.listed(campaign, "unresolved")
            unresolved += await self.customers.listed_mails("unresolved")
        verdict = await self._verdict(frozenset(unresolved))
        async with self.session.get(f"{self.cluster.simulator_url}/_simulator/stats") as answer:
            simulator = await answer.json()
        findings = self._find(verdict, simulator, unresolved)
        tally = self.tally
        return {
            "seed": self.options.seed,
            "plan": fingerprint(self.options.seed, self.options.means()),
            "options": dataclasses.asdict(self.options),
            "kills": tally.kills,
            "kills_by_role": dict(tally.counted),
            "largest_share": round(tally.largest_share(), 3),
            "kills_by_span": dict(tally.spans),
            "kills_by_arrow": dict(tally.arrows.most_common()),
            "kills_at_points": {point: tally.at_points[point] for point in ALL_POINTS},
            "hits": {point: self.history.hits[point] for point in ALL_POINTS},
            "kills_of_the_relay": tally.relay,
            "kills_of_the_idle": dict(tally.idle),
            "freezes": dict(tally.freezes),
            "done": dict(tally.done),
            "database_back_s": [round(seconds, 2) for seconds in self.crash_s],
            "cuts": dict(self.cluster.proxy.cuts),
            "exits": dict(tally.exits),
            "requests_repeated": dict(self.customers.repeats),
            "campaigns": len(self.customers.campaigns),
            "campaign_states": dict(Counter(campaign.status for campaign in self.customers.campaigns)),
            "mails": len(self.customers.mails),
            "recipients": verdict.asked,
            "accepted": verdict.accepted,
            "resent": verdict.resent,
            "duplicates": len(verdict.duplicates),
            "lost": len(verdict.lost),
            "strangers": len(verdict.strangers),
            "without_claim": len(verdict.unclaimed),
            "mixed_up": len(verdict.mixed_up),
            "unresolved": len(unresolved),
            "snapshots": self.snapshots.taken,
            "ledger_violations": len(self.snapshots.violations),
            "simulator": simulator,
            "stories": await self._stories(verdict),
            "faults_s": round(self.faults_s, 1),
            "settled_s": round(settled_s, 1),
            "total_s": round(time.monotonic() - self.begun, 1),
            "wrong": findings.wrong,
            "unmet": findings.unmet,
        }

    async def _stories(self, verdict: Verdict) -> list[str]:
        """What happened to those who were mailed twice, or under another's number."""
        accepted = await checker.accepted_by(self.session, self.cluster.simulator_url)
        database_url = self.cluster.direct.worker_database_url
        addresses = verdict.duplicates + verdict.mixed_up
        return await story.tell_all(database_url, self.history_file, Codec(SECRET.encode()), addresses, accepted)

    def _find(self, verdict: Verdict, simulator: dict[str, Any], unresolved: list[str]) -> Findings:
        options, tally, findings = self.options, self.tally, Findings()
        lost_events = _lost_events(simulator)
        if options.lose_events and options.policy == "resend" and len(verdict.duplicates) <= lost_events:
            # Who loses events may write twice to those of whom it never heard, and to nobody else.
            verdict = dataclasses.replace(verdict, duplicates=[])
        findings.wrong += verdict.sentences()
        findings.wrong += self.snapshots.violations[:20] + self._trouble
        if self.unsettled:
            findings.wrong.append(f"{len(self.unsettled)} campaigns did not end: {', '.join(self.unsettled[:10])}")
        quotas = {
            "kills": (tally.kills, options.kills),
            "recipients": (verdict.asked, options.recipients),
            "snapshots": (self.snapshots.taken, options.snapshots),
            **{f"hits of {point}": (self.history.hits[point], options.hits) for point in ALL_POINTS},
        }
        if options.lose_events:
            quotas["resends" if options.policy == "resend" else "unresolved"] = (
                verdict.resent if options.policy == "resend" else len(unresolved),
                1,
            )
        findings.unmet += [f"{name}: {got} of {wanted}" for name, (got, wanted) in quotas.items() if got < wanted]
        if tally.largest_share() > ROLE_SHARE_MAX:
            findings.unmet.append(f"one kind of process got {tally.largest_share():.0%} of the kills")
        return findings

    async def _set_faults(self, menu: dict[str, Any]) -> None:
        body = orjson.dumps({**menu, "seed": self.options.seed})
        async with self.session.put(f"{self.cluster.simulator_url}/_simulator/faults", data=body) as answer:
            if answer.status != 200:
                raise RuntimeError(await answer.text())


def _lost_events(simulator: dict[str, Any]) -> int:
    found = simulator.get("events", {}).get("lost", 0)
    return int(found)


def print_summary(summary: dict[str, Any]) -> None:
    """For a person."""
    for name, value in summary.items():
        if name not in ("wrong", "unmet", "options", "simulator", "stories"):
            print(f"{name:>20}  {value}")
    for line in summary["stories"]:
        print(line)
    for sentence in summary["wrong"]:
        print(f"WRONG: {sentence}")
    for sentence in summary["unmet"]:
        print(f"UNMET: {sentence}")
    print("chaos: " + ("FAILED" if summary["wrong"] or summary["unmet"] else "passed"), flush=True)


def read_options(arguments: list[str] | None = None) -> tuple[Options, str]:
    """The options of a run and the file of its summary, from the command line."""
    parser = argparse.ArgumentParser(prog="tests.chaos.run", description="One run of the kill harness.")
    for item in dataclasses.fields(Options):
        flag = f"--{item.name.replace('_', '-')}"
        if item.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default)
        elif item.name == "control":
            parser.add_argument(flag, choices=list(CONTROLS), default=item.default)
        elif item.name == "policy":
            parser.add_argument(flag, choices=("resend", "never_resend"), default=item.default)
        elif item.name == "seed":
            parser.add_argument(flag, type=int, default=random.SystemRandom().randrange(1 << 31))
        else:
            parser.add_argument(flag, type=type(item.default), default=item.default)
    parser.add_argument("--json", default="", help="file for the summary")
    given = vars(parser.parse_args(arguments))
    file = given.pop("json")
    return Options(**given), file


def main() -> int:
    """The command."""
    options, file = read_options()
    folder = Path(options.keep) if options.keep else Path(tempfile.mkdtemp(prefix="mailrail-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        summary = uvloop.run(Run(options, folder).carry_out())
    except Refused as refused:
        print(f"chaos: {refused}")
        return 1
    finally:
        if not options.keep:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
    print_summary(summary)
    if file:
        Path(file).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    return 1 if summary["wrong"] or summary["unmet"] else 0


if __name__ == "__main__":
    sys.exit(main())
