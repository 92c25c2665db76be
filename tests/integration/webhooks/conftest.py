"""A customer's receiver, and a dispatcher."""

from collections.abc import AsyncIterator

import pytest

from mailrail.db.pool import Pool
from mailrail.webhooks.handlers import Dispatcher
from tests.support.postgres import Database
from tests.support.webhooks import Receiver, dispatching, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A customer's server."""
    async with receiving() as running:
        yield running


@pytest.fixture
async def dispatcher(database: Database, worker_pool: Pool) -> AsyncIterator[Dispatcher]:
    """At work for the time of the test."""
    async with dispatching(worker_pool, database.settings()) as running:
        yield running
