"""Incidents that happened to other senders, one test each, against the real database and the simulator over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.incidents import QUICK
from tests.support.installation import Installation, installed
from tests.support.postgres import Database


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    """All roles at work, with patience scaled down."""
    async with installed(database, tmp_path / "simulator", QUICK) as running:
        yield running


@pytest.fixture
async def idle(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    """The same without a worker: the test says who works, and who dies."""
    async with installed(database, tmp_path / "simulator", QUICK, roles=()) as running:
        yield running
