"""MAIL FROM: SES is told of it, and told again."""

import pytest

from tests.support.api import Tenant
from tests.support.dns import Zone
from tests.support.identities import Identities


@pytest.mark.parametrize("dialect", ["/api/v1/domains", "/v1/mail/domains"])
async def test_a_new_domain_has_a_mail_from_of_its_own_and_it_changes(
    owner: Tenant, identities: Identities, dialect: str
) -> None:
    name = f"acme{len(dialect)}.com"
    added = await owner.post(dialect, {"domain": name})
    assert added.body["mailFrom"] == {"domain": f"bounce.{name}", "status": "pending"}
    assert identities.mail_from[name] == (f"bounce.{name}", "PENDING")
    one = f"{dialect}/{added.body['id']}"
    changed = await owner.patch(one, {"mailFrom": f"Mail.{name}"})
    assert (changed.status, changed.body["mailFrom"]["domain"]) == (200, f"mail.{name}")
    assert [item["name"] for item in changed.body["dnsRecords"] if item["purpose"] == "mail_from"] == [
        f"mail.{name}"
    ] * 2
    cleared = await owner.patch(one, {"mailFrom": None})
    assert (cleared.body["mailFrom"], name in identities.mail_from) == (None, False)
    assert [item for item in cleared.body["dnsRecords"] if item["purpose"] == "mail_from"] == []


async def test_a_mail_from_is_named_at_the_beginning_or_left_to_amazon(owner: Tenant, identities: Identities) -> None:
    named = await owner.post("/api/v1/domains", {"domain": "named.com", "mailFrom": "replies.named.com"})
    assert named.body["mailFrom"]["domain"] == "replies.named.com"
    left = await owner.post("/api/v1/domains", {"domain": "left.com", "mailFrom": None})
    assert (left.body["mailFrom"], "left.com" in identities.mail_from) == (None, False)


@pytest.mark.parametrize("wrong", ["acme.com", "bounce.other.com", "notacme.com", "a b.acme.com", 5])
async def test_a_mail_from_that_is_not_below_is_refused(owner: Tenant, identities: Identities, wrong: object) -> None:
    refused = await owner.post("/api/v1/domains", {"domain": "acme.com", "mailFrom": wrong})
    assert (refused.status, refused.params) == (422, {"mailFrom"})
    added = await owner.post("/api/v1/domains", {"domain": "acme.com"})
    one = f"/api/v1/domains/{added.body['id']}"
    # What is refused changes nothing else, either.
    assert (await owner.patch(one, {"mailFrom": wrong, "openTracking": False})).params == {"mailFrom"}
    assert (await owner.get(one)).body == added.body


async def test_ses_is_asked_again_once_the_records_are_there(owner: Tenant, identities: Identities, zone: Zone) -> None:
    added = await owner.post("/api/v1/domains", {"domain": "again.com"})
    identities.known["again.com"] = (True, "SUCCESS")
    identities.mail_from["again.com"] = ("bounce.again.com", "FAILED")
    verify = f"/api/v1/domains/{added.body['id']}/verify"
    shown = await owner.post(verify)
    assert shown.body["mailFrom"]["status"] == "failed"
    assert identities.mail_from["again.com"][1] == "FAILED"
    zone.publish("bounce.again.com", "MX", "10 feedback-smtp.us-east-1.amazonses.com.")
    zone.publish("bounce.again.com", "TXT", "v=spf1 include:amazonses.com ~all")
    await owner.post(verify)
    assert identities.mail_from["again.com"][1] == "PENDING"


async def test_what_an_operator_has_set_at_ses_stays(owner: Tenant, identities: Identities) -> None:
    added = await owner.post("/api/v1/domains", {"domain": "theirs.com"})
    identities.mail_from["theirs.com"] = ("set.theirs.com", "SUCCESS")
    shown = await owner.post(f"/api/v1/domains/{added.body['id']}/verify")
    assert shown.body["mailFrom"] == {"domain": "set.theirs.com", "status": "success"}
