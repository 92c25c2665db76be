"""The headers of unsubscribing as they arrive, in the way that mail programs need to show their button, and under the signature."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Tenant
from tests.support.installation import Installation, installed
from tests.support.people import add_contact, add_list
from tests.support.postgres import Database

NAMES = ["List-Unsubscribe", "List-Unsubscribe-Post"]


@pytest.fixture(params=["slots", "simple"])
async def installation(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", {"wire_mode": request.param}) as running:
        yield running


def faults_of(mail: dict[str, Any]) -> list[str]:
    """What would keep a mail program from showing its button."""
    found = []
    arrived = [header["name"] for header in mail["headers"] if header["name"] in NAMES]
    values = {header["name"]: header["value"] for header in mail["headers"]}
    if arrived != NAMES:
        found.append(f"they arrive as {arrived}")
    if not set(NAMES) <= set(mail["signed_headers"]):
        found.append("they are not signed")
    if not re.fullmatch(r"<https?://[^<>,\s]+/u/[\w-]{71}>", values.get(NAMES[0], "")):
        found.append("there is not exactly one address")
    if values.get(NAMES[1]) != "List-Unsubscribe=One-Click":
        found.append("it is not one click")
    return found


async def sender(installation: Installation) -> tuple[Tenant, str]:
    """Who sends, and a list of three: fewer who share a skeleton make no bulk call."""
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    list_id = await add_list(tenant)
    for name in ("ann", "bob", "eve"):
        await add_contact(tenant, f"{name}@example.com", listId=list_id)
    return tenant, list_id


async def campaign(installation: Installation, tenant: Tenant, list_id: str) -> None:
    """Sends one to the list."""
    body = {"name": "N", "subject": "Hi {{ name }}", "content": "<p>x</p>", "listId": list_id}
    made = (await tenant.post("/api/v1/campaigns", body)).body["id"]
    assert (await tenant.post(f"/api/v1/campaigns/{made}/launch")).status == 200
    await installation.wait_for(tenant, made, "completed")


async def test_campaigns_carry_both_in_order_and_signed_and_the_address_works(
    installation: Installation, request: pytest.FixtureRequest
) -> None:
    tenant, list_id = await sender(installation)
    await campaign(installation, tenant, list_id)
    [mail] = installation.simulator.messages("ann@example.com")
    assert mail["mode"] == request.node.callspec.params["installation"]
    assert faults_of(mail) == []
    values = {header["name"]: header["value"] for header in mail["headers"]}
    # The mail names the installation's public address; it answers here.
    path = "/u/" + values[NAMES[0]].partition("/u/")[2].rstrip(">")
    body = values[NAMES[1]].encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await installation.api.call("POST", path, data=body, headers=headers)).status == 200
    assert (await tenant.get(f"/api/v1/lists/{list_id}")).body["unsubscribed"] == 1
    ann = (await tenant.get("/api/v1/contacts?email=ann@example.com")).body["contacts"]
    assert [one["status"] for one in ann] == ["subscribed"]


async def test_a_simulator_that_breaks_them_is_noticed(installation: Installation) -> None:
    tenant, list_id = await sender(installation)
    for fault in ("reorder_headers", "unsigned_headers"):
        await installation.set_faults(**{fault: 1.0})
        await campaign(installation, tenant, list_id)
    reordered, unsigned = installation.simulator.messages("ann@example.com")
    assert faults_of(reordered) == [f"they arrive as {NAMES[::-1]}"]
    assert faults_of(unsigned) == ["they are not signed"]


async def test_transactional_mail_carries_none(installation: Installation) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    mail = {"to": "ann@example.com", "from": "you@acme.com", "subject": "Receipt", "text": "x"}
    assert (await tenant.post("/api/v1/emails", mail)).status == 200
    [received] = installation.simulator.messages("ann@example.com")
    assert [header["name"] for header in received["headers"]] == ["X-Mailrail-Id"]
