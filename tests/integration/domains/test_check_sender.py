"""What is said of a sender before mail goes out."""

from functools import partial

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool, transaction
from mailrail.domains import service
from mailrail.domains.model import SenderCheck, Severity, Verdict
from tests.support.api import Tenant
from tests.support.dns import Zone
from tests.support.identities import Identities


async def checked(pool: Pool, tenant: Tenant, address: str, settings: Settings) -> SenderCheck:
    """As the API's role, in the tenant's name."""
    return await service.check_sender(
        partial(transaction, pool, tenant.account_id), tenant.account_id, address, settings
    )


@pytest.fixture
async def acme(owner: Tenant, identities: Identities, zone: Zone) -> Tenant:
    """An account with a verified domain whose DKIM records are published, and no more."""
    added = await owner.post("/api/v1/domains", {"domain": "acme.com"})
    for record in added.body["dnsRecords"][:2]:
        zone.publish(record["name"], "CNAME", record["value"] + ".")
    identities.known["acme.com"] = (True, "SUCCESS")
    assert (await owner.post(f"/api/v1/domains/{added.body['id']}/verify")).body["status"] == "verified"
    zone.asked.clear()
    return owner


async def test_a_sender_without_a_domain_is_an_error(acme: Tenant, api_pool: Pool, settings: Settings) -> None:
    check = await checked(api_pool, acme, "a@other.com", settings)
    assert [(one.code, one.severity) for one in check.findings] == [("sender_not_verified", Severity.ERROR)]


async def test_a_recent_check_is_taken_and_an_old_one_made_anew(
    rival: Tenant, acme: Tenant, api_pool: Pool, worker_pool: Pool, settings: Settings, zone: Zone
) -> None:
    check = await checked(api_pool, acme, "a@ACME.com", settings)
    assert check.domain == "acme.com"
    assert [(one.code, one.severity) for one in check.findings] == [
        ("mail_from_missing", Severity.WARNING),
        ("mail_from_missing", Severity.WARNING),
        ("dmarc_missing", Severity.WARNING),
    ]
    assert zone.asked == []
    zone.publish("_dmarc.acme.com", "TXT", "v=DMARC1; p=none; rua=mailto:d@acme.com")
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE domains SET checked_at = now() - interval '2 hours' WHERE domain = 'acme.com'")
    again = await checked(api_pool, acme, "a@acme.com", settings)
    assert [one.code for one in again.findings] == ["mail_from_missing", "mail_from_missing"]
    assert again.alignment is not None
    assert (again.alignment.verdict, again.alignment.dkim, again.alignment.spf) == (Verdict.PASS, True, False)
    # The account beside it knows nothing of the domain.
    assert (await checked(api_pool, rival, "a@acme.com", settings)).domain is None


async def test_a_subdomain_is_judged_by_its_own_name(
    acme: Tenant, api_pool: Pool, settings: Settings, zone: Zone
) -> None:
    zone.publish("_dmarc.acme.com", "TXT", "v=DMARC1; p=reject; adkim=s")
    check = await checked(api_pool, acme, "a@news.acme.com", settings)
    assert check.alignment is not None
    assert check.alignment.verdict is Verdict.FAIL
    assert (check.findings[0].code, check.findings[0].severity) == ("dmarc_fail", Severity.ERROR)
    zone.publish("_dmarc.acme.com", "TXT", "v=DMARC1; p=none; adkim=s")
    check = await checked(api_pool, acme, "a@news.acme.com", settings)
    assert (check.findings[0].code, check.findings[0].severity) == ("dmarc_fail", Severity.WARNING)


async def test_silent_name_servers_are_no_failure(acme: Tenant, api_pool: Pool, settings: Settings, zone: Zone) -> None:
    zone.failing |= {"_dmarc.news.acme.com"}
    check = await checked(api_pool, acme, "a@news.acme.com", settings)
    assert check.alignment is None
    assert "dns_unreachable" in [one.code for one in check.findings]


async def test_with_a_stand_in_alone_nobody_asks_dns(
    tenant: Tenant, api_pool: Pool, api: object, identities: Identities, zone: Zone, settings: Settings
) -> None:
    identities.known["demo.com"] = (True, "SUCCESS")
    added = await tenant.post("/api/v1/domains", {"domain": "demo.com"})
    assert (added.body["status"], added.body["missing"]) == ("verified", [])
    await tenant.post(f"/api/v1/domains/{added.body['id']}/verify")
    check = await checked(api_pool, tenant, "a@demo.com", tenant.api.app.ctx.settings)
    assert [one.code for one in check.findings] == ["dns_not_asked"]
    assert zone.asked == []
