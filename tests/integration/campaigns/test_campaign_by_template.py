"""Campaigns made of stored templates, in both dialects, up to the mail that is sent."""

from typing import Any

import pytest

from tests.support.api import Tenant
from tests.support.installation import Installation

BOTH = pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])
NEWS = {"name": "News", "subject": "News for {{ nick }}", "preheader": "Tips", "html": "<p>Hi {{ nick }}</p>"}


async def make(tenant: Tenant, **changes: Any) -> str:
    made = await tenant.post("/api/v1/templates", {**NEWS, **changes})
    assert made.status == 201, made.body
    return str(made.body["id"])


@BOTH
async def test_a_draft_keeps_the_version_it_was_made_of(tenant: Tenant, base: str) -> None:
    template_id = await make(tenant)
    by_name = await tenant.post(f"{base}/campaigns", {"name": "February", "template": "News"})
    made = await tenant.post(f"{base}/campaigns", {"name": "March", "template": template_id})
    for answer in (by_name, made):
        assert answer.status == 201, answer.body
        assert (answer.body["template"], answer.body["templateVersion"]) == (template_id, 1)
    await tenant.patch(f"/api/v1/templates/{template_id}", {"html": "<p>Other</p>", "subject": None, "preheader": None})
    path = f"{base}/campaigns/{made.body['id']}"
    shown = (await tenant.get(path)).body
    assert (shown["templateVersion"], shown["subject"], shown["preheader"]) == (1, NEWS["subject"], NEWS["preheader"])
    newer = await tenant.post(f"{base}/campaigns", {"name": "April", "subject": "Mine", "template": "News"})
    assert newer.body["templateVersion"] == 2
    older = await tenant.post(f"{base}/campaigns", {"name": "May", "template": "News", "templateVersion": 1})
    assert older.body["templateVersion"] == 1
    # Nothing happens to it when the template goes.
    await tenant.delete(f"/api/v1/templates/{template_id}")
    assert (await tenant.get(path)).body == shown
    plain = {"content": "<p>x</p>"} if base == "/api/v1" else {"content": {"html": "<p>x</p>"}}
    made = await tenant.post(f"{base}/campaigns", {"name": "June", "subject": "S", **plain})
    assert (made.body["template"], made.body["templateVersion"]) == (None, None)


@BOTH
async def test_what_does_not_go_together_is_told(tenant: Tenant, stranger: Tenant, base: str) -> None:
    is_flat = base == "/api/v1"
    template_id = await make(tenant, subject=None)
    await make(tenant, name="Plain", html=None, text="T")
    theirs = await make(stranger, name="Theirs")

    async def refused(**body: Any) -> tuple[int, str, set[str]]:
        answer = await tenant.post(f"{base}/campaigns", {"name": "March", **body})
        return answer.status, answer.code, answer.params

    html = "content" if is_flat else "content.html"
    content = "<p>x</p>" if is_flat else {"html": "<p>x</p>"}
    assert await refused() == (422, "fields_invalid", {"subject", "content"})
    assert await refused(template="News", content=content) == (422, "fields_invalid", {html})
    assert await refused(subject="S", content=content, templateVersion=1) == (
        422,
        "fields_invalid",
        {"templateVersion"},
    )
    assert await refused(template=template_id) == (422, "template_invalid", {"subject"})
    assert await refused(template="Plain") == (422, "template_invalid", {"template"})
    for unknown in (theirs, "Theirs", "tpl_x"):
        assert await refused(template=unknown) == (404, "template_not_found", {"template"})
    assert await refused(template=template_id, templateVersion=2) == (404, "template_not_found", {"template"})


async def test_everybody_gets_the_template_and_no_field_makes_a_header(installation: Installation) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    await make(tenant)
    nicks = {"ann@example.com": "Ann", "eve@example.com": "Eve\r\nBcc: victim@example.com\r\n\r\n<p>another</p>"}
    for email, nick in nicks.items():
        made = await tenant.post("/api/v1/contacts", {"email": email, "customFields": {"nick": nick}})
        assert made.status == 201, made.body
    refused = await tenant.post("/api/v1/contacts", {"email": "b@example.com", "firstName": "B\r\nBcc: v@example.com"})
    assert (refused.status, refused.params) == (422, {"firstName"})
    sender = {"name": "Acme", "email": "news@acme.com"}
    made = await tenant.post("/v1/mail/campaigns", {"name": "March", "template": "News", "from": sender})
    await tenant.delete(f"/api/v1/templates/{made.body['template']}")
    assert (await tenant.post(f"/v1/mail/campaigns/{made.body['id']}/send")).status == 200
    await installation.wait_for(tenant, made.body["id"], "completed")
    assert sorted(installation.simulator.accepted()) == sorted(nicks)
    [ann] = installation.simulator.messages("ann@example.com")
    assert ann["subject"] == "News for Ann"
    assert "<p>Hi Ann</p>" in ann["html"]
    assert "Tips" in ann["html"]
    [eve] = installation.simulator.messages("eve@example.com")
    assert eve["subject"] == "News for Eve Bcc: victim@example.com <p>another</p>"
    assert [header["name"] for header in eve["headers"]] == [header["name"] for header in ann["headers"]]
    assert "<p>another" not in eve["html"]
