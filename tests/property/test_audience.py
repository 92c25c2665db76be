"""Audiences as one statement against the same in plain Python, over contacts with every oddity that a field may have."""

import asyncio
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from mailrail.campaigns import audience as audiences
from mailrail.campaigns.audience import from_columns, to_columns
from mailrail.campaigns.form import read_audience
from mailrail.campaigns.model import TIME, Audience, Condition, Op
from mailrail.db.pool import Connection, connect
from mailrail.web.fields import Fields, FieldsInvalid
from tests.oracle.audience import Person, holds, verdict
from tests.support.postgres import Database

PEOPLE = 150
TAGS = ("a", "b", "c")
TEXTS = (
    "",
    "x",
    "X",
    "pro",
    "free",
    "프로",
    "%",
    "_",
    "a'b",
    "\\",
    "1",
    "-1.50",
    "042",
    "1e3",
    "true",
    "٣",
    "null",
    "$1",
)
TIMES = (
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "2026-02-30",
    "2026-01-01 10:30",
    "2026-01-01T01:00:00+02:00",
    "yesterday",
)
NUMBERS = (0, 1, -1.5, 42, 0.1, 10**17)
ODD: tuple[Any, ...] = (None, True, False, [], ["x", "pro"], [1], {"x": 1}, {})
FIELDS = ("plan", "age", "since", "absent")
BUILT_IN = ("email", "firstName", "lastName", "name")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

WANTED_TEXTS = [*filter(None, TEXTS), "p1", "@Example", "P7@example.com", "2026"]
WANTED_TIMES = [time for time in TIMES if time not in ("2026-02-30", "yesterday")]
CUSTOMS = [f"customFields.{name}" for name in FIELDS]
ORDERS = (Op.LESS, Op.LESS_OR_EQUAL, Op.GREATER, Op.GREATER_OR_EQUAL)
COMPARISONS = (Op.EQUAL, Op.NOT_EQUAL, *ORDERS)
# Every kind of condition: fields, operators and values that go together.
KINDS: tuple[tuple[Sequence[str], Sequence[Op], Sequence[Any]], ...] = (
    ([*BUILT_IN, *CUSTOMS], (*COMPARISONS, Op.CONTAINS, Op.STARTS_WITH), WANTED_TEXTS),
    (CUSTOMS, COMPARISONS, NUMBERS),
    (CUSTOMS, (Op.EQUAL, Op.NOT_EQUAL), (True, False)),
    ([*BUILT_IN, *CUSTOMS], (Op.EXISTS,), (True, False)),
    ([*BUILT_IN, *CUSTOMS], (Op.IN,), (["x", "pro"], ["p1", "1"])),
    (CUSTOMS, (Op.IN,), ([1, 42], ["x", 0.1, 1])),
    ([*CUSTOMS, "createdAt"], (Op.BEFORE, Op.AFTER), WANTED_TIMES),
    (["createdAt"], ORDERS, WANTED_TIMES),
)
SINGLE = [Condition(*one) for kind in KINDS for one in itertools.product(*kind)]
conditions = st.sampled_from(SINGLE)


def parts(lists: list[int]) -> dict[str, st.SearchStrategy[Any]]:
    """What an audience is made of."""
    return {
        "tags": st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
        "lists": st.lists(st.sampled_from(lists), max_size=2, unique=True),
        "where": st.lists(conditions, max_size=3),
    }


def make_people(lists: list[int]) -> list[Person]:
    """The same ones in every run."""
    dice = random.Random(7)
    values = [*TEXTS, *TIMES, *NUMBERS, *ODD]
    return [
        Person(
            email=f"{dice.choice('pP')}{n}@example.{dice.choice(('com', 'NET'))}",
            names={name: dice.choice([None, *TEXTS]) for name in BUILT_IN[1:]},
            status=dice.choice(("subscribed",) * 5 + ("unsubscribed", "bounced", "complained")),
            tags=dice.sample(TAGS, dice.randrange(4)),
            custom_fields={name: dice.choice(values) for name in FIELDS[:3] if dice.random() < 0.8},
            created_at=EPOCH + timedelta(hours=dice.randrange(-3, 4)),
            is_suppressed=dice.random() < 0.1,
            lists={one: dice.choice(("subscribed", "unsubscribed")) for one in lists if dice.random() < 0.5},
        )
        for n in range(PEOPLE)
    ]


async def add(conn: Connection, account_id: int, people: list[Person]) -> list[int]:
    """Their ids, in order."""
    ids = []
    for one in people:
        contact_id = await conn.fetchval(
            """INSERT INTO contacts (account_id, email, name, first_name, last_name, status, tags, custom_fields, created_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id""",
            account_id,
            one.email,
            *(one.names[name] for name in ("name", "firstName", "lastName")),
            one.status,
            one.tags,
            one.custom_fields,
            one.created_at,
        )
        await conn.executemany(
            "INSERT INTO list_members (list_id, contact_id, account_id, status) VALUES ($1, $2, $3, $4)",
            [(list_id, contact_id, account_id, status) for list_id, status in one.lists.items()],
        )
        if one.is_suppressed:
            await conn.execute(
                "INSERT INTO suppressions (account_id, email_folded, reason) VALUES ($1, lower($2), 'bounce')",
                account_id,
                one.email,
            )
        ids.append(contact_id)
    return ids


