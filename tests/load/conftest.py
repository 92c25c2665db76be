"""Fixtures of load tests: an API and its tenants, as for the tests of the API itself."""

from tests.integration.conftest import api, identities, stranger, tenant

__all__ = ["api", "identities", "stranger", "tenant"]
