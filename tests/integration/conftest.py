"""Fixtures of tests that talk to the API over a socket."""

from collections.abc import AsyncIterator

import pytest

from mailrail.db.pool import Pool
from tests.support.api import Api, Tenant, running_api
from tests.support.identities import Identities, running_identities
from tests.support.postgres import Database


@pytest.fixture
async def identities() -> AsyncIterator[Identities]:
    """SES's identities."""
    async with running_identities() as known:
        yield known


@pytest.fixture
async def api(database: Database, worker_pool: Pool, identities: Identities) -> AsyncIterator[Api]:
    """A running API."""
    async with running_api(database.settings(ses_endpoint=identities.endpoint), worker_pool) as running:
        yield running


@pytest.fixture
async def tenant(api: Api) -> Tenant:
    """The account that a test is about."""
    return await api.add_tenant("Acme")


@pytest.fixture
async def stranger(api: Api) -> Tenant:
    """An account that has no business with the other's rows."""
    return await api.add_tenant("Stranger")
