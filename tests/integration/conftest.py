"""Fixtures of tests that talk to the API over a socket, and of those that send as well."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailrail.db.pool import Pool
from tests.support.api import Api, Tenant, running_api
from tests.support.identities import Identities, running_identities
from tests.support.installation import Installation, installed
from tests.support.postgres import Database


@pytest.fixture(scope="module")
async def identity_server() -> AsyncIterator[Identities]:
    """What stands in for SES's identities."""
    async with running_identities() as known:
        yield known


@pytest.fixture
def identities(identity_server: Identities) -> Identities:
    """SES's identities; none is known yet."""
    identity_server.forget()
    return identity_server


@pytest.fixture(scope="module")
async def api(database: Database, worker_pool: Pool, identity_server: Identities) -> AsyncIterator[Api]:
    """A running API. It is the module's: a test that changes it puts back what was (`monkeypatch`)."""
    async with running_api(database.settings(ses_endpoint=identity_server.endpoint), worker_pool) as running:
        yield running


@pytest.fixture
async def tenant(api: Api) -> Tenant:
    """The account that a test is about."""
    return await api.add_tenant("Acme")


@pytest.fixture
async def stranger(api: Api) -> Tenant:
    """An account that has no business with the other's rows."""
    return await api.add_tenant("Stranger")


@pytest.fixture
def patience() -> Mapping[str, Any]:
    """Settings of `installation` unlike the tests' usual ones; a file that needs other ones has its own."""
    return {}


@pytest.fixture
async def installation(database: Database, tmp_path: Path, patience: Mapping[str, Any]) -> AsyncIterator[Installation]:
    """API, all roles of a worker, and a simulator."""
    async with installed(database, tmp_path / "simulator", patience) as running:
        yield running
