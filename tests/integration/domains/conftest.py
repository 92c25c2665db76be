"""A name server of the test's own, and the API and settings that ask it."""

from collections.abc import AsyncIterator

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from tests.support.api import Api, Tenant, running_api
from tests.support.dns import Zone, running_dns
from tests.support.identities import Identities
from tests.support.postgres import Database


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    """What DNS says."""
    async with running_dns() as running:
        yield running


@pytest.fixture
def settings(database: Database, identities: Identities, zone: Zone) -> Settings:
    """Of processes that ask the name server of the test."""
    return database.settings(ses_endpoint=identities.endpoint, dns=(zone.address,))


@pytest.fixture
async def asking_api(settings: Settings, worker_pool: Pool) -> AsyncIterator[Api]:
    """An API that asks the name server of the test. The database is the module's: what one test adds, the next would have to
    prove.
    """
    async with worker_pool.acquire() as conn:
        await conn.execute("DELETE FROM domains")
    async with running_api(settings, worker_pool) as running:
        yield running


@pytest.fixture
async def owner(asking_api: Api) -> Tenant:
    """The account that owns the domain."""
    return await asking_api.add_tenant("Owner")


@pytest.fixture
async def rival(asking_api: Api) -> Tenant:
    """An account that has no business with it."""
    return await asking_api.add_tenant("Rival")
