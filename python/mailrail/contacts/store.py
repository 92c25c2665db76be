"""Every statement on contacts and lists; on who is on which list and what they said of it, `members.py` and `consents.py`."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import asyncpg

from mailrail.contacts.model import (
    TOTAL_CAP,
    Confirmation,
    Contact,
    ContactChanges,
    ContactDraft,
    ContactExists,
    ContactFilter,
    ContactList,
    ContactNotFound,
    ContactStatus,
    ListDraft,
    ListExists,
    ListInUse,
    ListNotFound,
    ListRule,
    Names,
)
from mailrail.db.pool import Connection

_COLUMNS = """id, account_id, email, name, first_name, last_name, status, tags, custom_fields, created_at, updated_at,
tracking"""
# As what a new contact, or one with a new address, has to be taken.
_AS_SUPPRESSED = """(SELECT CASE x.reason WHEN 'bounce' THEN 'bounced' WHEN 'soft_bounces' THEN 'bounced' WHEN 'complaint' THEN 'complained'
  WHEN 'unsubscribe' THEN 'unsubscribed' END FROM suppressions x WHERE x.account_id = {account} AND x.email_folded = lower({email}))"""
_LISTS = """SELECT l.id, l.account_id, l.name, l.double_opt_in, l.is_public, l.confirmation_subject, l.confirmation_wording,
  l.confirmation_name, l.confirmation_email, l.created_at, n.contacts, n.pending, n.unsubscribed
FROM lists l CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE m.status = 'subscribed')::integer AS contacts,
    count(*) FILTER (WHERE m.status = 'pending')::integer AS pending,
    count(*) FILTER (WHERE m.status = 'unsubscribed')::integer AS unsubscribed
  FROM list_members m WHERE m.list_id = l.id) n"""
_LIST_CHANGES = (
    "name",
    "double_opt_in",
    "is_public",
    "confirmation_subject",
    "confirmation_wording",
    "confirmation_name",
    "confirmation_email",
)


def _contact(row: Any) -> Contact:
    return Contact(**{**row, "status": ContactStatus(row["status"])})


def _list(row: Any) -> ContactList:
    return ContactList(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        double_opt_in=row["double_opt_in"],
        is_public=row["is_public"],
        confirmation=Confirmation(
            row["confirmation_subject"],
            row["confirmation_wording"],
            row["confirmation_name"],
            row["confirmation_email"],
        ),
        created_at=row["created_at"],
        contacts=row["contacts"],
        pending=row["pending"],
        unsubscribed=row["unsubscribed"],
    )


# —— contacts ———————————————————————————————————————————————————————————————————————————————————————————————————————————


async def insert_contact(
    conn: Connection, account_id: int, draft: ContactDraft, status: ContactStatus
) -> Contact | None:
    """None where the account has a contact with this address. What suppresses the address says more than `status`."""
    suppressed = _AS_SUPPRESSED.format(account="$1", email="$2")
    row = await conn.fetchrow(
        f"""INSERT INTO contacts (account_id, email, name, first_name, last_name, status, tags, custom_fields, tracking)
            VALUES ($1, $2, $3, $4, $5, coalesce({suppressed}, $6), $7, $8, $9) ON CONFLICT (account_id, email_folded) DO NOTHING
            RETURNING {_COLUMNS}""",
        account_id,
        draft.email,
        draft.names.name,
        draft.names.first_name,
        draft.names.last_name,
        status,
        draft.tags or [],
        draft.custom_fields or {},
        draft.tracking is not False,
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


async def read_contact(conn: Connection, account_id: int, contact_id: int, *, lock: bool = False) -> Contact:
    """Raises ContactNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM contacts WHERE id = $1 AND account_id = $2 {'FOR UPDATE' if lock else ''}",
        contact_id,
        account_id,
    )
    if row is None:
        raise ContactNotFound
    return _contact(row)


