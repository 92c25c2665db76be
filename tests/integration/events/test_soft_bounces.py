"""Addresses that mail comes back from again and again: the SQL of the applier counts as the pure rule says."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Connection, Pool
from mailrail.emails.model import EventKind
from mailrail.events import handlers, soft_bounces, store
from mailrail.suppressions.model import is_worn_out
from tests.support.streams import TestStream, make_account, make_stream

BOUNCE, DELIVERY = EventKind.BOUNCE_TRANSIENT, EventKind.DELIVERY
FULL = "Transient/MailboxFull: smtp; 452 4.2.2 x@example.net is full"
SETTINGS = Settings()
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """An event as the core hands it over; the address is that of the recipient `seq`."""

    seq: int
    kind: EventKind
    at: datetime
    address: str
    detail: str | None = FULL


async def apply(conn: Connection, stream: TestStream, batch: Iterable[Told]) -> None:
    """What the applier does with a batch."""
    async with conn.transaction():
        await store.prepare_staging(conn)
        await conn.executemany(
            """INSERT INTO incoming (stream_id, seq, attempt, kind, dedupe, at, address, detail)
               VALUES ($1, $2, 1, $3, $4, $5, $6, $7)""",
            [
                (stream.stream_id, one.seq, int(one.kind), hash(one.at) % 1000, one.at, one.address, one.detail)
                for one in batch
            ],
        )
        tallies = await store.insert_events(conn)
        await store.suppress_addresses(conn)
        await handlers.judge_soft_bounces(conn, sum(one.soft_bounced for one in tallies), SETTINGS)


async def address_all(conn: Connection, stream: TestStream, addresses: Sequence[str]) -> None:
    """Gives recipient n the n-th address."""
    await conn.execute(
        """UPDATE audience a SET email = x.email FROM unnest($2::text[]) WITH ORDINALITY AS x(email, seq)
           WHERE a.stream_id = $1 AND a.seq = x.seq""",
        stream.stream_id,
        list(addresses),
    )


async def suppressed(conn: Connection, account_id: int) -> dict[str, str]:
    rows = await conn.fetch("SELECT email_folded, reason FROM suppressions WHERE account_id = $1", account_id)
    return {row["email_folded"]: row["reason"] for row in rows}


@pytest.fixture
async def conn(worker_pool: Pool) -> AsyncIterator[Connection]:
    async with worker_pool.acquire() as acquired:
        yield acquired


async def one_address(conn: Connection, mails: int) -> TestStream:
    """A stream of so many mails to one address."""
    stream = await make_stream(conn, await make_account(conn), mails)
    await address_all(conn, stream, ["X@example.net"] * mails)
    return stream


def bounces(*days: float, detail: str = FULL, first: int = 1) -> list[Told]:
    """One mail after the other comes back, so many days after the beginning."""
    return [
        Told(seq, BOUNCE, NOON + timedelta(days=day), "x@example.net", detail) for seq, day in enumerate(days, first)
    ]


@pytest.mark.parametrize(
    ("days", "is_suppressed"),
    [
        ((0, 1, 2, 3, 4), True),
        ((0, 0.1, 1, 1.1, 2), True),
        ((0, 0.1, 0.2, 0.3, 0.4), False),  # one bad day
        ((0, 0.1, 1, 1.1), False),
        ((0, 1, 2, 3, 29), True),
        ((0, 1, 2, 3, 30), False),  # too far apart
    ],
)
async def test_enough_mails_on_enough_days(conn: Connection, days: tuple[float, ...], is_suppressed: bool) -> None:
    stream = await one_address(conn, len(days))
    for told in bounces(*days):
        assert await suppressed(conn, stream.account_id) == {}
        await apply(conn, stream, [told])
    assert await suppressed(conn, stream.account_id) == ({"x@example.net": "soft_bounces"} if is_suppressed else {})


async def test_what_it_leaves_tells_why_and_quotes_no_server(conn: Connection) -> None:
    stream = await one_address(conn, 5)
    contact_id = await conn.fetchval("SELECT min(contact_id) FROM audience WHERE stream_id = $1", stream.stream_id)
    await conn.execute("UPDATE contacts SET email = 'X@example.net' WHERE id = $1", contact_id)
    await apply(conn, stream, bounces(0, 1, 2, 3, 4))
    row = await conn.fetchrow("SELECT * FROM suppressions WHERE account_id = $1", stream.account_id)
    assert row is not None
    assert (row["stream_id"], row["seq"], row["detail"]) == (stream.stream_id, 5, "Transient/MailboxFull 4.2.2")
    assert await conn.fetchval("SELECT status FROM contacts WHERE id = $1", contact_id) == "bounced"
    left = await conn.fetchval("SELECT count(*) FROM soft_bounces WHERE account_id = $1", stream.account_id)
    assert left == 0, "the next bounce would suppress it again as soon as it was lifted"


@pytest.mark.parametrize(
    ("detail", "counts"),
    [
        ("Transient/General: 421", True),
        ("Undetermined/Undetermined", True),
        ("Transient/MessageTooLarge: 552", False),
        ("Transient/ContentRejected", False),
        ("Transient/AttachmentRejected", False),
        ("Transient/CustomTimeoutExceeded", False),
    ],
)
async def test_what_is_about_the_mail_counts_nothing(conn: Connection, detail: str, counts: bool) -> None:
    stream = await one_address(conn, 5)
    await apply(conn, stream, bounces(0, 1, 2, 3, 4, detail=detail))
    assert bool(await suppressed(conn, stream.account_id)) is counts


async def test_a_delivery_begins_anew(conn: Connection) -> None:
    stream = await one_address(conn, 12)
    await apply(conn, stream, bounces(0, 1, 2, 3))
    await apply(conn, stream, [Told(5, DELIVERY, NOON + timedelta(days=3.5), "x@Example.net", None)])
    await apply(conn, stream, bounces(4, 5, 6, 7, first=6))
    assert await suppressed(conn, stream.account_id) == {}
    # One that was on its way before says nothing of what came since.
    await apply(conn, stream, [Told(10, DELIVERY, NOON + timedelta(days=2), "x@example.net", None)])
    await apply(conn, stream, bounces(8, first=11))
    assert await suppressed(conn, stream.account_id) == {"x@example.net": "soft_bounces"}


async def test_an_automatic_answer_is_no_bounce(conn: Connection) -> None:
    """SES reports an out-of-office notice as a transient bounce of a mail that it delivered."""
    stream = await one_address(conn, 6)
    for told in bounces(*range(6)):
        delivered = replace(told, kind=DELIVERY, detail=None, at=told.at - timedelta(seconds=1))
        await apply(conn, stream, [told, delivered])
    assert await suppressed(conn, stream.account_id) == {}


async def test_a_tenants_bounces_are_its_own(conn: Connection) -> None:
    first, second = await one_address(conn, 3), await one_address(conn, 3)
    await apply(conn, first, bounces(0, 1, 2))
    await apply(conn, second, bounces(0, 1, 2))
    assert await suppressed(conn, first.account_id) == await suppressed(conn, second.account_id) == {}


async def test_an_erased_person_leaves_nothing(conn: Connection) -> None:
    stream = await one_address(conn, 5)
    await conn.execute(
        "UPDATE audience SET email = '', email_hash = sha256('x') WHERE stream_id = $1", stream.stream_id
    )
    await apply(conn, stream, bounces(0, 1, 2, 3, 4))
    assert await suppressed(conn, stream.account_id) == {}
    assert await conn.fetchval("SELECT count(*) FROM soft_bounces WHERE account_id = $1", stream.account_id) == 0


async def test_old_counts_are_forgotten(conn: Connection) -> None:
    stream = await one_address(conn, 1)
    await apply(conn, stream, [replace(bounces(0)[0], at=datetime.now(UTC) - timedelta(days=days)) for days in (70, 5)])
    await soft_bounces.forget_old(conn)
    days = await conn.fetch(
        "SELECT current_date - day AS age FROM soft_bounces WHERE account_id = $1", stream.account_id
    )
    assert [row["age"] in (5, 6) for row in days] == [True]


# —— against the rule ————————————————————————————————————————————————————————————————————————————————————————————————————

ADDRESSES = 60
MAILS_EACH = 9


@pytest.mark.parametrize("seed", range(3))
async def test_neither_order_nor_batches_nor_repeats_matter(conn: Connection, seed: int) -> None:
    chance = random.Random(seed)
    stream, histories = await histories_of(conn, chance, deliveries=False)
    told = [one for history in histories.values() for one in history]
    told += chance.sample(told, len(told) // 4)
    chance.shuffle(told)
    while told:
        size = chance.choice((1, 3, 40, 200))
        batch, told = told[:size], told[size:]
        await apply(conn, stream, batch)
    assert set(await suppressed(conn, stream.account_id)) == {
        address for address, history in histories.items() if is_worn(history)
    }


async def test_deliveries_clear_as_the_rule_says(conn: Connection) -> None:
    chance = random.Random(20261130)
    stream, histories = await histories_of(conn, chance, deliveries=True)
    expected = {address for address, history in histories.items() if is_worn_some_time(history)}
    assert 0 < len(expected) < ADDRESSES
    for column in range(MAILS_EACH):
        # Each address once a batch, so that its events come in their order.
        await apply(conn, stream, [history[column] for history in histories.values()])
    assert set(await suppressed(conn, stream.account_id)) == expected


async def histories_of(
    conn: Connection, chance: random.Random, *, deliveries: bool
) -> tuple[TestStream, dict[str, list[Told]]]:
    """What becomes of the mails to each of many addresses, oldest first."""
    stream = await make_stream(conn, await make_account(conn), ADDRESSES * MAILS_EACH)
    names = [f"a{n}@example.net" for n in range(ADDRESSES)]
    await address_all(conn, stream, [name for name in names for _ in range(MAILS_EACH)])
    histories = {}
    for number, name in enumerate(names):
        span = chance.choice((2, 12, 80))
        ats = sorted(NOON + timedelta(days=chance.random() * span) for _ in range(MAILS_EACH))
        kinds = [DELIVERY if deliveries and chance.random() < 0.15 else BOUNCE for _ in ats]
        histories[name] = [
            Told(number * MAILS_EACH + n + 1, kind, at, name, FULL if kind is BOUNCE else None)
            for n, (kind, at) in enumerate(zip(kinds, ats, strict=True))
        ]
    return stream, histories


def is_worn(history: Sequence[Told]) -> bool:
    days = Counter(one.at.date() for one in history)
    return is_worn_out(days, SETTINGS.soft_bounces_max, SETTINGS.soft_bounce_days_min)


def is_worn_some_time(history: Sequence[Told]) -> bool:
    since: list[Told] = []
    for one in history:
        since = [] if one.kind is DELIVERY else [*since, one]
        if is_worn(since):
            return True
    return False
