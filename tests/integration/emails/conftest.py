"""The tenant of these tests has a verified domain in an installation that sends."""

import pytest

from tests.support.api import Tenant
from tests.support.installation import Installation


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    return await installation.add_tenant()
