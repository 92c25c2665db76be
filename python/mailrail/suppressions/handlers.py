"""What workers do about SES's own suppression list: copy it, and take off it what tenants lifted. SES answers few such calls, so
there is one at a time in the whole installation, and one a second at the most.
"""

import asyncio
import logging
from datetime import timedelta

from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.ses import control
from mailrail.ses.control import ControlError
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
    conn: Connection, settings: Settings, call_interval_s: float = CALL_INTERVAL_S, *, whole: bool
) -> int:
    """Copies what is new on the list, or all of it; returns how many entries SES told. Raises ControlError."""
    known, begun = await ses_list.read_copy(conn), await ses_list.read_clock(conn)
    since = None if whole or known.copied_until is None else known.copied_until - OVERLAP
    token, told = None, 0
    while True:
        entries, token = await control.list_suppressed(settings, since, token)
        await ses_list.add(conn, entries)
        told += len(entries)
        if token is None:
            break
        await asyncio.sleep(call_interval_s)
    if since is None:
        await ses_list.drop_unseen(conn, begun)
    await ses_list.write_copy(conn, Copy(begun, begun if since is None else known.walked_at))
    return told


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
