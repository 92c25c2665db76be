"""The statements of double opt-in: who is to be asked, and that he was."""

from collections.abc import Sequence

from mailrail.confirmations.model import Due
from mailrail.db.pool import Connection


async def read_accounts(conn: Connection, most: int) -> list[int]:
    """Accounts with somebody to be asked now."""
    rows = await conn.fetch("SELECT DISTINCT account_id FROM list_members WHERE confirm_due_at <= now() LIMIT $1", most)
    return [row["account_id"] for row in rows]


async def lock_due(conn: Connection, account_id: int, most: int) -> list[Due]:
    """Those who are to be asked now, the longest waiting first. Another worker passes over them until the caller commits."""
    rows = await conn.fetch(
        """SELECT m.list_id, m.contact_id, c.email, l.name AS list_name, l.confirmation_subject AS subject,
             l.confirmation_wording AS wording, l.confirmation_name AS sender_name, l.confirmation_email AS sender_email
           FROM list_members m JOIN lists l ON l.id = m.list_id JOIN contacts c ON c.id = m.contact_id
           WHERE m.account_id = $1 AND m.confirm_due_at <= now() AND m.status = 'pending'
           ORDER BY m.confirm_due_at, m.list_id, m.contact_id LIMIT $2 FOR UPDATE OF m SKIP LOCKED""",
        account_id,
        most,
    )
    return [Due(**row) for row in rows]


async def note_asked(conn: Connection, account_id: int, asked: Sequence[Due]) -> None:
    """They are not asked again before somebody signs them up anew."""
    await conn.execute(
        """UPDATE list_members m SET confirm_due_at = NULL, confirm_sent_at = now(), confirm_sends = confirm_sends + 1
           FROM unnest($2::bigint[], $3::bigint[]) AS d(list_id, contact_id)
           WHERE m.account_id = $1 AND m.list_id = d.list_id AND m.contact_id = d.contact_id""",
        account_id,
        [one.list_id for one in asked],
        [one.contact_id for one in asked],
    )


async def postpone(conn: Connection, account_id: int, waiting: Sequence[Due], pause_s: float) -> None:
    """Leaves them for later."""
    await conn.execute(
        """UPDATE list_members m SET confirm_due_at = now() + make_interval(secs => $4)
           FROM unnest($2::bigint[], $3::bigint[]) AS d(list_id, contact_id)
           WHERE m.account_id = $1 AND m.list_id = d.list_id AND m.contact_id = d.contact_id""",
        account_id,
        [one.list_id for one in waiting],
        [one.contact_id for one in waiting],
        pause_s,
    )
