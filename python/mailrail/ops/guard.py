"""The guard against restored backups: a database that knows less than the log of accepted mail sends nothing until a
person has looked.
"""

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mailrail.cancellation import is_cancelled
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import mails
from mailrail.emails.accepted_log import Accepted, AcceptedLog, Record, Released
from mailrail.errors import ConfigError
from mailrail.ops import store
from mailrail.ops.store import LostCampaign

log = logging.getLogger(__name__)

TAIL = 200
CHECK_INTERVAL_S = 30.0
# A release writes its mark in two places; between them they differ for a moment.
SECOND_LOOK_S = 2.0
RETRY_S = 1.0
BATCH = 1000

REMEDY = "Nothing is sent until `mailrail release`; `mailrail doctor` says more."


async def watch_once(pool: Pool, accepted: AcceptedLog) -> bool:
    """Compares the end of the log with the database and holds the installation if it must; True while it may send."""
    try:
        records = await accepted.tail(TAIL)
    except OSError as error:
        log.error("guard: the log of accepted mail cannot be read (%s)", error)
        return True
    async with pool.acquire() as conn:
        held = await store.read_hold(conn)
        reason = None if held.held_at else await find_mismatch(conn, records)
    if held.held_at or reason is None:
        return held.held_at is None
    await asyncio.sleep(SECOND_LOOK_S)
    async with pool.acquire() as conn, conn.transaction():
        reason = await find_mismatch(conn, await accepted.tail(TAIL))
        if reason is not None and await store.hold_installation(conn, reason):
            log.error("guard: %s %s", reason, REMEDY)
    return reason is None


async def watch(pool: Pool, accepted: AcceptedLog) -> None:
    """Until cancelled."""
    while not is_cancelled():
        await asyncio.sleep(CHECK_INTERVAL_S)
        try:
            await watch_once(pool, accepted)
        except DATABASE_ERRORS as error:
            log.warning("guard: the database failed (%s)", type(error).__name__)


async def find_mismatch(conn: Connection, records: Sequence[Record]) -> str | None:
    """What the log knows and the database does not, as a sentence; None where they agree."""
    mark, since = after_last_mark(records)
    if mark is not None and mark.mark != (await store.read_hold(conn)).release_mark:
        return f"The release of {mark.at} stands in the log of accepted mail and not in this database, so this is an older state of it."
    if not since:
        return None
    missing = await store.find_unclaimed(conn, since)
    if not missing:
        return None
    first = since[missing[0]]
    return (
        f"SES accepted mail that this database does not know: {len(missing)} of the last {len(since)} rounds in the log of "
        f"accepted mail are missing here, the first of {first.at}. This is probably a restored backup."
    )


def after_last_mark(records: Sequence[Record]) -> tuple[Released | None, list[Accepted]]:
    """The last release among the records, and the rounds after it."""
    mark: Released | None = None
    since: list[Accepted] = []
    for record in records:
        if isinstance(record, Released):
            mark, since = record, []
        else:
            since.append(record)
    return mark, since


async def is_proven_current(conn: Connection, accepted: AcceptedLog) -> bool:
    """Whether the log has records and the database has all of them: nothing was accepted that it does not know."""
    found = False
    batch: list[Accepted] = []
    last_mark: Released | None = None
    async for record in accepted.records():
        if isinstance(record, Released):
            last_mark = record
            continue
        found = True
        batch.append(record)
        if len(batch) >= BATCH:
            if await store.find_unclaimed(conn, batch):
                return False
            batch = []
    marks_agree = (last_mark.mark if last_mark else None) == (await store.read_hold(conn)).release_mark
    return found and marks_agree and not await store.find_unclaimed(conn, batch)


@dataclass(frozen=True, slots=True)
class Release:
    """What a release did: recipients now known as accepted, sends of which the database knows nothing, and the campaigns
    (ids) that it stopped.
    """

    was_held: bool
    saved: int = 0
    lost: Sequence[LostCampaign] = ()
    paused: Sequence[int] = ()


async def release(conn: Connection, accepted: AcceptedLog | None, repair: bool) -> Release:
    """Lets sending go on, in the caller's transaction; with `repair` what the log knows becomes fact first, so that nobody
    is mailed twice. Raises OSError where the log cannot be read or written, ConfigError where there is none to repair from.
    """
    if (await store.read_hold(conn)).held_at is None:
        return Release(was_held=False)
    if repair and accepted is None:
        raise ConfigError(
            "there is no log of accepted mail (MAILRAIL_ACCEPTED_LOG), so whoever was mailed after the backup would be mailed "
            "again; if you accept that, run `mailrail release --no-repair`"
        )
    saved, lost = 0, list[LostCampaign]()
    # Before the repair, which gives away new numbers.
    await store.skip_numbers(conn)
    await mails.close_days(conn)
    if accepted is not None:
        await store.prepare_logged(conn)
        await load(conn, accepted)
        lost = await store.find_lost_campaigns(conn)
        if repair:
            saved = await store.repair(conn)
    paused = await store.pause_launched(
        conn,
        [send.campaign_id for send in lost if send.campaign_id is not None],
        "It was sent after the backup from which this installation was restored. Resuming it sends to everybody again.",
    )
    paused += await store.pause_overdue_schedules(
        conn, "Its time passed while the installation was held. Resume it to send it now, or cancel it."
    )
    mark = Released(secrets.token_hex(8), now())
    await store.release_installation(conn, mark.mark)
    if accepted is not None:
        await accepted.append(mark)
    return Release(True, saved, lost, paused)


async def load(conn: Connection, accepted: AcceptedLog) -> None:
    """All rounds of the log into table logged."""
    batch: list[dict[str, Any]] = []
    async for record in accepted.records():
        if isinstance(record, Accepted):
            batch.append(dataclasses.asdict(record))
        if len(batch) >= BATCH:
            await store.add_logged(conn, batch)
            batch = []
    if batch:
        await store.add_logged(conn, batch)


def now() -> str:
    """For people: no decision stands on it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


async def wait_until_checked(pool: Pool, accepted: AcceptedLog) -> None:
    """Before the first lease: returns once the log was compared with the database, or cannot be read, which stops no mail."""
    while True:
        try:
            if not await watch_once(pool, accepted):
                log.error("guard: the installation is held. %s", REMEDY)
            return
        except DATABASE_ERRORS as error:
            if is_cancelled():
                raise
            log.warning("guard: the database failed (%s)", type(error).__name__)
            await asyncio.sleep(RETRY_S)
