"""A process that sends one round to a simulator, so that a test may end it on the way: `python -m tests.support.one_round`."""

import asyncio
import sys
from pathlib import Path

import orjson

from mailrail._core import Lease
from tests.support.campaign import make_plan, make_sender
from tests.support.rows import Recipient, encode

# Long enough that no kernel takes a whole call at once.
LONG_TEXT_CHARS = 15_000


async def send(endpoint: str, authority: Path, recipients: int) -> None:
    """Prints what the round came to as JSON."""
    plan = make_plan(html="<p>{{ firstName }} {{ note }}</p>")
    rows = [
        Recipient(seq, email=f"p{seq}@example.net", custom_fields={"note": "x" * LONG_TEXT_CHARS})
        for seq in range(1, recipients + 1)
    ]
    sender = make_sender(endpoint, authority.read_text())
    report = await sender.submit(plan, encode(rows), Lease(Lease.now_ns() + 60 * 10**9))
    print(orjson.dumps({str(code): count for code, count in report.counts.items()}).decode())


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
