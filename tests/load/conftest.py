"""Fixtures of load tests: an API and its tenants, as for the tests of the API itself."""

from tests.integration.conftest import api, identities, identity_server, stranger, tenant

__all__ = ["api", "identities", "identity_server", "stranger", "tenant"]
