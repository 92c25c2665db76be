"""Fixtures of tests that hold the API to its own document."""

from tests.integration.conftest import api, identities, identity_server, stranger, tenant

__all__ = ["api", "identities", "identity_server", "stranger", "tenant"]
