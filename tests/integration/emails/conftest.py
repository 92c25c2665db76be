"""An installation that sends, and a tenant of it who may. A file that needs it to be more or less patient says so in `patience`."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Tenant
from tests.support.installation import Installation, installed
from tests.support.postgres import Database


@pytest.fixture
def patience() -> Mapping[str, Any]:
    """Settings unlike the tests' usual ones."""
    return {}


@pytest.fixture
async def installation(database: Database, tmp_path: Path, patience: Mapping[str, Any]) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", patience) as running:
        yield running


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    found = await installation.api.add_tenant()
    await found.verify_domain()
    return found
