"""Whose a domain is: an identity at SES belongs to the installation, so what it knows already proves nothing."""

import asyncio

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool, transaction
from mailrail.domains import service
from mailrail.domains.model import SenderNotVerified
from tests.support.api import Answer, Tenant
from tests.support.dns import Zone
from tests.support.identities import Identities


async def add(tenant: Tenant, domain: str) -> Answer:
    """POST …/domains."""
    return await tenant.post("/api/v1/domains", {"domain": domain})


async def verify(tenant: Tenant, added: Answer) -> Answer:
    """POST …/verify."""
    return await tenant.post(f"/api/v1/domains/{added.body['id']}/verify")


def proof(answer: Answer) -> tuple[str, str] | None:
    """Name and value of the record that proves the ownership, where one is asked for."""
    records = [one for one in answer.body["dnsRecords"] if one["purpose"] == "ownership"]
    assert all(one["required"] for one in records)
    return (records[0]["name"], records[0]["value"]) if records else None


async def test_the_first_to_add_a_new_domain_needs_no_proof(owner: Tenant, identities: Identities) -> None:
    added = await add(owner, "acme.com")
    assert proof(added) is None
    identities.known["acme.com"] = (True, "SUCCESS")
    assert (await verify(owner, added)).body["status"] == "verified"


@pytest.mark.parametrize("wanted", ["acme.com", "news.acme.com", "mail.shop.acme.com"])
async def test_who_adds_what_anothers_domain_covers_has_to_prove_it(
    owner: Tenant, rival: Tenant, identities: Identities, zone: Zone, wanted: str
) -> None:
    first = await add(owner, "acme.com")
    identities.known["acme.com"] = (True, "SUCCESS")
    await verify(owner, first)
    identities.known[wanted] = (True, "SUCCESS")
    taken = await add(rival, wanted)
    assert (taken.status, taken.body["status"]) == (201, "pending")
    refused = await verify(rival, taken)
    assert refused.body["status"] == "pending"
    assert any("It proves that the domain is yours" in sentence for sentence in refused.body["missing"])
    assert "proof" in refused.body["statusReason"]
    mail = {"to": "a@example.com", "from": f"you@{wanted}", "subject": "S", "text": "T"}
    sent = await rival.post("/api/v1/emails", mail)
    assert (sent.status, sent.code) == (403, "sender_not_verified")
    # The owner's mail goes on, and so does their domain.
    assert (await verify(owner, first)).body["status"] == "verified"
    # With the record it is as good as any.
    published = proof(taken)
    assert published is not None
    zone.publish(published[0], "TXT", published[1])
    assert (await verify(rival, taken)).body["status"] == "verified"
    # Once is enough.
    zone.withdraw(published[0], "TXT")
    again = await verify(rival, taken)
    assert (again.body["status"], proof(again)) == ("verified", None)


async def test_the_proof_of_another_account_proves_nothing(
    owner: Tenant, rival: Tenant, identities: Identities, zone: Zone
) -> None:
    identities.known["proof.com"] = (True, "SUCCESS")
    mine, theirs = await add(owner, "proof.com"), await add(rival, "proof.com")
    published = proof(mine)
    assert published is not None
    assert published != proof(theirs)
    zone.publish(published[0], "TXT", published[1])
    assert (await verify(rival, theirs)).body["status"] == "pending"
    assert (await verify(owner, mine)).body["status"] == "verified"


async def test_who_adds_a_domain_beforehand_does_not_get_it_by_its_owners_records(
    owner: Tenant, rival: Tenant, identities: Identities
) -> None:
    squatted = await add(rival, "squat.com")
    assert proof(squatted) is None
    bought = await add(owner, "squat.com")
    assert proof(bought) is not None
    # The owner publishes the DKIM records, which are the same for both.
    identities.known["squat.com"] = (True, "SUCCESS")
    assert (await verify(rival, squatted)).body["status"] == "pending"
    assert proof(await verify(rival, squatted)) is not None


async def test_of_two_who_add_it_at_the_same_time_both_prove_it(
    owner: Tenant, rival: Tenant, identities: Identities
) -> None:
    names = [f"race{number}.com" for number in range(5)]
    added = await asyncio.gather(*(add(tenant, name) for name in names for tenant in (owner, rival)))
    assert {answer.status for answer in added} == {201}
    for number, name in enumerate(names):
        identities.known[name] = (True, "SUCCESS")
        for tenant, answer in zip((owner, rival), added[2 * number :], strict=False):
            assert (await verify(tenant, answer)).body["status"] == "pending"


async def test_an_identity_that_ses_had_before_has_to_be_proven(owner: Tenant, identities: Identities) -> None:
    identities.known["operators.com"] = (True, "SUCCESS")
    added = await add(owner, "operators.com")
    assert (added.body["status"], proof(added) is not None) == ("pending", True)


async def test_a_domain_that_was_given_up_is_not_taken_over(
    owner: Tenant, rival: Tenant, identities: Identities
) -> None:
    added = await add(owner, "old.com")
    identities.known["old.com"] = (True, "SUCCESS")
    await verify(owner, added)
    await owner.delete(f"/api/v1/domains/{added.body['id']}")
    assert (await add(rival, "old.com")).body["status"] == "pending"


async def test_what_was_lost_has_to_be_proven_where_another_has_it(
    owner: Tenant, rival: Tenant, identities: Identities
) -> None:
    first = await add(owner, "sold.com")
    identities.known["sold.com"] = (True, "SUCCESS")
    await verify(owner, first)
    await add(rival, "sold.com")
    identities.known["sold.com"] = (False, "FAILED")
    assert (await verify(owner, first)).body["status"] == "failed"
    identities.known["sold.com"] = (True, "SUCCESS")
    assert (await verify(owner, first)).body["status"] == "pending"


async def test_a_strangers_parent_covers_nobody_elses_subdomain(
    owner: Tenant, rival: Tenant, api_pool: Pool, identities: Identities, settings: Settings
) -> None:
    added = await add(owner, "parent.com")
    identities.known["parent.com"] = (True, "SUCCESS")
    await verify(owner, added)
    async with transaction(api_pool, rival.account_id) as conn:
        for address in ("a@parent.com", "a@news.parent.com"):
            with pytest.raises(SenderNotVerified):
                await service.require_verified_sender(conn, rival.account_id, address)


async def test_who_has_not_proven_a_domain_changes_nothing_of_it(
    owner: Tenant, rival: Tenant, identities: Identities
) -> None:
    first = await add(owner, "shared.com")
    identities.known["shared.com"] = (True, "SUCCESS")
    await verify(owner, first)
    assert identities.mail_from["shared.com"][0] == "bounce.shared.com"
    taken = await rival.post("/api/v1/domains", {"domain": "shared.com", "mailFrom": "evil.shared.com"})
    await verify(rival, taken)
    refused = await rival.patch(f"/api/v1/domains/{taken.body['id']}", {"mailFrom": "evil.shared.com"})
    assert (refused.status, refused.code) == (409, "domain_not_proven")
    assert identities.mail_from["shared.com"][0] == "bounce.shared.com"
