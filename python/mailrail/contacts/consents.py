"""The third part of the store of contacts: what people said of getting mail. Rows are only added."""

from collections.abc import Sequence
from datetime import datetime

from mailrail.contacts.consent import Consent, ConsentEntry
from mailrail.contacts.model import ContactStatus
from mailrail.db.pool import Connection


async def record(
    conn: Connection,
    account_id: int,
    contact_ids: Sequence[int],
    list_id: int | None,
    status: ContactStatus,
    consent: Consent,
    source: str,
) -> None:
    """Adds a line for each contact; `source` stands where the consent names none, and now where it names no time."""
    if not contact_ids:
        return
    wording_id = None if consent.wording is None else await wording(conn, account_id, consent.wording)
    await conn.execute(
        """INSERT INTO consents (account_id, contact_id, list_id, status, source, ip, wording_id, at)
           SELECT $1, contact_id, $3, $4, $5, $6, $7, coalesce($8, now()) FROM unnest($2::bigint[]) AS contact_id""",
        account_id,
        list(contact_ids),
        list_id,
        status,
        consent.source or source,
        consent.ip,
        wording_id,
        consent.at,
    )


async def wording(conn: Connection, account_id: int, text: str) -> int:
    """The number of a wording; most are known."""
    found: int | None = await conn.fetchval(
        "SELECT id FROM consent_wordings WHERE account_id = $1 AND md5(wording) = md5($2)", account_id, text
    )
    if found is None:
        found = await conn.fetchval(
            """INSERT INTO consent_wordings (account_id, wording) VALUES ($1, $2)
               ON CONFLICT (account_id, md5(wording)) DO NOTHING RETURNING id""",
            account_id,
            text,
        )
    # Somebody else's is committed by now, and seen by the next statement.
    return found if found is not None else await wording(conn, account_id, text)


async def withdrawn_at(conn: Connection, account_id: int, contact_id: int, list_id: int | None) -> datetime | None:
    """When the person last left all mail, or the list if one is named; None where nobody wrote it down."""
    at: datetime | None = await conn.fetchval(
        """SELECT max(at) FROM consents_of($1, $2) WHERE status = 'unsubscribed'
             AND (list_id IS NULL OR list_id = $3)""",
        account_id,
        contact_id,
        list_id,
    )
    return at


async def read_page(
    conn: Connection, account_id: int, contact_id: int, limit: int, offset: int, after_id: int | None
) -> list[ConsentEntry]:
    """A contact's history, newest first; `after_id` goes on behind that line, else `offset` skips."""
    rows = await conn.fetch(
        """SELECT c.id, c.list_id, l.name AS list_name, c.status, c.source, c.ip, w.wording, c.import_id, c.at, c.recorded_at
           FROM consents_of($1, $2) c LEFT JOIN lists l ON l.id = c.list_id AND l.account_id = c.account_id
           LEFT JOIN consent_wordings w ON w.id = c.wording_id AND w.account_id = c.account_id
           WHERE $5::bigint IS NULL OR c.id < $5
           ORDER BY c.id DESC LIMIT $3 OFFSET $4""",
        account_id,
        contact_id,
        limit,
        offset,
        after_id,
    )
    return [ConsentEntry(**row) for row in rows]


async def count(conn: Connection, account_id: int, contact_id: int) -> int:
    """Lines of a contact's history."""
    found: int = await conn.fetchval("SELECT count(*) FROM consents_of($1, $2)", account_id, contact_id)
    return found
