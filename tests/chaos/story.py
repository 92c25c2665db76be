"""What all witnesses know of one address, in the order of time. Told where the judge found somebody mailed twice: a run cannot be
had again, so what failed has to explain itself.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from mailrail._core import Codec
from mailrail.emails.model import EventKind, Outcome
from tests.chaos import history
from tests.chaos.checker import Accepted, claims_of, decoded

# All that the database knows, `$3` being the tags of the mails.
_KNOWN = """
SELECT due_at AS at, 'permit' AS what, attempt::integer AS attempt, 0 AS code FROM permits WHERE stream_id = $1 AND seq = $2
UNION ALL
SELECT at, 'outcome', attempt, outcome FROM results WHERE stream_id = $1 AND seq = $2
UNION ALL
SELECT received_at, 'event applied', attempt, kind FROM events WHERE stream_id = $1 AND seq = $2
UNION ALL
SELECT n.received_at, 'notification stored', t.n::integer, 0
FROM notifications n JOIN unnest($3::text[]) WITH ORDINALITY AS t(tag, n) ON position(t.tag IN n.body) > 0
"""
WORDS = {"outcome": Outcome, "event applied": EventKind}


async def tell(
    conn: asyncpg.Connection, history_file: Path, codec: Codec, address: str, mails: Sequence[Accepted]
) -> list[str]:
    """Lines about one address, whose `mails` SES accepted; seconds count from the first line. `conn` sees all tables."""
    facts = [(_moment(mail.at), f"accepted, attempt {(decoded(mail, codec) or (0, 0, 0))[2]}") for mail in mails]
    found = decoded(mails[0], codec)
    if found is not None:
        stream_id, seq, _ = found
        facts += _claimed(history_file, stream_id, seq)
        for row in await conn.fetch(_KNOWN, stream_id, seq, [mail.tag for mail in mails]):
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


def _moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso)
