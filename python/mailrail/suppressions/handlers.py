"""What workers do about SES's own suppression list: copy it, and take off it what tenants lifted. SES answers few such calls, so
there is one at a time in the whole installation, and one a second at the most.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.ses import control
from mailrail.ses.control import ControlError, Listed
from mailrail.suppressions import ses_list
from mailrail.suppressions.ses_list import Copy

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 5.0
CALL_INTERVAL_S = 1.0
# What somebody took off the list by hand is noticed by a walk through all of it.
WALK_INTERVAL = timedelta(days=1)
# SES dates entries by its own clock, and may show one late.
OVERLAP = timedelta(hours=1)
LIFT_PAUSE = timedelta(seconds=30)
LIFT_PAUSE_MAX = timedelta(hours=1)


async def copy_list(
    conn: Connection,
    settings: Settings,
    call_interval_s: float = CALL_INTERVAL_S,
    *,
    whole: bool,
    tell: Callable[[int], None] = lambda told: None,
) -> int:
    """Copies what is new on the list, or all of it; returns how many entries SES told, and tells it after each page. Raises
    ControlError.

    Each page is a commit of its own and only the end takes addresses away, so whoever reads the copy misses none that SES
    lists, and a walk that breaks off leaves what there was and what it met.
    """
    assert not conn.is_in_transaction(), "SES is not waited for inside a transaction"
    known, begun = await ses_list.read_copy(conn), await ses_list.read_clock(conn)
    since = None if whole or known.copied_until is None else known.copied_until - OVERLAP
    told = 0
    async for entries in _pages(settings, since, call_interval_s):
        await ses_list.add(conn, entries, begun)
        told += len(entries)
        tell(told)
    if since is None:
        # What was listed anew meanwhile may have got past the pages; nothing is dropped before it was asked for.
        async for entries in _pages(settings, begun - OVERLAP, call_interval_s):
            await ses_list.add(conn, entries, begun)
    async with conn.transaction():
        if since is None:
            await ses_list.drop_unseen(conn, begun)
        await ses_list.write_copy(conn, Copy(begun, begun if since is None else known.walked_at))
    return told


async def _pages(settings: Settings, since: datetime | None, call_interval_s: float) -> AsyncIterator[list[Listed]]:
    """The list page by page, each call followed by its pause. Raises ControlError."""
    token = None
    while True:
        entries, token = await control.list_suppressed(settings, since, token)
        yield entries
        await asyncio.sleep(call_interval_s)
        if token is None:
            return


class SesList:
    """The installation's side of the list."""

    def __init__(self, pool: Pool, settings: Settings, call_interval_s: float = CALL_INTERVAL_S) -> None:
        self._pool = pool
        self._settings = settings
        self._call_interval_s = call_interval_s

    async def run(self) -> None:
        """Until cancelled."""
        while not is_cancelled():
            try:
                await self.look()
            except DATABASE_ERRORS as error:
                log.warning("ses list: the database failed (%s)", type(error).__name__)
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Does what is due, unless another worker is at it."""
        async with self._pool.acquire() as conn:
            if not await ses_list.take_turn(conn):
                return
            await self._lift_due(conn)
            await self._copy_if_due(conn)

    async def _copy_if_due(self, conn: Connection) -> None:
        known, now = await ses_list.read_copy(conn), await ses_list.read_clock(conn)
        interval_s = self._settings.ses_list_interval_s
        if not interval_s or (known.copied_until and now < known.copied_until + timedelta(seconds=interval_s)):
            return
        try:
            await copy_list(
                conn,
                self._settings,
                self._call_interval_s,
                whole=known.walked_at is None or now >= known.walked_at + WALK_INTERVAL,
            )
        except ControlError as error:
            log.warning("ses list: it cannot be copied (%s)", error)
            # The next try is an interval away; what it missed comes by its overlap or by the next walk.
            await ses_list.write_copy(conn, Copy(known.copied_until or now, known.walked_at, str(error)))

    async def _lift_due(self, conn: Connection) -> None:
        while (lift := await ses_list.read_due_lift(conn)) is not None:
            try:
                for spelling in lift.spellings:
                    await control.lift_suppressed(self._settings, spelling)
                    await asyncio.sleep(self._call_interval_s)
            except ControlError as error:
                log.warning("ses list: an address cannot be lifted, try %d (%s)", lift.attempts + 1, error)
                pause = min(LIFT_PAUSE_MAX, LIFT_PAUSE * 2 ** min(lift.attempts, 10))
                await ses_list.postpone_lift(conn, lift, pause, str(error))
            else:
                await ses_list.end_lift(conn, lift)
