"""The second part of the store of contacts: who is on which list, and who is to be asked about it."""

from collections.abc import Sequence

from mailrail.contacts.model import ContactStatus, ListRule, Membership, Offer
from mailrail.db.pool import Connection

# Lists that one page offers.
OFFERS_MAX = 200
# How often a person is asked about one list at most, and how long there is nothing in between.
ASKED_MAX = 3
ASKED_EVERY = "interval '1 day'"


async def find_contacts(
    conn: Connection, account_id: int, contact_ids: Sequence[int], emails: Sequence[str]
) -> dict[int, int]:
    """Those of the account's contacts that are named, in the order of their numbers: number → how often."""
    rows = await conn.fetch(
        """SELECT id, count(*)::integer AS named FROM (
             SELECT id FROM contacts WHERE account_id = $1 AND id = ANY($2::bigint[])
             UNION ALL
             SELECT c.id FROM (SELECT DISTINCT lower(e) AS folded FROM unnest($3::text[]) e) e
             JOIN contacts c ON c.account_id = $1 AND c.email_folded = e.folded) found
           GROUP BY id ORDER BY id""",
        account_id,
        list(contact_ids),
        list(emails),
    )
    return {row["id"]: row["named"] for row in rows}


async def insert_members(conn: Connection, account_id: int, rule: ListRule, contact_ids: Sequence[int]) -> list[int]:
    """Puts contacts on a list; who is or was on it stays as he is. The numbers of those who were added."""
    rows = await conn.fetch(
        """INSERT INTO list_members (list_id, contact_id, account_id, status)
           SELECT $2, c.id, $1, $4 FROM contacts c WHERE c.account_id = $1 AND c.id = ANY($3::bigint[]) ORDER BY c.id
           ON CONFLICT DO NOTHING RETURNING contact_id""",
        account_id,
        rule.id,
        list(contact_ids),
        rule.joins_as,
    )
    return [row["contact_id"] for row in rows]


async def find_absent(conn: Connection, account_id: int, list_id: int, contact_ids: Sequence[int]) -> list[int]:
    """Those who left the list, or all mail."""
    rows = await conn.fetch(
        """SELECT c.id FROM contacts c LEFT JOIN list_members m ON m.contact_id = c.id AND m.list_id = $2
           WHERE c.account_id = $1 AND c.id = ANY($3::bigint[])
             AND (m.status = 'unsubscribed' OR c.status = 'unsubscribed') ORDER BY c.id""",
        account_id,
        list_id,
        list(contact_ids),
    )
    return [row["id"] for row in rows]


async def set_membership(
    conn: Connection, account_id: int, list_id: int, contact_id: int, status: ContactStatus
) -> bool:
    """Writes a person's word on one list, also where he was taken off it: a later import must not sign him up again.

    Whether it changed anything.
    """
    changed = await conn.fetchval(
        """INSERT INTO list_members AS m (list_id, contact_id, account_id, status)
           SELECT $2, c.id, $1, $4 FROM contacts c WHERE c.id = $3 AND c.account_id = $1
           ON CONFLICT (list_id, contact_id) DO UPDATE SET status = excluded.status, confirm_due_at = NULL,
             confirm_sends = CASE excluded.status WHEN 'pending' THEN m.confirm_sends ELSE 0 END,
             subscribed_at = CASE excluded.status WHEN 'subscribed' THEN now() ELSE m.subscribed_at END
           WHERE m.status <> excluded.status
           RETURNING true""",
        account_id,
        list_id,
        contact_id,
        status,
    )
    return changed is not None


async def membership(conn: Connection, account_id: int, list_id: int, contact_id: int) -> ContactStatus | None:
    """Where the contact stands with the list; None if never on it. Locked, since whoever asks is about to change it."""
    status: str | None = await conn.fetchval(
        "SELECT status FROM list_members WHERE account_id = $1 AND list_id = $2 AND contact_id = $3 FOR UPDATE",
        account_id,
        list_id,
        contact_id,
    )
    return None if status is None else ContactStatus(status)


async def delete_member(conn: Connection, account_id: int, list_id: int, contact_id: int) -> bool:
    """Takes a contact off a list; who unsubscribed from it stays on record as such. False where he was not on it."""
    gone = await conn.fetchval(
        """DELETE FROM list_members WHERE account_id = $1 AND list_id = $2 AND contact_id = $3
             AND status <> 'unsubscribed' RETURNING true""",
        account_id,
        list_id,
        contact_id,
    )
    return gone is not None


async def read_memberships(conn: Connection, account_id: int, contact_id: int) -> list[Membership]:
    """All lists that the contact is or was on."""
    rows = await conn.fetch(
        """SELECT m.list_id, l.name AS list_name, m.status, m.subscribed_at
           FROM list_members m JOIN lists l ON l.id = m.list_id
           WHERE m.account_id = $1 AND m.contact_id = $2 ORDER BY m.list_id""",
        account_id,
        contact_id,
    )
    return [Membership(**{**row, "status": ContactStatus(row["status"])}) for row in rows]


async def read_offers(conn: Connection, account_id: int, contact_id: int) -> list[Offer]:
    """The lists that are the contact's to choose, by name: those that he is or was on, and public ones."""
    rows = await conn.fetch(
        """SELECT l.id AS list_id, l.name, m.status
           FROM lists l LEFT JOIN list_members m ON m.list_id = l.id AND m.contact_id = $2
           WHERE l.account_id = $1 AND l.deleted_at IS NULL AND (l.is_public OR m.status IS NOT NULL)
           ORDER BY lower(l.name), l.id LIMIT $3""",
        account_id,
        contact_id,
        OFFERS_MAX,
    )
    return [Offer(row["list_id"], row["name"], row["status"] and ContactStatus(row["status"])) for row in rows]


# —— asking ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def ask(conn: Connection, account_id: int, list_id: int, contact_ids: Sequence[int]) -> int:
    """Has those be asked who are pending, can be reached and were not asked too often; at once, or a day after the last
    time. How many.
    """
    asked: int = await conn.fetchval(
        f"""WITH asked AS (
              UPDATE list_members m SET confirm_due_at = greatest(now(), m.confirm_sent_at + {ASKED_EVERY})
              FROM contacts c
              WHERE m.account_id = $1 AND m.list_id = $2 AND m.contact_id = ANY($3::bigint[]) AND m.status = 'pending'
                AND m.confirm_due_at IS NULL AND m.confirm_sends < $4
                AND c.id = m.contact_id AND c.status NOT IN ('bounced', 'complained')
              RETURNING 1)
            SELECT count(*) FROM asked""",
        account_id,
        list_id,
        list(contact_ids),
        ASKED_MAX,
    )
    return asked
