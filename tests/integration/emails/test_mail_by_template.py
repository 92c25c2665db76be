"""Transactional mail made of stored templates, through the API and the simulator."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailrail.templates import store
from mailrail.templates.model import Ref, Version
from tests.support.api import Answer, Tenant
from tests.support.installation import Installation

WELCOME = {
    "name": "Welcome",
    "subject": "Welcome, {{ who }}",
    "preheader": "Good to have you",
    "html": "<p>Hi {{ who }}</p>",
    "text": "Hi {{ who }}",
}


async def make(tenant: Tenant, **changes: Any) -> str:
    made = await tenant.post("/api/v1/templates", {**WELCOME, **changes})
    assert made.status == 201, made.body
    return str(made.body["id"])


async def send(tenant: Tenant, to: str | list[str] = "ann@example.com", **body: Any) -> Answer:
    return await tenant.post("/api/v1/emails", {"to": to, "from": "you@acme.com", **body})


async def test_a_mail_says_what_its_template_says(installation: Installation, tenant: Tenant) -> None:
    template_id = await make(tenant)
    for name, to in ((template_id, "by-id@example.com"), ("Welcome", "by-name@example.com")):
        sent = await send(tenant, to, template=name, variables={"who": "<Ann>"})
        assert (sent.status, sent.body["status"]) == (200, "sent"), sent.body
        [mail] = installation.simulator.messages(to)
        assert mail["subject"] == "Welcome, <Ann>"
        assert "<p>Hi &lt;Ann&gt;</p>" in mail["html"]
        assert "Good to have you" in mail["html"]
        assert mail["text"].strip() == "Hi <Ann>"
    # A variable that is missing prints nothing, as in templates that come with the mail.
    assert (await send(tenant, "none@example.com", template="Welcome")).status == 200
    [mail] = installation.simulator.messages("none@example.com")
    assert mail["subject"] == "Welcome,"


async def test_a_subject_of_the_mail_wins_and_a_version_can_be_chosen(
    installation: Installation, tenant: Tenant
) -> None:
    template_id = await make(tenant)
    await tenant.patch(f"/api/v1/templates/{template_id}", {"text": "New {{ who }}", "subject": None})
    missing = await send(tenant, template=template_id)
    assert (missing.status, missing.params) == (422, {"subject"})
    assert (await send(tenant, template=template_id, subject="Mine, {{ who }}", variables={"who": "A"})).status == 200
    assert (await send(tenant, template=template_id, templateVersion=1, variables={"who": "B"})).status == 200
    newest, first = installation.simulator.messages("ann@example.com")
    assert (newest["subject"], newest["text"].strip()) == ("Mine, A", "New A")
    assert (first["subject"], first["text"].strip()) == ("Welcome, B", "Hi B")


async def test_unknown_templates_are_not_found(installation: Installation, tenant: Tenant) -> None:
    stranger = await installation.api.add_tenant("Stranger")
    theirs = await make(stranger, name="Theirs")
    mine = await make(tenant)
    for named in (
        {"template": theirs},
        {"template": "Theirs"},
        {"template": "tpl_x"},
        {"template": mine, "templateVersion": 2},
    ):
        answer = await send(tenant, **named)
        assert (answer.status, answer.code, answer.params) == (404, "template_not_found", {"template"}), named
    wrong = {"to": "b@example.com", "from": "you@acme.com", "template": "Theirs"}
    right = {**wrong, "template": "Welcome"}
    batch = await tenant.post("/api/v1/emails/batch", {"emails": [right, wrong]})
    assert (batch.status, batch.params) == (404, {"emails[1].template"})
    assert (await send(tenant, template=mine, html="<p>x</p>")).params == {"html"}
    assert installation.simulator.accepted() == []


async def test_a_batch_looks_its_templates_up_once_and_other_mail_never(
    installation: Installation, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(tenant)
    await make(tenant, name="Second", subject="Second, {{ who }}")
    asked: list[int] = []
    find = store.find_versions

    async def counted(conn: Any, account_id: int, refs: Any) -> dict[Ref, Version]:
        asked.append(len(refs))
        return await find(conn, account_id, refs)

    monkeypatch.setattr(store, "find_versions", counted)
    emails: list[dict[str, Any]] = [
        {
            "to": f"p{n}@example.com",
            "from": "you@acme.com",
            "template": ("Welcome", "Second")[n % 2],
            "variables": {"who": n},
        }
        for n in range(20)
    ]
    emails.append({"to": "plain@example.com", "from": "you@acme.com", "subject": "Plain", "text": "{{ who }}"})
    sent = await tenant.post("/api/v1/emails/batch", {"emails": emails})
    assert (sent.status, sent.body["sent"]) == (200, 21), sent.body
    assert asked == [2]
    for n in range(20):
        [mail] = installation.simulator.messages(f"p{n}@example.com")
        assert mail["subject"] == f"{('Welcome', 'Second')[n % 2]}, {n}"
    [mail] = installation.simulator.messages("plain@example.com")
    assert mail["text"].strip() == "{{ who }}"
    assert (await send(tenant, subject="S", text="T")).status == 200
    assert asked == [2]


async def test_a_scheduled_mail_keeps_what_its_template_said(installation: Installation, tenant: Tenant) -> None:
    template_id = await make(tenant)
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    queued = await send(tenant, template=template_id, variables={"who": "A"}, scheduledAt=soon)
    assert (queued.status, queued.body["status"]) == (202, "scheduled"), queued.body
    assert (await tenant.delete(f"/api/v1/templates/{template_id}")).status == 200
    async with asyncio.timeout(30):
        while not (mails := installation.simulator.messages("ann@example.com")):
            await asyncio.sleep(0.1)
    assert [(mail["subject"], mail["text"].strip()) for mail in mails] == [("Welcome, A", "Hi A")]
    assert (await send(tenant, template=template_id)).code == "template_not_found"


# What could end a header, or a part of a body, if a value reached it as it is.
NASTY = [
    "x\r\nBcc: victim@example.com",
    "x\nBcc: victim@example.com",
    "x\rBcc: victim@example.com",
    "x\r\n\r\n<p>another body</p>",
    "x\r\n Bcc: victim@example.com",
    "x\u2028Bcc: victim@example.com",
    "x\x85Bcc: victim@example.com",
    "x\x00Bcc: victim@example.com",
]


@pytest.mark.parametrize("value", NASTY)
async def test_no_value_makes_a_header(installation: Installation, tenant: Tenant, value: str) -> None:
    await make(tenant)
    for to in ("ann@example.com", ["ann@example.com", "bob@example.com"]):
        by_subject = await send(tenant, to, template="Welcome", variables={"who": value})
        assert by_subject.status == 422
        assert "subject" in by_subject.params
        by_name = await send(tenant, f"{value} <ann@example.com>", subject="S", text="T")
        assert (by_name.status, by_name.params) == (422, {"to"})
        by_header = await send(tenant, to, subject="S", text="T", headers={"X-Order": value})
        assert (by_header.status, by_header.params) == (422, {"headers.X-Order"})
    assert installation.simulator.accepted() == []


async def test_values_stay_in_their_part_of_the_body(installation: Installation, tenant: Tenant) -> None:
    await make(tenant, subject="Fixed")
    values = [value for value in NASTY if "\x00" not in value]
    values += [
        "--boundary\r\nContent-Type: text/html\r\n\r\n<p>another</p>\r\n--boundary--",
        "=?utf-8?q?=0D=0ABcc:_v?=",
    ]
    for n, value in enumerate(values):
        # To several addresses the MIME is ours, else it is Amazon's.
        for to in ([f"a{n}@example.com"], [f"b{n}@example.com", f"c{n}@example.com"]):
            assert (await send(tenant, to, template="Welcome", variables={"who": value})).status == 200
            for address in to:
                [mail] = installation.simulator.messages(address)
                assert mail["subject"] == "Fixed"
                assert "another</p>" not in mail["html"]
                assert not {header["name"].lower() for header in mail["headers"]} & {"bcc", "cc"}
    assert "victim@example.com" not in installation.simulator.accepted()


async def test_a_repetition_is_answered_though_the_template_is_gone(installation: Installation, tenant: Tenant) -> None:
    template_id = await make(tenant)
    body = {"to": "again@example.com", "from": "you@acme.com", "template": template_id, "variables": {"who": "Ann"}}

    async def ask(**changes: Any) -> Answer:
        return await tenant.api.call(
            "POST", "/api/v1/emails", key=tenant.key, json={**body, **changes}, headers={"Idempotency-Key": "welcome-1"}
        )

    first = await ask()
    assert (await tenant.delete(f"/api/v1/templates/{template_id}")).status == 200
    second = await ask()
    assert (second.status, second.body) == (first.status, first.body)
    assert second.headers["idempotent-replayed"] == "true"
    other = await ask(subject="Another")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert installation.simulator.accepted().count("again@example.com") == 1
    assert (await send(tenant, template=template_id)).status == 404
