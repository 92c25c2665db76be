"""SQL tells readers from machines as the pure rule does, and the fold counts what it says."""

import random
from datetime import UTC, datetime, timedelta

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.emails.engagement import Event, judged
from mailrail.emails.model import EventKind, Outcome
from tests.support.streams import add_claim, add_result, make_account, make_stream

RECIPIENTS = 400
STEP = timedelta(milliseconds=250)


def made_up(chance: random.Random, begin: datetime) -> list[Event]:
    """What was heard of one mail: times on a grid, so that they fall on the very borders of the rule."""
    kinds = [EventKind.DELIVERY] * chance.randint(0, 2) + [EventKind.SEND] * chance.randint(0, 1)
    kinds += chance.choices([EventKind.OPEN, EventKind.CLICK], k=chance.randint(0, 7))
    return [
        Event(
            kind,
            begin + chance.randint(0, 30) * STEP,
            str(chance.randint(1, 3)) if kind is EventKind.CLICK else None,
            chance.choice([None, None, None, "scanner"]) if kind in (EventKind.OPEN, EventKind.CLICK) else None,
        )
        for kind in kinds
    ]


async def test_every_set_of_events_is_judged_and_counted_as_the_model_says(worker_pool: Pool) -> None:
    chance = random.Random(20261130)
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    heard = {seq: made_up(chance, begin) for seq in range(1, RECIPIENTS + 1)}
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), RECIPIENTS)
        await conn.execute("UPDATE shards SET next_seq = last_seq + 1 WHERE stream_id = $1", stream.stream_id)
        await add_claim(conn, stream, 0, 1, range(1, RECIPIENTS + 1), 0)
        for seq in heard:
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
        rows = [
            (stream.stream_id, seq, int(event.kind), number, stream.account_id, event.at, event.detail, event.machine)
            for seq, events in heard.items()
            for number, event in enumerate(events)
        ]
        chance.shuffle(rows)
        await conn.executemany(
            """INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, detail, machine)
               VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8)""",
            rows,
        )
        sql = await conn.fetch("SELECT seq, dedupe, machine FROM engagement($1, 1, $2)", stream.stream_id, RECIPIENTS)
        await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
        async with conn.transaction():
            await fold.fold_next(conn)
        states = await conn.fetch(
            """SELECT seq, opens, machine_opens, clicks, machine_clicks FROM recipient_state
               WHERE stream_id = $1 ORDER BY seq""",
            stream.stream_id,
        )
        counts = await conn.fetchrow(
            "SELECT opened, clicked, machine_opened, machine_clicked FROM folds WHERE stream_id = $1", stream.stream_id
        )
        links = await conn.fetch(
            """SELECT n, clicked, clicks, machine_clicks, first_at, last_at FROM link_counts
               WHERE stream_id = $1 ORDER BY n""",
            stream.stream_id,
        )
    model = {seq: judged(events) for seq, events in heard.items()}
    engaged = (EventKind.OPEN, EventKind.CLICK)
    assert {(row["seq"], row["dedupe"]): row["machine"] for row in sql} == {
        (seq, number): event.machine
        for seq, events in model.items()
        for number, event in enumerate(events)
        if event.kind in engaged
    }
    assert {row["machine"] for row in sql} == {None, "scanner", "soon", "burst"}

    def total(seq: int, kind: EventKind, *, machines: bool) -> int:
        return sum(event.kind is kind and (event.machine is not None) is machines for event in model[seq])

    counted = [
        (seq, *(total(seq, kind, machines=machines) for kind in engaged for machines in (False, True))) for seq in model
    ]
    assert [tuple(row) for row in states] == counted
    assert counts is not None
    assert tuple(counts) == (
        sum(opens > 0 for _, opens, *_ in counted),
        sum(clicks > 0 for *_, clicks, _ in counted),
        sum(opens == 0 and by_machine > 0 for _, opens, by_machine, *_ in counted),
        sum(clicks == 0 and by_machine > 0 for *_, clicks, by_machine in counted),
    )
    for link in ("1", "2", "3"):
        clicks = [(seq, one) for seq, events in model.items() for one in events if one.detail == link]
        people = [(seq, one.at) for seq, one in clicks if one.machine is None]
        times = [at for _, at in people]
        expected = (len({seq for seq, _ in people}), len(people), len(clicks) - len(people), min(times), max(times))
        assert tuple(links[int(link) - 1])[1:] == expected
