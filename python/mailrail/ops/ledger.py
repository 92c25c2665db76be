"""The watch over the ledger: an audit a minute, an alarm for money that was set aside too long ago."""

import asyncio
import logging
import time

from mailrail.cancellation import is_cancelled
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.ops import store
from mailrail.wallet import service as wallet

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
# An audit reads the whole ledger; as that grows, audits come less often and never take more than this part of the time.
SHARE_MAX = 0.05
OVERDUE_HOURS = 72
LINES_MAX = 20


class LedgerWatch:
    """Audits when one is due anywhere in the installation."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._interval_s = INTERVAL_S
        self._overdue = 0

    async def run(self) -> None:
        """Until cancelled."""
        while not is_cancelled():
            try:
                await self.look()
            except DATABASE_ERRORS as error:
                log.warning("ledger: the database failed (%s)", type(error).__name__)
            await asyncio.sleep(self._interval_s / 4)

    async def look(self) -> None:
        """One audit, if none was made lately by whatever process."""
        async with self._pool.acquire() as conn:
            if not await store.take_audit(conn, self._interval_s):
                return
            started = time.perf_counter()
            found = await wallet.audit_and_freeze(conn)
            self._interval_s = max(INTERVAL_S, (time.perf_counter() - started) / SHARE_MAX)
            await store.note_audit(conn, len(found))
            holds, micros = await store.count_overdue_holds(conn, OVERDUE_HOURS)
        for violation in found[:LINES_MAX]:
            log.error("ledger: %s (id %s, account %s)", violation.rule, violation.id, violation.account_id)
        if holds != self._overdue:
            log.warning(
                "ledger: %d holds are open for more than %d hours, %d micro-dollars", holds, OVERDUE_HOURS, micros
            )
            self._overdue = holds
