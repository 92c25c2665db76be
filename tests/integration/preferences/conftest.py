"""Fixtures of tests about what readers want."""

import pytest

from tests.support.api import Tenant
from tests.support.readers import Mail, sent_mail


@pytest.fixture
async def mail(tenant: Tenant) -> Mail:
    """A mail that went to a list."""
    return await sent_mail(tenant)
