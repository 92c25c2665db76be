"""Every statement on webhook_endpoints."""

from datetime import datetime, timedelta
from typing import Any

from mailrail.db.pool import Connection, fetch_one
from mailrail.webhooks.model import Endpoint, EndpointDraft, WebhookNotFound

_COLUMNS = """id, account_id, url, events, description, is_active, secret, previous_secret, previous_until, created_at,
updated_at, failing_since, disabled_at, disabled_reason"""


async def new_id(conn: Connection) -> int:
    """The number of an endpoint to be: its secret is sealed for it."""
    endpoint_id: int = await conn.fetchval("SELECT nextval('webhook_endpoint_ids')")
    return endpoint_id


async def insert_endpoint(
    conn: Connection, account_id: int, endpoint_id: int, draft: EndpointDraft, secret: bytes
) -> Endpoint:
    """A new endpoint of the account."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO webhook_endpoints (id, account_id, url, events, description, is_active, secret)
            VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}""",
        endpoint_id,
        account_id,
        draft.url,
        draft.events,
        draft.description,
        draft.is_active,
        secret,
    )
    return Endpoint(**row)


async def read_endpoint(conn: Connection, account_id: int, endpoint_id: int) -> Endpoint:
    """Raises WebhookNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE id = $1 AND account_id = $2",
        endpoint_id,
        account_id,
    )
    return _found(row)


async def read_page(conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None) -> list[Endpoint]:
    """Newest first."""
    rows = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM webhook_endpoints WHERE account_id = $1 AND ($2::bigint IS NULL OR id < $2)
            ORDER BY id DESC LIMIT $3 OFFSET $4""",
        account_id,
        after_id,
        limit,
        offset,
    )
    return [Endpoint(**row) for row in rows]


async def count_endpoints(conn: Connection, account_id: int) -> int:
    """How many endpoints the account has."""
    total: int = await conn.fetchval("SELECT count(*) FROM webhook_endpoints WHERE account_id = $1", account_id)
    return total


async def update_endpoint(conn: Connection, account_id: int, endpoint_id: int, changes: dict[str, Any]) -> Endpoint:
    """Sets the named columns; an endpoint that is switched on begins anew, whatever it did before. `changes` has names from
    our form, never from a user. Raises WebhookNotFound.
    """
    columns = "".join(f"{name} = ${position}, " for position, name in enumerate(changes, 3))
    if changes.get("is_active"):
        columns += "failing_since = NULL, disabled_at = NULL, disabled_reason = NULL, "
    row = await conn.fetchrow(
        f"""UPDATE webhook_endpoints SET {columns}updated_at = now() WHERE id = $1 AND account_id = $2
            RETURNING {_COLUMNS}""",
        endpoint_id,
        account_id,
        *changes.values(),
    )
    return _found(row)


async def replace_secret(
    conn: Connection, account_id: int, endpoint_id: int, secret: bytes, previous_valid: timedelta
) -> Endpoint:
    """The secret so far stays valid for a while beside the new one; the one before it ends now. Raises WebhookNotFound."""
    row = await conn.fetchrow(
        f"""UPDATE webhook_endpoints SET previous_secret = secret, previous_until = now() + $4::interval, secret = $3,
              updated_at = now()
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        endpoint_id,
        account_id,
        secret,
        previous_valid,
    )
    return _found(row)


async def delete_endpoint(conn: Connection, account_id: int, endpoint_id: int) -> None:
    """Raises WebhookNotFound."""
    _found(
        await conn.fetchrow(
            f"DELETE FROM webhook_endpoints WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}",
            endpoint_id,
            account_id,
        )
    )


async def read_clock(conn: Connection) -> datetime:
    """The database's clock, by which a secret ends."""
    now: datetime = await conn.fetchval("SELECT now()")
    return now


def _found(row: Any) -> Endpoint:
    if row is None:
        raise WebhookNotFound
    return Endpoint(**row)
