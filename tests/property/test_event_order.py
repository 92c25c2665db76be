"""The state of a mail is a function of the set of facts about it: through the real applier and the real fold, whatever the order,
however often each comes, and wherever the batches are cut.

Exhaustive for up to four facts of nine kinds; by chance for many of one mail. With them its money, its counters, and what becomes of
its address. Money settles at the first fold that may settle it, so a bounce's grace is open until all facts are in.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrail._core import Codec
from mailrail.config import Settings
from mailrail.db.pool import Connection, connect
from mailrail.emails import fold
from mailrail.emails.model import OPEN_STATES, Claim, EventKind, Outcome, Result, State
from mailrail.emails.model import fold as fold_one
from mailrail.events import store
from mailrail.events.handlers import apply_once
from mailrail.events.model import Notification
from mailrail.wallet import service as wallet
from tests.support.postgres import SECRET, Database
from tests.support.streams import TestStream, add_claim, add_result, make_account, make_stream

CODEC = Codec(SECRET.encode())
GRACE = timedelta(hours=1)
AT = "2026-11-23T16:39:32.000Z"


@dataclass(frozen=True, order=True)
class Fact:
    """One thing about a mail: an event of SES, or with a kind of 0 the answer that we had ourselves."""

    kind: int
    attempt: int = 1
    which: int = 0

    @property
    def is_answer(self) -> bool:
        """Whether it is ours."""
        return self.kind == 0

    def body(self, stream: TestStream, seq: int) -> str:
        """As SES tells it."""
        types = {
            EventKind.SEND: ("Send", "send", {}),
            EventKind.DELIVERY: ("Delivery", "delivery", {"timestamp": AT, "smtpResponse": "250 ok"}),
            EventKind.BOUNCE_PERMANENT: ("Bounce", "bounce", {"timestamp": AT, "bounceType": "Permanent"}),
            EventKind.BOUNCE_TRANSIENT: (
                "Bounce",
                "bounce",
                {"timestamp": AT, "bounceType": "Transient", "feedbackId": f"f{self.which}"},
            ),
            EventKind.REJECT: ("Reject", "reject", {"reason": "Bad content"}),
            EventKind.RENDERING_FAILURE: ("Rendering Failure", "failure", {"errorMessage": "a slot is empty"}),
            EventKind.COMPLAINT: ("Complaint", "complaint", {"timestamp": AT, "feedbackId": f"c{self.which}"}),
            EventKind.DELIVERY_DELAY: (
                "DeliveryDelay",
                "deliveryDelay",
                {"timestamp": f"2026-11-23T1{self.which}:00:00Z"},
            ),
            EventKind.OPEN: ("Open", "open", {"timestamp": f"2026-11-23T1{self.which}:00:00Z"}),
            EventKind.CLICK: ("Click", "click", {"timestamp": AT, "link": f"https://acme.com/{self.which}"}),
        }
        kind, part, content = types[EventKind(self.kind)]
        mail = {"timestamp": AT, "messageId": "m", "tags": {"mr": [CODEC.tag(stream.stream_id, seq, self.attempt)]}}
        return orjson.dumps({"eventType": kind, part: content, "mail": mail}).decode()


ANSWER = Fact(0)
NINE = [ANSWER] + [
    Fact(kind)
    for kind in (
        EventKind.SEND,
        EventKind.DELIVERY,
        EventKind.BOUNCE_PERMANENT,
        EventKind.BOUNCE_TRANSIENT,
        EventKind.REJECT,
        EventKind.COMPLAINT,
        EventKind.DELIVERY_DELAY,
        EventKind.OPEN,
    )
]


def contradicts(facts: Iterable[Fact]) -> bool:
    """SES does not deliver what it rejected. If it says so, the mail is shown as rejected, and charged if it was delivered before
    the rejection settled it: there the order may count, and for nothing else.
    """
    kinds = {fact.kind for fact in facts}
    return EventKind.DELIVERY in kinds and not kinds.isdisjoint({EventKind.REJECT, EventKind.RENDERING_FAILURE})


class Mails:
    """A stream, one mail of it for each list of facts."""

    def __init__(self, conn: Connection, stream: TestStream) -> None:
        self.conn = conn
        self.stream = stream
        self._told = itertools.count()

    @classmethod
    async def make(cls, conn: Connection, mails: int) -> "Mails":
        """Claimed twice, nothing known yet."""
        stream = await make_stream(conn, await make_account(conn), mails, bounce_grace=GRACE)
        for shard in range((mails - 1) // stream.shard_size + 1):
            seqs = range(shard * stream.shard_size + 1, min(mails, (shard + 1) * stream.shard_size) + 1)
            for attempt in (1, 2):
                await add_claim(conn, stream, shard, attempt, seqs, 1)
        return cls(conn, stream)

    async def tell(self, facts: Sequence[tuple[int, Fact]]) -> None:
        """(seq, fact), in one batch of the applier; a fact told again is another notification."""
        notifications = []
        for seq, fact in facts:
            if fact.is_answer:
                known = await self.conn.fetchval(
                    "SELECT EXISTS (SELECT FROM results WHERE stream_id = $1 AND seq = $2 AND attempt = $3)",
                    self.stream.stream_id,
                    seq,
                    fact.attempt,
                )
                if not known:
                    await add_result(self.conn, self.stream, seq, fact.attempt, Outcome.ACCEPTED)
            else:
                name = f"{self.stream.stream_id}-{next(self._told)}"
                notifications.append(Notification(name, "arn", fact.body(self.stream, seq)))
        if notifications:
            await store.insert_notifications(self.conn, notifications)
        while await self.conn.fetchval("SELECT EXISTS (SELECT FROM notification_queue)"):
            await apply_once(self.conn, CODEC, Settings())

    async def fold(self) -> None:
        """All its shards, now."""
        await self.conn.execute("UPDATE folds SET due_at = '-infinity' WHERE stream_id = $1", self.stream.stream_id)
        due = "SELECT EXISTS (SELECT FROM folds WHERE stream_id = $1 AND due_at = '-infinity')"
        while await self.conn.fetchval(due, self.stream.stream_id):
            async with self.conn.transaction():
                await fold.fold_next(self.conn)

    async def end_grace(self) -> None:
        """All facts are in; what is left to settle settles."""
        await self.conn.execute("UPDATE streams SET bounce_grace = '0' WHERE stream_id = $1", self.stream.stream_id)
        await self.fold()

    async def outcomes(self) -> dict[int, dict[str, Any]]:
        """What became of each."""
        rows = await self.conn.fetch(
            """SELECT a.seq, r.state, r.attempt, r.reason, r.at, r.opens, r.clicks, r.complained, r.unsubscribed,
                 s.kind AS settlement, x.reason AS suppression, c.status AS contact,
                 (SELECT count(*) FROM settlements n WHERE n.stream_id = a.stream_id AND n.seq = a.seq) AS settlements,
                 (SELECT count(*) FROM events e WHERE e.stream_id = a.stream_id AND e.seq = a.seq) AS events
               FROM audience a JOIN contacts c ON c.id = a.contact_id
               LEFT JOIN recipient_state r USING (stream_id, seq) LEFT JOIN settlements s USING (stream_id, seq)
               LEFT JOIN suppressions x ON x.account_id = a.account_id AND x.email_folded = lower(a.email)
               WHERE a.stream_id = $1""",
            self.stream.stream_id,
        )
        return {row["seq"]: dict(row) for row in rows}

    async def counters(self) -> dict[str, Any]:
        """Sums that are kept beside the rows."""
        states = await self.conn.fetch(
            "SELECT state, sum(recipients) AS n FROM state_counts WHERE stream_id = $1 GROUP BY state ORDER BY state",
            self.stream.stream_id,
        )
        sums = await self.conn.fetchrow(
            """SELECT sum(open) AS open, sum(opened) AS opened, sum(clicked) AS clicked, sum(complained) AS complained
               FROM folds WHERE stream_id = $1""",
            self.stream.stream_id,
        )
        hold = await self.conn.fetchrow(
            "SELECT captured_micros, released_micros FROM holds WHERE id = $1", self.stream.hold_id
        )
        assert await wallet.audit(self.conn) == []
        return {"states": [tuple(row) for row in states], **dict(sums or {}), **dict(hold or {})}


def comparable(outcome: dict[str, Any], facts: Iterable[Fact]) -> dict[str, Any]:
    """Less what may differ between two mails with the same facts. `at` is our own clock where SES named no time."""
    told = [fact for fact in facts if not fact.is_answer]
    left_out = {"seq"} | ({"settlement"} if contradicts(told) else set())
    by_our_clock = not any(EventKind.DELIVERY <= fact.kind <= EventKind.RENDERING_FAILURE for fact in told)
    return {
        name: value for name, value in outcome.items() if name not in left_out | ({"at"} if by_our_clock else set())
    }


def expected_state(facts: Iterable[Fact]) -> State:
    """By the rule in its pure form."""
    now = datetime.now(UTC)
    results = [Result(fact.attempt, Outcome.ACCEPTED, now) for fact in facts if fact.is_answer]
    events = [EventKind(fact.kind) for fact in facts if not fact.is_answer]
    return fold_one([Claim(1, live=False), Claim(2, live=False)], results, events, now)


Run: TypeAlias = Callable[[Callable[[Connection], Awaitable[None]]], None]


@pytest.fixture(scope="module")
def run(database: Database) -> Iterator[Run]:
    """Runs work on one connection that all examples share."""
    with asyncio.Runner() as runner:
        conn = runner.run(connect(database.worker_url, application_name="tests", hot=True))

        async def use(work: Callable[[Connection], Awaitable[None]]) -> None:
            await work(conn)

        yield lambda work: runner.run(use(work))
        runner.run(conn.close())


def test_each_order_of_up_to_four_facts_comes_to_the_same(run: Run) -> None:
    """All permutations, a step for all mails at once, folded after every step; then all facts once more."""
    orders = [order for size in range(1, 5) for order in itertools.permutations(NINE, size)]

    async def work(conn: Connection) -> None:
        mails = await Mails.make(conn, len(orders))
        for step in range(4):
            await mails.tell([(seq, order[step]) for seq, order in enumerate(orders, 1) if step < len(order)])
            await mails.fold()
        before = await mails.outcomes()
        await mails.tell([(seq, order[0]) for seq, order in enumerate(orders, 1)])
        await mails.fold()
        assert await mails.outcomes() == before
        await mails.end_grace()
        found: dict[frozenset[Fact], dict[str, Any]] = {}
        for seq, outcome in (await mails.outcomes()).items():
            facts = frozenset(orders[seq - 1])
            shown = comparable(outcome, facts)
            assert found.setdefault(facts, shown) == shown, orders[seq - 1]
            assert State(outcome["state"]) == expected_state(facts), orders[seq - 1]
            assert outcome["settlements"] == (0 if State(outcome["state"]) in OPEN_STATES else 1)
        assert len(found) == sum(1 for size in range(1, 5) for _ in itertools.combinations(NINE, size))
        await mails.counters()

    run(work)


FACTS = st.builds(
    Fact,
    st.sampled_from([0, *EventKind]).filter(lambda kind: kind != EventKind.UNSUBSCRIBE),
    st.integers(1, 2),
    st.integers(0, 2),
)


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[list[Fact]], list[tuple[int, Fact]], list[int], list[bool]]:
    """(facts of each mail, all of them in some order with doubles, where batches end, whether a fold follows each)."""
    mails = draw(st.lists(st.lists(FACTS, min_size=1, max_size=8, unique=True), min_size=1, max_size=6))
    all_facts = [(seq, fact) for seq, facts in enumerate(mails, 1) for fact in facts]
    doubled = all_facts + draw(st.lists(st.sampled_from(all_facts), max_size=10))
    told = draw(st.permutations(doubled))
    cuts = sorted(draw(st.sets(st.integers(1, len(told)), max_size=5)) | {len(told)})
    return mails, told, cuts, draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))


@settings(deadline=None)
@given(story=stories())
@pytest.mark.long
def test_many_facts_come_to_the_same_however_they_are_told(
    run: Run, story: tuple[list[list[Fact]], list[tuple[int, Fact]], list[int], list[bool]]
) -> None:
    facts, told, cuts, folds = story

    async def work(conn: Connection) -> None:
        once, anyhow = await Mails.make(conn, len(facts)), await Mails.make(conn, len(facts))
        await once.tell([(seq, fact) for seq, mail in enumerate(facts, 1) for fact in sorted(mail)])
        for start, end, folded in zip([0, *cuts], cuts, folds, strict=False):
            await anyhow.tell(told[start:end])
            if folded:
                await anyhow.fold()
        for mails in (once, anyhow):
            await mails.fold()
            await mails.end_grace()
        one, other = await once.outcomes(), await anyhow.outcomes()
        for seq, mail in enumerate(facts, 1):
            assert comparable(other[seq], mail) == comparable(one[seq], mail)
            assert State(other[seq]["state"]) == expected_state(mail)
        if not any(contradicts(mail) for mail in facts):
            assert await anyhow.counters() == await once.counters()

    run(work)


# —— the odd ones, by name ———————————————————————————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize(
    ("order", "state", "settlement"),
    [
        pytest.param(
            [EventKind.DELIVERY, EventKind.BOUNCE_PERMANENT], State.BOUNCED, "captured", id="bounce_after_delivery"
        ),
        pytest.param(
            [EventKind.BOUNCE_PERMANENT, EventKind.DELIVERY], State.BOUNCED, "captured", id="delivery_after_bounce"
        ),
        pytest.param(
            [EventKind.BOUNCE_TRANSIENT, EventKind.DELIVERY],
            State.DELIVERED,
            "captured",
            id="delivery_after_soft_bounce",
        ),
        pytest.param([EventKind.DELIVERY, 0], State.DELIVERED, "captured", id="event_before_our_own_answer"),
        pytest.param([EventKind.SEND], State.ACCEPTED, None, id="event_and_never_an_answer"),
        pytest.param(
            [EventKind.COMPLAINT, EventKind.DELIVERY], State.DELIVERED, "captured", id="complaint_before_delivery"
        ),
        pytest.param(
            [EventKind.DELIVERY, EventKind.DELIVERY_DELAY], State.DELIVERED, "captured", id="delay_after_delivery"
        ),
        pytest.param([EventKind.SEND, EventKind.REJECT], State.REJECTED, "released", id="reject"),
        pytest.param([EventKind.RENDERING_FAILURE, 0], State.REJECTED, "released", id="failure_before_our_own_answer"),
        pytest.param([EventKind.OPEN], State.ACCEPTED, None, id="open_before_everything"),
    ],
)
def test_odd_orders(run: Run, order: list[int], state: State, settlement: str | None) -> None:
    async def work(conn: Connection) -> None:
        mails = await Mails.make(conn, 1)
        for kind in order:
            await mails.tell([(1, Fact(kind))])
            await mails.fold()
        await mails.end_grace()
        [outcome] = (await mails.outcomes()).values()
        assert (State(outcome["state"]), outcome["settlement"]) == (state, settlement)

    run(work)
