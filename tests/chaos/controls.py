"""Builds that are broken on purpose. A harness that lets one of them pass proves nothing.

Each is applied in the nursery before the first fork, and in no file of the product.
"""

import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.emails import handlers, model, store
from mailrail.emails.model import LeasedShard, Round
from tests.chaos.faults import Action


@dataclass(frozen=True, slots=True)
class Control:
    """What a control changes: patches, settings, the stand-in's faults, chances of a freeze at points and its length in seconds,
    how often the plan's actions come, and how many processes send.
    """

    patches: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)
    stops: dict[str, float] = field(default_factory=dict)
    freeze_s: tuple[float, float] | None = None
    means_s: dict[Action, float] = field(default_factory=dict)
    senders: int = 3


CONTROLS = {
    "none": Control(),
    # Nobody may know, after a crash, who was being written to.
    "no_claim": Control(patches=("tests.chaos.controls:forget_claims",)),
    # Silence proves whatever one likes, at once.
    "no_quiet": Control(
        patches=("tests.chaos.controls:trust_silence",),
        settings={"FENCE_S": "1"},
        # Answers get lost and events are late, so that what was accepted is silent for a while.
        faults={"drop_reply_after_accept": 0.2, "hang_after_accept": 0.1, "reorder_events": 1.0},
    ),
    # SES takes requests of any age, so that nothing stops those of a worker that was frozen before it wrote them. It sleeps until
    # the others have sent again what it had under way, so there have to be others.
    "no_age_check": Control(
        faults={"skew_check": False, "reorder_events": 0.0},
        stops={"call.checked": 0.006},
        freeze_s=(14.0, 18.0),
        means_s={
            Action.KILL: 3.0,
            Action.FREEZE: 0.0,
            Action.DATABASE_CRASH: 0.0,
            Action.BLACKHOLE: 0.0,
            Action.HALF_CLOSE: 0.0,
        },
        senders=6,
    ),
}


class _ForgetError(Exception):
    """Takes a transaction back."""


def forget_claims() -> None:
    """A claim is rolled back once it was read, and made for good only together with the outcomes: as in a build that marks nobody
    as being written to before the call.
    """
    claim, insert = store.claim_round, store.insert_results

    async def claim_and_forget(conn: Connection, lease: LeasedShard, recipients: int, lease_s: float) -> Round | None:
        claimed = None
        try:
            async with conn.transaction():
                claimed = await claim(conn, lease, recipients, lease_s)
                raise _ForgetError
        except _ForgetError:
            return claimed

    async def claim_and_insert(conn: Connection, lease: LeasedShard, claimed: Round, outcomes: bytes) -> None:
        await claim(conn, lease, len(claimed), 1.5)
        await insert(conn, lease, claimed, outcomes)

    store.claim_round = claim_and_forget
    store.insert_results = claim_and_insert


def trust_silence() -> None:
    """No fence after a lease, and a watermark that always passes."""
    patience = handlers.patience

    def impatience(settings: Settings) -> model.Patience:
        return dataclasses.replace(patience(settings), fence=timedelta(milliseconds=50))

    handlers.patience = impatience
    model.Watermark.waiting_for = lambda watermark, lag_max: None  # type: ignore[method-assign,assignment]
