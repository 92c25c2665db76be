"""The scheduler of a worker: starts campaigns whose time has come, each in its tenant's name and a transaction of its own.

Any number may run: a campaign is started under the lock of its row, and who finds it locked goes on to the next.
"""

import asyncio
import logging

from mailrail.accounts import service as accounts
from mailrail.campaigns import service, store
from mailrail.campaigns.model import Campaign, Status
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool, transaction
from mailrail.emails.model import SendingHeld
from mailrail.errors import MailrailError
from mailrail.wallet.model import WalletFrozen

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
# Ids alone, and so many that those which wait never hide the others.
DUE_MAX = 10_000


async def run_scheduler(pool: Pool, settings: Settings) -> None:
    """Until cancelled."""
    while not is_cancelled():
        try:
            await start_due(pool, settings)
        except DATABASE_ERRORS as error:
            log.warning("scheduler: the database failed (%s)", type(error).__name__)
        await asyncio.sleep(INTERVAL_S)


async def start_due(pool: Pool, settings: Settings) -> None:
    """Gives every schedule that is due its next status. One that fails or has to wait stops no other."""
    async with pool.acquire() as conn:
        due = await store.read_due_schedules(conn, DUE_MAX)
    for campaign_id, account_id in due:
        try:
            async with transaction(pool, account_id) as conn:
                await _start_or_tell(conn, account_id, campaign_id, settings)
        except DATABASE_ERRORS as error:
            log.warning("scheduler: campaign %d waits (%s)", campaign_id, type(error).__name__)
        except Exception:
            # It would come up again each second, and its error would end the worker.
            log.exception("scheduler: campaign %d is paused", campaign_id)
            await _pause_broken(pool, account_id, campaign_id)


async def _start_or_tell(conn: Connection, account_id: int, campaign_id: int, settings: Settings) -> None:
    locked = await store.lock_due_schedule(conn, account_id, campaign_id)
    if locked is None:
        return
    campaign, late_s = locked
    if late_s > settings.schedule_max_delay_s:
        await store.set_status(conn, campaign, Status.PAUSED, _late_reason(campaign, settings))
        return
    try:
        async with conn.transaction():
            await service.start(conn, await accounts.get(conn, account_id), campaign, settings)
    except (SendingHeld, WalletFrozen):
        return  # an operator looks into it, and the campaign waits
    except MailrailError as error:
        await store.set_status(conn, campaign, Status.FAILED, f"It could not start: {error}")


async def _pause_broken(pool: Pool, account_id: int, campaign_id: int) -> None:
    async with transaction(pool, account_id) as conn:
        locked = await store.lock_due_schedule(conn, account_id, campaign_id)
        if locked is not None:
            reason = "It could not start because of an error on our side. Resume it to try again now, or cancel it."
            await store.set_status(conn, locked[0], Status.PAUSED, reason)


def _late_reason(campaign: Campaign, settings: Settings) -> str:
    assert campaign.scheduled_at is not None
    return (
        f"It was due at {campaign.scheduled_at:%Y-%m-%d %H:%M} UTC and could not start within "
        f"{settings.schedule_max_delay_s / 3600:g} hours. Resume it to send it now, or cancel it."
    )
