"""Every shape in which SES tells something, from its text to the state of the mail. `tests/vectors/events` has a file for each.

`${tag}`, `${id}` and `${address}` stand for those of the mail. A notification is an event, is parked for a reason, or passes.
All are applied in one batch, each about a mail of its own, so none may spoil another.
"""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from mailrail._core import Codec
from mailrail.config import Settings
from mailrail.db.pool import Connection, connect
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome, State
from mailrail.events import store
from mailrail.events.handlers import apply_once
from mailrail.events.model import Notification
from tests.support.postgres import SECRET, Database
from tests.support.streams import TestStream, add_claim, add_result, make_account, make_stream

FILES = sorted((Path(__file__).parents[2] / "vectors" / "events").glob("*.json"))
CODEC = Codec(SECRET.encode())


@pytest.fixture(scope="module")
def outcomes(database: Database) -> dict[str, dict[str, Any]]:
    """What became of the notification of each file."""
    return asyncio.run(apply_all(database.worker_url))


def test_the_shapes_are_there() -> None:
    kinds = {orjson.loads(file.read_bytes())["expected"].get("kind") for file in FILES}
    assert kinds - {None} == {kind.name for kind in EventKind if kind is not EventKind.UNSUBSCRIBE}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shape_is_read_as_its_file_says(outcomes: dict[str, dict[str, Any]], file: Path) -> None:
    told = orjson.loads(file.read_bytes())["expected"]
    event = (
        (told["kind"], datetime.fromisoformat(told["at"]), told["detail"], told.get("machine"), told["state"])
        if "kind" in told
        else None
    )
    assert outcomes[file.stem] == {
        "events": [event] if event else [],
        "suppressed": told.get("suppressed"),
        "parked": told.get("parked"),
        "is_kept": "parked" in told,
    }


async def apply_all(url: str) -> dict[str, dict[str, Any]]:
    """Stores, applies and folds them, then looks."""
    conn = await connect(url, application_name="tests")
    try:
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, len(FILES))
        await add_claim(conn, stream, 0, 1, range(1, len(FILES) + 1), 1)
        notifications = []
        for seq, file in enumerate(FILES, 1):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
            notifications.append(Notification(file.stem, "arn", await body_of(conn, stream, seq, file)))
        await store.insert_notifications(conn, notifications)
        await apply_once(conn, CODEC, Settings())
        async with conn.transaction():
            await fold.fold_next(conn)
        return {file.stem: await outcome(conn, stream, seq, file.stem) for seq, file in enumerate(FILES, 1)}
    finally:
        await conn.close()


async def body_of(conn: Connection, stream: TestStream, seq: int, file: Path) -> str:
    """The notification of the file, about one recipient."""
    shape = orjson.loads(file.read_bytes())
    raw: str = shape["text"] if "text" in shape else orjson.dumps(shape["notification"]).decode()
    address = await conn.fetchval("SELECT email FROM audience WHERE stream_id = $1 AND seq = $2", stream.stream_id, seq)
    return (
        raw.replace("${tag}", CODEC.tag(stream.stream_id, seq, 1))
        .replace("${id}", CODEC.encode_id("eml", stream.stream_id, seq))
        .replace("${address}", address)
    )


async def outcome(conn: Connection, stream: TestStream, seq: int, name: str) -> dict[str, Any]:
    """What became of one."""
    events = await conn.fetch(
        """SELECT e.kind, e.at, e.detail, e.machine, r.state FROM events e JOIN recipient_state r USING (stream_id, seq)
           WHERE e.stream_id = $1 AND e.seq = $2""",
        stream.stream_id,
        seq,
    )
    suppressed = await conn.fetchval(
        """SELECT s.reason FROM suppressions s JOIN audience a ON a.account_id = s.account_id AND lower(a.email) = s.email_folded
           WHERE a.stream_id = $1 AND a.seq = $2""",
        stream.stream_id,
        seq,
    )
    parked = await conn.fetchrow(
        """SELECT p.reason, p.body = n.body AS is_kept FROM parked_notifications p JOIN notifications n USING (day, message_id)
           WHERE message_id = $1""",
        name,
    )
    return {
        "events": [
            (EventKind(row["kind"]).name, row["at"], row["detail"], row["machine"], State(row["state"]).name)
            for row in events
        ],
        "suppressed": suppressed,
        "parked": parked["reason"] if parked else None,
        "is_kept": bool(parked and parked["is_kept"]),
    }
