"""The ledger, looked at while everything goes wrong: every invariant in one snapshot, again and again, past the proxy."""

import asyncio
from dataclasses import dataclass, field

import asyncpg

from mailrail.db.pool import DATABASE_ERRORS, set_codecs
from mailrail.wallet import service as wallet

INTERVAL_S = 0.8
TIMEOUT_S = 10.0


@dataclass(slots=True)
class Snapshots:
    """How many were taken, and what was wrong in any of them. One that the database did not answer is none."""

    taken: int = 0
    violations: list[str] = field(default_factory=list)

    async def watch(self, url: str, interval_s: float = INTERVAL_S) -> None:
        """Takes them until cancelled, on a connection of its own."""
        conn: asyncpg.Connection[asyncpg.Record] | None = None
        try:
            while True:
                try:
                    if conn is None or conn.is_closed():
                        conn = await asyncpg.connect(url, timeout=TIMEOUT_S)
                        await set_codecs(conn)
                    found = await asyncio.wait_for(wallet.audit(conn), TIMEOUT_S)
                    self.taken += 1
                    self.violations += [f"snapshot {self.taken}: {sentence}" for sentence in found]
                except (*DATABASE_ERRORS, TimeoutError):
                    if conn is not None:
                        conn.terminate()
                        conn = None
                await asyncio.sleep(interval_s)
        finally:
            if conn is not None:
                conn.terminate()
