"""The watcher of sending domains: looks at each when its time has come, role `domains`. Any number may run, each domain is leased
by one of them, so that SES and DNS are not asked twice.
"""

import asyncio
import logging
import random

from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool, transaction
from mailrail.domains import service, store
from mailrail.domains.model import Domain, DomainNotFound
from mailrail.errors import MailrailError

log = logging.getLogger(__name__)

IDLE_S = 5.0
# SES answers about one identity a second (Amazon SES, endpoints and quotas), to all that ask.
PAUSE_S = 1.0
BATCH_MAX = 10
# Longer than a batch takes where SES and DNS are slow. Who fails is looked at again after it.
LEASE_S = 300.0


async def run_watcher(pool: Pool, settings: Settings) -> None:
    """Until cancelled."""
    while not is_cancelled():
        try:
            looked_at = await watch_due(pool, settings)
        except DATABASE_ERRORS as error:
            log.warning("domains: the database failed (%s)", type(error).__name__)
            looked_at = 0
        await asyncio.sleep((PAUSE_S if looked_at else IDLE_S) * random.uniform(0.9, 1.1))  # noqa: S311


async def watch_due(pool: Pool, settings: Settings) -> int:
    """A batch of those that are due, one after the other; how many. One domain's trouble stops no other."""
    async with pool.acquire() as conn:
        due = await store.take_due(conn, BATCH_MAX, LEASE_S)
    for number, domain in enumerate(due):
        if number:
            await asyncio.sleep(PAUSE_S)
        await _watch(pool, domain, settings)
    return len(due)


async def _watch(pool: Pool, domain: Domain, settings: Settings) -> None:
    try:
        seen = await service.watch(lambda: transaction(pool, domain.account_id), domain, settings)
    except DomainNotFound:
        return  # deleted meanwhile
    except (MailrailError, *DATABASE_ERRORS) as error:
        log.warning("domains: domain %d is looked at later (%s)", domain.id, error)
        return
    if seen.status is not domain.status:
        log.info("domains: domain %d was %s and is %s", domain.id, domain.status, seen.status)
