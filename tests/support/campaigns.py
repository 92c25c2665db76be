"""Campaigns of a tenant through the API, and what stands behind them in the tables."""

from typing import Any

from mailrail.ids import Kind
from tests.support.api import Tenant

BODY = {"name": "News", "subject": "Hi {{ firstName }}", "content": "<p>Hi {{ firstName }}</p>"}


async def add_contacts(tenant: Tenant, count: int) -> None:
    """So many subscribed contacts."""
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "INSERT INTO contacts (account_id, email) SELECT $1, 'p' || n || '@example.net' FROM generate_series(1, $2::integer) n",
            tenant.account_id,
            count,
        )


async def draft(tenant: Tenant, **fields: Any) -> str:
    """The path of a new draft."""
    made = await tenant.post("/api/v1/campaigns", {**BODY, **fields})
    assert made.status == 201, made.body
    return f"/api/v1/campaigns/{made.body['id']}"


async def launched(tenant: Tenant, recipients: int = 2) -> str:
    """The path of a campaign under way, whose audience are new contacts. Nobody works on it: there is no worker."""
    await tenant.verify_domain()
    await add_contacts(tenant, recipients)
    path = await draft(tenant)
    answer = await tenant.post(f"{path}/launch")
    assert answer.status == 200, answer.body
    return path


def row_of(tenant: Tenant, path: str) -> int:
    """The number of the campaign at this path."""
    return tenant.api.ids.find(Kind.CAMPAIGN, path.rpartition("/")[2])


async def stream_of(tenant: Tenant, path: str) -> int:
    """The stream behind the campaign at this path."""
    async with tenant.api.operator.acquire() as conn:
        stream_id: int = await conn.fetchval("SELECT stream_id FROM campaigns WHERE id = $1", row_of(tenant, path))
    return stream_id


async def set_status(tenant: Tenant, path: str, status: str) -> None:
    """Writes the status and nothing else, where the schema lets it."""
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE campaigns SET status = $2 WHERE id = $1", row_of(tenant, path), status)


async def hold_sending(tenant: Tenant, reason: str | None) -> None:
    """What a restored backup does; None is an operator's release."""
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE installation SET held_reason = $1::text, held_at = CASE WHEN $1::text IS NOT NULL THEN now() END",
            reason,
        )
