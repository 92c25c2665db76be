"""A tenant's contacts, lists and what people said, through the API."""

from typing import Any

from tests.support.api import Answer, Tenant

# What a customer tells of a person who came back.
CAME_BACK = {"source": "checkout", "ip": "203.0.113.7", "wording": "Send me news.", "at": "2026-11-02T03:04:05Z"}


async def add_list(tenant: Tenant, name: str = "Readers", **fields: Any) -> str:
    """The id of a new list."""
    made = await tenant.post("/api/v1/lists", {"name": name, **fields})
    assert made.status == 201, made.body
    return str(made.body["id"])


async def add_contact(tenant: Tenant, email: str = "ann@example.com", **fields: Any) -> dict[str, Any]:
    """A new contact as the API shows it."""
    made = await tenant.post("/api/v1/contacts", {"email": email, **fields})
    assert made.status == 201, made.body
    contact: dict[str, Any] = made.body
    return contact


async def contact_of(tenant: Tenant, contact_id: str) -> dict[str, Any]:
    """The contact as it is now."""
    found: dict[str, Any] = (await tenant.get(f"/api/v1/contacts/{contact_id}")).body
    return found


async def set_status(tenant: Tenant, contact_id: str, status: str, **consent: Any) -> Answer:
    """PATCHes the status."""
    body = {"status": status, **({"consent": consent} if consent else {})}
    return await tenant.patch(f"/api/v1/contacts/{contact_id}", body)


async def history(tenant: Tenant, contact_id: str) -> list[dict[str, Any]]:
    """What the person said, oldest first."""
    page = await tenant.get(f"/api/v1/contacts/{contact_id}/consents?limit=100")
    assert page.status == 200, page.body
    found: list[dict[str, Any]] = page.body["consents"]
    return found[::-1]


async def suppress(tenant: Tenant, email: str, reason: str) -> None:
    """What the applier or a deletion writes."""
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "INSERT INTO suppressions (account_id, email_folded, reason) VALUES ($1, lower($2), $3)",
            tenant.account_id,
            email,
            reason,
        )


async def suppressions(tenant: Tenant) -> dict[str, str]:
    """Address → why it gets no mail."""
    page = (await tenant.get("/api/v1/suppressions?limit=100")).body
    return {item["email"]: item["reason"] for item in page["suppressions"]}
