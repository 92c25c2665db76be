"""Uploads of contacts, and workers that merge them."""

import csv
import io
from typing import Any

from mailrail.db.pool import Pool
from mailrail.imports.handlers import merge_next
from tests.support.api import Answer, Tenant
from tests.support.postgres import SECRET

PATH = "/api/v1/contacts/import"


async def upload(
    tenant: Tenant, body: bytes | str | Any, content_type: str = "text/csv", query: str = "", **headers: str
) -> Answer:
    """POSTs an upload; header names are written with underscores."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    return await tenant.api.call(
        "POST", PATH + query, tenant.key, data=data, headers={"Content-Type": content_type, **sent}
    )


async def merge_all(pool: Pool) -> int:
    """Merges until nothing is left; how many turns it took."""
    turns = 0
    while await merge_next(pool, SECRET):
        turns += 1
    return turns


async def imported(tenant: Tenant, pool: Pool, *upload_arguments: Any, **options: Any) -> dict[str, Any]:
    """Uploads, merges, and gives the import as it then is."""
    answer = await upload(tenant, *upload_arguments, **options)
    assert answer.status == 202, answer.body
    await merge_all(pool)
    found: dict[str, Any] = (await tenant.get(f"{PATH}/{answer.body['id']}")).body
    return found


async def errors(tenant: Tenant, import_id: str) -> list[tuple[int, str, str]]:
    """(row, email, code) of the rows that failed."""
    answer = await tenant.get(f"{PATH}/{import_id}/errors")
    assert answer.status == 200
    return [(int(row["row"]), row["email"], row["code"]) for row in csv.DictReader(io.StringIO(answer.body.decode()))]


async def contacts(tenant: Tenant) -> dict[str, dict[str, Any]]:
    """The tenant's contacts by address, up to a page."""
    page = await tenant.get("/api/v1/contacts?limit=100")
    return {item["email"]: item for item in page.body["contacts"]}


def counts(one: dict[str, Any]) -> dict[str, int]:
    """What became of its rows; zeros are left out."""
    names = ("created", "updated", "unchanged", "skipped", "duplicates", "failed")
    return {name: one[name] for name in names if one[name]}