async def update_contact(conn: Connection, contact: Contact, names: Names, changes: ContactChanges) -> Contact:
    """Writes what the changes say; custom fields are merged. With another address a contact that bounced is subscribed
    again, unless that address is suppressed. Raises ContactExists where it is another contact's.
    """
    suppressed = _AS_SUPPRESSED.format(account="$2", email="$9")
    try:
        async with conn.transaction():
            row = await conn.fetchrow(
                f"""UPDATE contacts SET name = $3, first_name = $4, last_name = $5,
                      status = CASE WHEN $6::text IS NOT NULL THEN $6 WHEN email_folded = coalesce(lower($9), email_folded) THEN status
                        ELSE coalesce({suppressed}, CASE status WHEN 'bounced' THEN 'subscribed' ELSE status END) END,
                      tags = coalesce($7::text[], tags), custom_fields = custom_fields || $8,
                      email = coalesce($9::text, email), tracking = coalesce($10, tracking), updated_at = now()
                    WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
                contact.id,
                contact.account_id,
                names.name,
                names.first_name,
                names.last_name,
                changes.status,
                changes.tags,
                changes.custom_fields or {},
                changes.email,
                changes.tracking,
            )
    except asyncpg.UniqueViolationError:
        assert changes.email is not None, "only a new address can be another's"
        other = await lock_contact_by_email(conn, contact.account_id, changes.email)
        raise ContactExists(other.id) from None
    return _contact(row)


async def set_status(
    conn: Connection, account_id: int, contact_id: int, status: ContactStatus, among: Collection[ContactStatus]
) -> str | None:
    """Changes the status where it is one of `among`; the contact's address, or None where nothing changed."""
    email: str | None = await conn.fetchval(
        """UPDATE contacts SET status = $3, updated_at = now()
           WHERE id = $2 AND account_id = $1 AND status = ANY($4::text[]) AND status <> $3 RETURNING email""",
        account_id,
        contact_id,
        status,
        list(among),
    )
    return email


async def delete_contact(conn: Connection, contact: Contact) -> None:
    """The contact with its memberships and its history."""
    await conn.execute(
        """WITH history AS (DELETE FROM consents WHERE account_id = $1 AND contact_id = $2)
           DELETE FROM contacts WHERE account_id = $1 AND id = $2""",
        contact.account_id,
        contact.id,
    )


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


async def insert_list(conn: Connection, account_id: int, draft: ListDraft) -> int | None:
    """The new list's id, or None where the account has a list of this name."""
    list_id: int | None = await conn.fetchval(
        """INSERT INTO lists (account_id, name, double_opt_in, confirmation_subject, confirmation_wording, confirmation_name,
             confirmation_email, is_public)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING id""",
        account_id,
        draft.name,
        draft.double_opt_in,
        draft.confirmation.subject,
        draft.confirmation.wording,
        draft.confirmation.sender_name,
        draft.confirmation.sender_email,
        draft.is_public,
    )
    return list_id


async def update_list(conn: Connection, account_id: int, list_id: int, changes: Mapping[str, Any]) -> bool:
    """Writes columns by their names; False where there is no such list. Raises ListExists."""
    columns = [name for name in _LIST_CHANGES if name in changes]
    values = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 3)) or "name = name"
    try:
        async with conn.transaction():
            changed = await conn.fetchval(
                f"UPDATE lists SET {values} WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING true",
                account_id,
                list_id,
                *(changes[name] for name in columns),
            )
    except asyncpg.UniqueViolationError:
        raise ListExists(await find_list(conn, account_id, changes["name"])) from None
    return changed is not None


async def delete_list(conn: Connection, account_id: int, list_id: int) -> None:
    """Takes everybody off the list and hides it. Raises ListNotFound, and ListInUse where a campaign needs it."""
    in_use = await conn.fetchval(
        """SELECT EXISTS (SELECT FROM campaigns c WHERE c.account_id = l.account_id AND (
             (c.list_id = l.id AND c.status IN ('scheduled', 'queued', 'sending', 'paused'))
             -- Also a draft: with nobody on it, a list that it leaves out would leave out nobody.
             OR (c.status IN ('draft', 'scheduled', 'queued', 'sending', 'paused')
                 AND jsonb_path_exists(c.audience, '$.**.lists[*] ? (@ == $id)', jsonb_build_object('id', l.id)))))
           FROM lists l WHERE l.account_id = $1 AND l.id = $2 AND l.deleted_at IS NULL FOR UPDATE""",
        account_id,
        list_id,
    )
    if in_use is None:
        raise ListNotFound
    if in_use:
        raise ListInUse
    await conn.execute(
        """WITH gone AS (DELETE FROM list_members WHERE account_id = $1 AND list_id = $2)
           UPDATE lists SET deleted_at = now() WHERE account_id = $1 AND id = $2""",
        account_id,
        list_id,
    )


async def find_list(conn: Connection, account_id: int, name: str) -> int:
    """Raises ListNotFound."""
    list_id: int | None = await conn.fetchval(
        "SELECT id FROM lists WHERE account_id = $1 AND name = $2 AND deleted_at IS NULL", account_id, name
    )
    if list_id is None:
        raise ListNotFound
    return list_id


async def read_list(conn: Connection, account_id: int, list_id: int) -> ContactList:
    """Raises ListNotFound."""
    row = await conn.fetchrow(
        f"{_LISTS} WHERE l.id = $1 AND l.account_id = $2 AND l.deleted_at IS NULL", list_id, account_id
    )
    if row is None:
        raise ListNotFound
    return _list(row)


async def read_rule(conn: Connection, account_id: int, list_id: int) -> ListRule:
    """How one joins the list. Raises ListNotFound: foreign keys do not know tenants."""
    row = await conn.fetchrow(
        "SELECT id, name, double_opt_in FROM lists WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL",
        list_id,
        account_id,
    )
    if row is None:
        raise ListNotFound
    return ListRule(**row)


async def list_name(conn: Connection, account_id: int, list_id: int) -> str | None:
    """The list's name, without counting; None where there is no such list."""
    name: str | None = await conn.fetchval(
        "SELECT name FROM lists WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL", list_id, account_id
    )
    return name


async def read_lists(
    conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None
) -> list[ContactList]:
    """Newest first; `after_id` goes on behind that list, else `offset` skips."""
    rows = await conn.fetch(
        f"""{_LISTS} WHERE l.account_id = $1 AND l.deleted_at IS NULL AND ($4::bigint IS NULL OR l.id < $4)
            ORDER BY l.id DESC LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
        after_id,
    )
    return [_list(row) for row in rows]


async def count_lists(conn: Connection, account_id: int) -> int:
    """All of the account's."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM lists WHERE account_id = $1 AND deleted_at IS NULL", account_id
    )
    return count


async def count_members(conn: Connection, account_id: int, list_id: int) -> int:
    """Who is subscribed to the list."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM list_members WHERE list_id = $2 AND account_id = $1 AND status = 'subscribed'",
        account_id,
        list_id,
    )
    return count
