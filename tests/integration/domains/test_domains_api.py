"""/api/v1/domains, with what SES says behind it."""

import re
from datetime import UTC, datetime, timedelta

from tests.support.api import Tenant
from tests.support.identities import Identities


async def test_a_domain_that_ses_has_verified_is_verified_at_once(tenant: Tenant, identities: Identities) -> None:
    identities.known["yourdomain.com"] = (True, "SUCCESS")
    added = await tenant.post("/api/v1/domains", {"domain": "YourDomain.com"})
    assert (added.status, added.body["domain"], added.body["status"]) == (201, "yourdomain.com", "verified")
    assert re.fullmatch("dom_[a-z2-7]{26}", added.body["id"])
    listed = (await tenant.get("/api/v1/domains")).body
    assert [(item["domain"], item["status"]) for item in listed["domains"]] == [("yourdomain.com", "verified")]
    verified = await tenant.post(f"/api/v1/domains/{added.body['id']}/verify")
    assert (verified.status, verified.body["status"], verified.body["domain"]) == (200, "verified", "yourdomain.com")
    assert verified.body["verifiedAt"] == added.body["verifiedAt"]


async def test_a_new_domain_is_told_to_ses_and_shows_its_dns(tenant: Tenant, identities: Identities) -> None:
    added = await tenant.post("/api/v1/domains", {"domain": "bücher.example"})
    assert (added.status, added.body["status"]) == (201, "pending")
    assert added.body["dnsRecords"][0] == {
        "type": "CNAME",
        "name": "aaa._domainkey.xn--bcher-kva.example",
        "value": "aaa.dkim.amazonses.com",
        "purpose": "dkim",
        "required": True,
        "status": None,
        "found": [],
        "remedy": None,
    }
    assert [(one["type"], one["name"], one["purpose"], one["required"]) for one in added.body["dnsRecords"][2:]] == [
        ("MX", "bounce.xn--bcher-kva.example", "mail_from", False),
        ("TXT", "bounce.xn--bcher-kva.example", "mail_from", False),
        ("TXT", "xn--bcher-kva.example", "spf", False),
        ("TXT", "_dmarc.xn--bcher-kva.example", "dmarc", False),
    ]
    identities.known["xn--bcher-kva.example"] = (False, "FAILED")
    verify = f"/api/v1/domains/{added.body['id']}/verify"
    assert (await tenant.post(verify)).body["status"] == "failed"
    identities.known["xn--bcher-kva.example"] = (True, "SUCCESS")
    assert (await tenant.post(verify)).body["status"] == "verified"


async def test_a_domain_stays_pending_while_ses_is_away(tenant: Tenant, identities: Identities) -> None:
    identities.away = True
    added = await tenant.post("/api/v1/domains", {"domain": "later.com"})
    assert (added.status, added.body["status"]) == (201, "pending")
    refused = await tenant.post(f"/api/v1/domains/{added.body['id']}/verify")
    assert (refused.status, refused.code) == (503, "ses_unavailable")
    assert refused.headers["retry-after"]


async def test_a_domain_is_added_once_per_account(tenant: Tenant, stranger: Tenant, identities: Identities) -> None:
    identities.known["acme.com"] = (True, "SUCCESS")
    first = await tenant.post("/api/v1/domains", {"domain": "acme.com"})
    again = await tenant.post("/api/v1/domains", {"domain": "ACME.com."})
    assert (again.status, again.body["error"]["id"]) == (409, first.body["id"])
    assert (await stranger.post("/api/v1/domains", {"domain": "acme.com"})).status == 201


async def test_what_is_no_domain_is_refused(tenant: Tenant, identities: Identities) -> None:
    for name in ("localhost", "a b.com", "-x.com", "x@y.com", "1.2.3.4", "a..b", "é" * 300 + ".com", ""):
        answer = await tenant.post("/api/v1/domains", {"domain": name})
        assert (answer.status, answer.params) == (422, {"domain"}), name
    assert identities.asked == []


async def test_a_domain_shows_its_records_until_it_is_deleted(
    tenant: Tenant, stranger: Tenant, identities: Identities
) -> None:
    for path in ("/api/v1/domains", "/v1/mail/domains"):
        added = (await tenant.post(path, {"domain": "acme.com"})).body
        one = f"{path}/{added['id']}"
        shown = await tenant.get(one)
        assert (shown.status, shown.body) == (200, added)
        assert shown.body["dnsRecords"]
        identities.away = True
        assert (await tenant.get(one)).body == added
        identities.away = False
        for refused in (await stranger.get(one), await stranger.delete(one)):
            assert (refused.status, refused.code) == (404, "domain_not_found")
        assert (await tenant.delete(one)).body == {"id": added["id"], "deleted": True}
        assert [(await tenant.get(one)).status, (await tenant.delete(one)).status] == [404, 404]


async def test_nobody_sends_from_a_domain_that_was_deleted(tenant: Tenant, identities: Identities) -> None:
    identities.known["acme.com"] = (True, "SUCCESS")
    added = (await tenant.post("/api/v1/domains", {"domain": "acme.com"})).body
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    mail = {"to": "a@example.com", "from": "you@acme.com", "subject": "S", "text": "T", "scheduledAt": tomorrow}
    assert (await tenant.post("/api/v1/emails", mail)).status == 202
    await tenant.delete(f"/api/v1/domains/{added['id']}")
    refused = await tenant.post("/api/v1/emails", mail)
    assert (refused.status, refused.code) == (403, "sender_not_verified")
