"""Every statement on contacts, lists and consent."""

from collections.abc import Iterable, Sequence
from typing import Any

from mailrail.contacts.model import (
    TOTAL_CAP,
    Contact,
    ContactDraft,
    ContactFilter,
    ContactList,
    ContactNotFound,
    ContactStatus,
    ListNotFound,
    Names,
)
from mailrail.db.pool import Connection

_COLUMNS = "id, account_id, email, name, first_name, last_name, status, tags, custom_fields, created_at, updated_at"
_LIST_COLUMNS = """l.id, l.account_id, l.name, l.created_at,
(SELECT count(*) FROM list_members m WHERE m.list_id = l.id AND m.status = 'subscribed')::integer AS contacts"""


def _contact(row: Any) -> Contact:
    return Contact(**{**row, "status": ContactStatus(row["status"])})


# —— contacts ———————————————————————————————————————————————————————————————————————————————————————————————————————————


async def insert_contact(conn: Connection, account_id: int, draft: ContactDraft) -> Contact | None:
    """None where the account has a contact with this address."""
    row = await conn.fetchrow(
        f"""INSERT INTO contacts (account_id, email, name, first_name, last_name, status, tags, custom_fields)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (account_id, email_folded) DO NOTHING
            RETURNING {_COLUMNS}""",
        account_id,
        draft.email,
        draft.names.name,
        draft.names.first_name,
        draft.names.last_name,
        draft.status or ContactStatus.SUBSCRIBED,
        draft.tags or [],
        draft.custom_fields or {},
    )
    return None if row is None else _contact(row)


async def lock_contact_by_email(conn: Connection, account_id: int, email: str) -> Contact:
    """Locks the contact for a change. Raises ContactNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM contacts WHERE account_id = $1 AND email_folded = lower($2) FOR UPDATE",
        account_id,
        email,
    )
    if row is None:
        raise ContactNotFound
    return _contact(row)


async def read_contact(conn: Connection, account_id: int, contact_id: int) -> Contact:
    """Raises ContactNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM contacts WHERE id = $1 AND account_id = $2", contact_id, account_id
    )
    if row is None:
        raise ContactNotFound
    return _contact(row)


async def update_contact(conn: Connection, contact: Contact, names: Names, draft: ContactDraft) -> Contact:
    """Writes what the draft says; custom fields are merged, and the address keeps the way it was written first."""
    row = await conn.fetchrow(
        f"""UPDATE contacts SET name = $3, first_name = $4, last_name = $5, status = coalesce($6, status),
              tags = coalesce($7::text[], tags), custom_fields = custom_fields || $8, updated_at = now()
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        contact.id,
        contact.account_id,
        names.name,
        names.first_name,
        names.last_name,
        draft.status,
        draft.tags,
        draft.custom_fields or {},
    )
    return _contact(row)


async def read_page(
    conn: Connection, account_id: int, wanted: ContactFilter, limit: int, offset: int, after_id: int | None
) -> list[Contact]:
    """Newest first; `after_id` goes on behind that contact, else `offset` skips."""
    if wanted == ContactFilter(tags=wanted.tags) and wanted.tags:
        rows = await conn.fetch(
            f"SELECT {_COLUMNS} FROM contacts_with_tags($1, $2, $3, $4, $5)",
            account_id,
            wanted.tags,
            after_id,
            offset,
            limit,
        )
    else:
        condition, values = _condition(account_id, wanted, first=4)
        rows = await conn.fetch(
            f"""SELECT {_COLUMNS} FROM contacts c WHERE {condition} AND ($1::bigint IS NULL OR c.id < $1)
                ORDER BY c.id DESC LIMIT $2 OFFSET $3""",
            after_id,
            limit,
            offset,
            *values,
        )
    return [_contact(row) for row in rows]


async def count_contacts(conn: Connection, account_id: int) -> int:
    """All of the account's."""
    count: int = await conn.fetchval("SELECT count(*) FROM contacts WHERE account_id = $1", account_id)
    return count


async def count_filtered(conn: Connection, account_id: int, wanted: ContactFilter) -> int:
    """How many the filter finds, counted up to TOTAL_CAP + 1: a free filter may have no index."""
    if wanted == ContactFilter(tags=wanted.tags) and wanted.tags:
        count: int = await conn.fetchval(
            "SELECT count(*) FROM contacts_with_tags($1, $2, NULL, 0, $3)", account_id, wanted.tags, TOTAL_CAP + 1
        )
        return count
    condition, values = _condition(account_id, wanted, first=2)
    found: int = await conn.fetchval(
        f"SELECT count(*) FROM (SELECT FROM contacts c WHERE {condition} LIMIT $1) AS found", TOTAL_CAP + 1, *values
    )
    return found


def _condition(account_id: int, wanted: ContactFilter, first: int) -> tuple[str, list[Any]]:
    """The filter as SQL over `c`, with parameters from `first` on."""
    conditions: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("c.account_id = {}", account_id),
        ("c.status = {}", wanted.status),
        ("c.email_folded = lower({})", wanted.email),
        ("c.tags @> {}::text[]", wanted.tags or None),
        (
            "c.id IN (SELECT contact_id FROM list_members WHERE list_id = {} AND status = 'subscribed')",
            wanted.list_id,
        ),
    ):
        if value is not None:
            conditions.append(condition.format(f"${first + len(values)}"))
            values.append(value)
    return " AND ".join(conditions), values


