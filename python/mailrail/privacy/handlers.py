"""What workers do for privacy: they take erased persons out of the mail, some streams per transaction.

Any number may run; an erasure is locked by whoever works on it, and a crash loses no more than its last step.
"""

import asyncio
import logging

from mailrail.cancellation import is_cancelled
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.privacy import service, store

log = logging.getLogger(__name__)

IDLE_S = 2.0


async def run_eraser(pool: Pool, secret_key: str) -> None:
    """Until cancelled."""
    while not is_cancelled():
        try:
            busy = await erase_next(pool, secret_key)
        except DATABASE_ERRORS as error:
            log.warning("eraser: the database failed (%s)", type(error).__name__)
            busy = False
        if not busy:
            await asyncio.sleep(IDLE_S)


async def erase_next(pool: Pool, secret_key: str) -> bool:
    """One step of the oldest erasure; False where there is none."""
    async with pool.acquire() as conn, conn.transaction():
        erasure = await store.lock_next(conn)
        if erasure is None:
            return False
        await service.go_on(conn, erasure, secret_key)
        return True
