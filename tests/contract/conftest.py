"""Fixtures of tests that hold the API to its own document."""

from tests.integration.conftest import api, identities, stranger, tenant

__all__ = ["api", "identities", "stranger", "tenant"]