# —— custom fields ——————————————————————————————————————————————————————————————————————————————————————————————————————


async def insert_fields(conn: Connection, account_id: int, names: Iterable[str]) -> None:
    """Notes names of custom fields; those known stay. In one order, so that two requests cannot lock each other."""
    await conn.execute(
        "INSERT INTO contact_fields (account_id, name) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
        account_id,
        sorted(names),
    )


async def read_fields(conn: Connection, account_id: int) -> set[str]:
    """Names of custom fields that any contact of the account ever had."""
    return {
        row["name"] for row in await conn.fetch("SELECT name FROM contact_fields WHERE account_id = $1", account_id)
    }


# —— lists ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def insert_list(conn: Connection, account_id: int, name: str) -> int | None:
    """The new list's id, or None where the account has a list of this name."""
    list_id: int | None = await conn.fetchval(
        "INSERT INTO lists (account_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id", account_id, name
    )
    return list_id


async def find_list(conn: Connection, account_id: int, name: str) -> int:
    """Raises ListNotFound."""
    list_id: int | None = await conn.fetchval(
        "SELECT id FROM lists WHERE account_id = $1 AND name = $2", account_id, name
    )
    if list_id is None:
        raise ListNotFound
    return list_id


async def read_list(conn: Connection, account_id: int, list_id: int) -> ContactList:
    """Raises ListNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_LIST_COLUMNS} FROM lists l WHERE l.id = $1 AND l.account_id = $2", list_id, account_id
    )
    if row is None:
        raise ListNotFound
    return ContactList(**row)


async def list_name(conn: Connection, account_id: int, list_id: int) -> str | None:
    """The list's name, without counting; None where there is no such list."""
    name: str | None = await conn.fetchval(
        "SELECT name FROM lists WHERE id = $1 AND account_id = $2", list_id, account_id
    )
    return name


async def read_lists(
    conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None
) -> list[ContactList]:
    """Newest first; `after_id` goes on behind that list, else `offset` skips."""
    rows = await conn.fetch(
        f"""SELECT {_LIST_COLUMNS} FROM lists l WHERE l.account_id = $1 AND ($4::bigint IS NULL OR l.id < $4)
            ORDER BY l.id DESC LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
        after_id,
    )
    return [ContactList(**row) for row in rows]


async def count_lists(conn: Connection, account_id: int) -> int:
    """All of the account's."""
    count: int = await conn.fetchval("SELECT count(*) FROM lists WHERE account_id = $1", account_id)
    return count


async def count_members(conn: Connection, account_id: int, list_id: int) -> int:
    """Who is subscribed to the list."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM list_members WHERE list_id = $2 AND account_id = $1 AND status = 'subscribed'",
        account_id,
        list_id,
    )
    return count


async def insert_members(conn: Connection, account_id: int, list_id: int, contact_ids: Sequence[int]) -> int:
    """Puts contacts on a list; who is or was on it stays as he is. Returns how many were added."""
    added: int = await conn.fetchval(
        """WITH added AS (
             INSERT INTO list_members (list_id, contact_id, account_id) SELECT $2, unnest($3::bigint[]), $1
             ON CONFLICT DO NOTHING RETURNING 1)
           SELECT count(*) FROM added""",
        account_id,
        list_id,
        list(contact_ids),
    )
    return added


async def set_membership(
    conn: Connection, account_id: int, list_id: int, contact_id: int, status: ContactStatus
) -> bool:
    """Writes a person's word on one list, also where he was taken off it: a later import must not sign him up again.

    Whether it changed anything.
    """
    changed = await conn.fetchval(
        """INSERT INTO list_members AS m (list_id, contact_id, account_id, status)
           SELECT $2, c.id, $1, $4 FROM contacts c WHERE c.id = $3 AND c.account_id = $1
           ON CONFLICT (list_id, contact_id) DO UPDATE SET status = excluded.status WHERE m.status <> excluded.status
           RETURNING true""",
        account_id,
        list_id,
        contact_id,
        status,
    )
    return changed is not None


async def unsubscribe_contact(conn: Connection, account_id: int, contact_id: int) -> bool:
    """Whether it changed anything: who bounced or complained is not written to anyway and keeps that reason."""
    changed = await conn.fetchval(
        """UPDATE contacts SET status = 'unsubscribed', updated_at = now()
           WHERE id = $2 AND account_id = $1 AND status = 'subscribed' RETURNING true""",
        account_id,
        contact_id,
    )
    return changed is not None
