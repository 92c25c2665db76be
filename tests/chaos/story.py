"""What all witnesses know of one address, in the order of time. Told where the judge found somebody mailed twice, or under the
number of somebody else: a run cannot be had again, so what failed has to explain itself.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mailrail._core import Codec
from mailrail.db.pool import Connection, connect
from mailrail.emails.model import EventKind, Outcome
from tests.chaos import history
from tests.chaos.checker import Accepted, claims_of, decoded

STORIES_MAX = 10

_OF_THE_NUMBER = """
SELECT due_at AS at, 'permit' AS what, attempt, 0 AS code FROM permits WHERE stream_id = $1 AND seq = $2
UNION ALL
SELECT at, 'outcome', attempt, outcome FROM results WHERE stream_id = $1 AND seq = $2
UNION ALL
SELECT received_at, 'event applied', attempt, kind FROM events WHERE stream_id = $1 AND seq = $2
"""
WORDS = {"outcome": Outcome, "event applied": EventKind}


async def tell_all(
    database_url: str, history_file: Path, codec: Codec, addresses: Sequence[str], accepted: Sequence[Accepted]
) -> list[str]:
    """The stories of the first few addresses; `accepted` is all that SES took, `database_url` one that sees all tables."""
    told: list[str] = []
    if not addresses:
        return told
    conn = await connect(database_url, application_name="chaos")
    try:
        for address in addresses[:STORIES_MAX]:
            mails = [mail for mail in accepted if mail.to == address]
            told += await _tell(conn, history_file, codec, address, mails)
    finally:
        await conn.close()
    return told


async def _tell(
    conn: Connection, history_file: Path, codec: Codec, address: str, mails: Sequence[Accepted]
) -> list[str]:
    """Seconds count from the first line."""
    facts: list[tuple[datetime, str]] = []
    numbers: dict[tuple[int, int], None] = {}
    for mail in mails:
        stream_id, seq, attempt = decoded(mail, codec) or (0, 0, 0)
        numbers[stream_id, seq] = None
        facts.append((datetime.fromisoformat(mail.at), f"accepted as {stream_id}/{seq}, attempt {attempt}"))
        stored = "SELECT received_at FROM notifications WHERE position($1 IN body) > 0"
        facts += [
            (row["received_at"], f"notification stored, attempt {attempt}")
            for row in await conn.fetch(stored, mail.tag)
        ]
    for stream_id, seq in numbers:
        facts += _claimed(history_file, stream_id, seq)
        for row in await conn.fetch(_OF_THE_NUMBER, stream_id, seq):
            word = f" {WORDS[row['what']](row['code']).name}" if row["what"] in WORDS else ""
            facts.append((row["at"], f"{row['what']}{word}, attempt {row['attempt']}"))
    facts.sort()
    begun = facts[0][0]
    return [f"{address}:"] + [f"  {(at - begun).total_seconds():+8.3f} s  {what}" for at, what in facts]


def _claimed(history_file: Path, stream_id: int, seq: int) -> list[tuple[datetime, str]]:
    # The history counts by the boot's clock.
    offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return [
        (
            datetime.fromtimestamp((line["ns"] + offset_ns) / 1e9, UTC),
            f"{line['point']}, attempt {line['attempt']}, process {line['pid']}",
        )
        for line in history.lines(history_file)
        for claim in claims_of([line])
        if claim.stream_id == stream_id and seq in claim.seqs
    ]
