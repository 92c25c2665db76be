"""The wallet against a model of a few numbers: whatever is asked of it and in whatever order, both say the same.

Every step is a transaction on a real PostgreSQL, and after each the books are looked at; at the end of a run all of them are
audited. MAILRAIL_TEST_PROFILE=slow makes more and longer runs.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from mailrail.db.pool import Connection, connect
from mailrail.wallet import service as wallet
from mailrail.wallet.model import (
    InsufficientFunds,
    RefundTooLarge,
    Settlement,
    SpendCapReached,
    TransferKeyUsed,
)
from tests.support.postgres import Database

RUNS, RUNS_SLOW, STEPS = 10, 200, 50
CENT = 10_000
Value = TypeVar("Value")


@dataclass
class ModelHold:
    """What one hold should be."""

    price: int
    recipients: int
    captured: int = 0
    released: int = 0
    refunded: int = 0

    @property
    def open(self) -> int:
        """Recipients that are not settled."""
        return self.recipients - self.captured - self.released

    @property
    def spent(self) -> int:
        """What it cost so far."""
        return (self.recipients - self.released) * self.price - self.refunded


@dataclass
class Model:
    """What the wallet should be; micro-dollars."""

    available: int = 0
    cap: int | None = None
    keys: dict[str, tuple[object, ...]] = field(default_factory=dict)
    holds: dict[int, ModelHold] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """What is set aside."""
        return sum(hold.open * hold.price for hold in self.holds.values())

    @property
    def spent(self) -> int:
        """What this month cost."""
        return sum(hold.spent for hold in self.holds.values())


class LedgerMachine(RuleBasedStateMachine):
    """One account. `url` is set before it runs."""

    url: str
    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.batches = 0
        self.runner = asyncio.Runner()
        self.conn: Connection = self.run(connect(self.url, application_name="tests ledger"))
        self.account_id: int = self.run(self.conn.fetchval("INSERT INTO accounts (name) VALUES ('Model') RETURNING id"))
        self.run(wallet.open_wallet(self.conn, self.account_id))
        self.run(self.conn.execute("SELECT set_config('mailrail.account_id', $1, false)", str(self.account_id)))

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """In this machine's loop."""
        return self.runner.run(work)

    def transact(self, work: Coroutine[Any, Any, Value]) -> Value:
        """In a transaction of its own."""

        async def in_transaction() -> Value:
            async with self.conn.transaction():
                return await work

        return self.run(in_transaction())

    @rule(amount=st.integers(1, 5 * CENT), key=st.sampled_from("abcdefgh"))
    def deposit(self, amount: int, key: str) -> None:
        """Once for each key."""
        self.move(
            ("deposit", amount), f"deposit:{key}", wallet.deposit(self.conn, self.account_id, amount, f"deposit:{key}")
        )

    @rule(hold_id=holds, amount=st.integers(1, CENT), key=st.sampled_from("abcdefgh"))
    def refund(self, hold_id: int, amount: int, key: str) -> None:
        """Up to what was captured."""
        hold = self.model.holds[hold_id]
        work = wallet.refund(self.conn, self.account_id, hold_id, amount, f"refund:{key}")
        if f"refund:{key}" not in self.model.keys and hold.refunded + amount > hold.captured * hold.price:
            self.refused(work, RefundTooLarge)
        elif self.move(("refund", hold_id, amount), f"refund:{key}", work):
            hold.refunded += amount

    def move(self, what: tuple[object, ...], key: str, work: Coroutine[Any, Any, bool]) -> bool:
        """A transfer under a key of somebody's own; whether it was made."""
        known = self.model.keys.setdefault(key, what)
        if known is not what and known != what:
            self.refused(work, TransferKeyUsed)
            return False
        created = self.transact(work)
        assert created is (known is what)
        if created:
            self.model.available += int(str(what[-1]))
        return created

    @rule(target=holds, price=st.sampled_from([0, 1, 300, 999]), recipients=st.integers(1, 3) | st.integers(1, 40))
    def hold_some(self, price: int, recipients: int) -> Any:
        """As far as the money and the cap go."""
        return self.hold(price, recipients)

    def hold(self, price: int, recipients: int) -> Any:
        """The new hold's number, if it may be one."""
        needed = price * recipients
        work = wallet.hold(self.conn, self.account_id, self.new_stream(), price, recipients)
        cap = self.model.cap
        if cap is not None and needed and self.model.spent + needed > cap:
            error = self.refused(work, SpendCapReached)
            assert error.amounts == {"capMicros": cap, "spentMicros": self.model.spent, "neededMicros": needed}
            return multiple()
        if needed > self.model.available:
            self.refused(work, InsufficientFunds)
            return multiple()
        taken = self.transact(work)
        self.model.holds[taken.id] = ModelHold(price, recipients)
        self.model.available -= needed
        return taken.id

    @rule(hold_id=holds, captured=st.integers(0, 20), released=st.integers(0, 20))
    def settle(self, hold_id: int, captured: int, released: int) -> None:
        """No more recipients than the hold has."""
        hold = self.model.holds[hold_id]
        if captured + released > hold.open and hold.price:
            self.refused(self.settle_batches([(hold_id, captured, released)]), asyncpg.CheckViolationError)
        elif captured + released <= hold.open:
            self.transact(self.settle_batches([(hold_id, captured, released)]))
            self.note(hold_id, captured, released)

    @rule(first=consumes(holds), second=holds)
    def settle_the_rest_of_two(self, first: int, second: int) -> None:
        """Two holds in one batch, as a fold after a retry has them; the first is delivered, the second is not."""
        rest = {first: (self.model.holds[first].open, 0), second: (0, self.model.holds[second].open)}
        self.transact(self.settle_batches([(hold_id, *counts) for hold_id, counts in rest.items()]))
        for hold_id, counts in rest.items():
            self.note(hold_id, *counts)

    @rule(cap=st.none() | st.integers(0, 10 * CENT))
    def choose_cap(self, cap: int | None) -> None:
        """Below what was spent, too."""
        self.set_cap(cap)

    def set_cap(self, cap: int | None) -> None:
        """On both sides."""
        self.transact(wallet.set_cap(self.conn, self.account_id, cap))
        self.model.cap = cap

    @rule(target=holds, price=st.sampled_from([1, 300]), recipients=st.integers(1, 3), over=st.sampled_from([-1, 0, 1]))
    def hold_what_the_cap_leaves(self, price: int, recipients: int, over: int) -> Any:
        """Just enough, or one micro-dollar too much."""
        self.set_cap(self.model.spent + price * recipients - over)
        return self.hold(price, recipients)

    @rule(target=holds, over=st.sampled_from([-1, 0, 1]))
    def hold_what_is_there(self, over: int) -> Any:
        """All the money that makes whole recipients, or one more than there is money for."""
        self.set_cap(None)
        return self.hold(300, max(self.model.available // 300 + over, 1))

    @invariant()
    def both_say_the_same(self) -> None:
        """All that the API shows."""
        shown = self.run(wallet.get(self.conn, self.account_id))
        assert (shown.balance.available_micros, shown.balance.held_micros) == (self.model.available, self.model.held)
        assert (shown.spending.spent_micros, shown.spending.cap_micros) == (self.model.spent, self.model.cap)
        for one in self.run(wallet.holds(self.conn, self.account_id, None, 100)):
            hold = self.model.holds[one.id]
            assert one.captured_micros == hold.captured * hold.price
            assert one.released_micros == hold.released * hold.price
            assert (one.refunded_micros, one.open_micros) == (hold.refunded, hold.open * hold.price)
            assert (one.closed_at is None) == (one.open_micros > 0)

    def teardown(self) -> None:
        """The books of the whole database balance."""
        try:
            assert self.run(wallet.audit(self.conn)) == []
        finally:
            self.run(self.conn.close())
            self.runner.close()

    def refused(self, work: Coroutine[Any, Any, Any], kind: type[Any]) -> Any:
        """The error that the work must raise; it leaves nothing behind."""
        try:
            self.transact(work)
        except kind as error:
            return error
        raise AssertionError(f"this should have been {kind.__name__}")

    def note(self, hold_id: int, captured: int, released: int) -> None:
        """In the model."""
        hold = self.model.holds[hold_id]
        hold.captured += captured
        hold.released += released
        self.model.available += released * hold.price

    def new_stream(self) -> int:
        """A number of this week, in whose partitions settlements find a place."""
        return int(self.run(self.conn.fetchval("SELECT new_stream_id(0)")))

    async def settle_batches(self, batches: list[tuple[int, int, int]]) -> None:
        """As the fold does: settlements and their money in one transaction."""
        settlements = []
        for hold_id, captured, released in batches:
            self.batches += 1
            await self.conn.execute(
                """INSERT INTO settlements (stream_id, seq, hold_id, account_id, kind)
                   SELECT h.stream_id, before.n + i, h.id, h.account_id, CASE WHEN i <= $2 THEN 'captured' ELSE 'released' END
                   FROM holds h, generate_series(1, $2::integer + $3::integer) i,
                     LATERAL (SELECT count(*)::integer AS n FROM settlements s
                              WHERE s.stream_id = h.stream_id AND s.hold_id = h.id) before
                   WHERE h.id = $1""",
                hold_id,
                captured,
                released,
            )
            settlements.append(Settlement(hold_id, captured, released, f"{hold_id}:{self.batches}"))
        await wallet.settle_all(self.conn, self.account_id, settlements)


def test_the_wallet_is_its_model(database: Database) -> None:
    LedgerMachine.url = database.worker_url
    is_slow = hypothesis.settings.default is not None and hypothesis.settings.default.max_examples > 100
    run_state_machine_as_test(
        LedgerMachine,
        settings=hypothesis.settings(
            max_examples=RUNS_SLOW if is_slow else RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        ),
    )
