"""Flags of a query, and methods that an address does not answer."""

import pytest

from tests.support.api import Api, Tenant, assert_error_form


@pytest.mark.parametrize(
    ("method", "path", "flag"),
    [
        ("POST", "/api/v1/contacts", "upsert"),
        ("POST", "/v1/mail/contacts", "upsert"),
        ("DELETE", "/api/v1/keys/x", "self"),
    ],
)
async def test_a_misspelt_flag_is_told(tenant: Tenant, method: str, path: str, flag: str) -> None:
    body = {"json": {"email": "new@example.com"}} if method == "POST" else {}
    answer = await tenant.api.call(method, f"{path}?{flag}=yes", tenant.key, **body)
    assert (answer.status, answer.params) == (422, {flag})
    assert "true or false" in answer.body["error"]["message"]


@pytest.mark.parametrize("method", ["TRACE", "PUT", "OPTIONS", "BREW"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/webhooks/whk_x", {"GET", "PATCH", "DELETE"}),
        ("/api/v1/contacts", {"GET", "POST"}),
        ("/u/x", {"GET", "HEAD", "POST"}),
        ("/healthz", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_told_which_ones_there_are(api: Api, path: str, allowed: set[str], method: str) -> None:
    answer = await api.call(method, path)
    assert answer.status == 405, answer
    assert_error_form(answer)
    assert set(answer.headers["allow"].split(", ")) == allowed