async def add_account(conn: Connection) -> tuple[int, list[int]]:
    """An account with three lists."""
    account_id = await conn.fetchval("INSERT INTO accounts (name) VALUES ('Model') RETURNING id")
    rows = await conn.fetch(
        "INSERT INTO lists (account_id, name) SELECT $1, n FROM unnest(ARRAY['L', 'M', 'N']) n RETURNING id", account_id
    )
    return account_id, [row["id"] for row in rows]


async def frozen(conn: Connection, account_id: int, wanted: Audience) -> list[int]:
    """Who is numbered, in the order of the numbers."""
    transaction = conn.transaction()
    await transaction.start()
    stream_id = await conn.fetchval("SELECT new_stream_id(0)")
    count = await audiences.freeze(conn, account_id, stream_id, wanted)
    rows = await conn.fetch("SELECT seq, contact_id FROM audience WHERE stream_id = $1 ORDER BY seq", stream_id)
    await transaction.rollback()
    assert [row["seq"] for row in rows] == list(range(1, count + 1))
    return [row["contact_id"] for row in rows]


@dataclass
class Stage:
    """People in the database, and a connection that asks as the API does, under row level security."""

    runner: asyncio.Runner
    conn: Connection
    account_id: int
    lists: list[int]
    people: list[Person]
    ids: list[int]


@pytest.fixture
def stage(database: Database) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        worker = runner.run(connect(database.worker_url, application_name="tests audience"))
        account_id, lists = runner.run(add_account(worker))
        stranger_id, their_lists = runner.run(add_account(worker))
        people = make_people(lists)
        ids = runner.run(add(worker, account_id, people))
        runner.run(add(worker, stranger_id, make_people(their_lists)))
        conn = runner.run(connect(database.api_url, application_name="tests audience"))
        runner.run(conn.execute("SELECT set_config('mailrail.account_id', $1, false)", str(account_id)))
        yield Stage(runner, conn, account_id, lists, people, ids)
        runner.run(conn.close())
        runner.run(worker.close())


def test_an_audience_reaches_whom_its_words_say(stage: Stage) -> None:
    run, lists, sizes = stage.runner.run, stage.lists, set[int]()

    @hypothesis.given(st.builds(Audience, **parts(lists), exclude=st.none() | st.builds(Audience, **parts(lists))))
    def agree(wanted: Audience) -> None:
        hypothesis.assume(wanted.exclude is None or not wanted.exclude.is_everybody)
        told = Counter(verdict(person, wanted) for person in stage.people)
        del told[None]
        reached = [
            contact_id
            for contact_id, one in zip(stage.ids, stage.people, strict=True)
            if verdict(one, wanted) == "reached"
        ]
        assert run(frozen(stage.conn, stage.account_id, wanted)) == reached
        assert run(audiences.count(stage.conn, stage.account_id, wanted)) == len(reached)
        reach = run(audiences.measure(stage.conn, stage.account_id, wanted))
        assert reach.matched == told.total()
        assert {"reached": reach.recipients, **reach.skipped} == {"reached": len(reached), **told}
        assert from_columns(*to_columns(wanted)) == wanted
        sizes.add(len(reached))

    agree()
    assert len(sizes) > 5, "it judged more than nobody and everybody"


async def matched(conn: Connection, account_id: int, one: Condition) -> list[int]:
    """Whom a condition alone matches."""
    made = audiences.Compiled(account_id, Audience(where=[one]))
    rows = await conn.fetch(f"SELECT c.id FROM {made.source} WHERE {made.matching} ORDER BY c.id", *made.values)
    return [row["id"] for row in rows]


def test_every_condition_holds_where_it_should(stage: Stage) -> None:
    for one in SINGLE:
        told = [contact_id for contact_id, person in zip(stage.ids, stage.people, strict=True) if holds(person, one)]
        assert stage.runner.run(matched(stage.conn, stage.account_id, one)) == told, one


LITERALS = {
    "''",
    *(f"'{word}'" for word in ("subscribed", "string", "number", "boolean", "array", "{}", "timestamptz")),
    f"'^{audiences.NUMBER}$'",
    f"'^{TIME}$'",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
evil = st.sampled_from(
    [
        "customFields.a' OR true --",
        'email"; DROP TABLE contacts; --',
        "c.email) OR (true",
        "customFields.$1",
        "customFields.",
        "=) OR (1=1",
        "IS NOT NULL OR",
        "= ANY",
    ]
)


@hypothesis.given(
    st.lists(
        st.tuples(
            st.text() | evil | st.sampled_from([*BUILT_IN, *CUSTOMS]),
            st.text() | evil | st.sampled_from(Op),
            json_values | evil,
        ),
        max_size=3,
    )
)
def test_whatever_is_sent_is_a_condition_or_an_error(where: list[tuple[Any, Any, Any]]) -> None:
    fields = Fields({"where": [list(one) for one in where]})
    read = read_audience(fields, None)  # type: ignore[arg-type]  # no ids are read
    try:
        fields.finish()
    except FieldsInvalid as error:
        assert {item.param.partition("[")[0] for item in error.errors} == {"where"}
        return
    made = audiences.Compiled(1, read)
    words = set(re.findall("'[^']*'", made.reached))
    assert words <= LITERALS, "what is quoted in the statement is ours, whatever was sent"
    assert len(re.findall("[^ -~]", made.reached)) == 0
    assert {f"${n}" for n in range(1, len(made.values) + 1)} == set(re.findall(r"\$\d+", made.reached))
