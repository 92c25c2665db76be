"""The sixth part of the store of emails: where one person is in the mail of an account, to show it and to take it out.

Erased is whatever names the person. What counts for money and for never-twice stays: numbers, states, times, and a keyed hash in
place of the address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mailrail.db.pool import Connection
from mailrail.emails.mail import ADDRESSES_MAX
from mailrail.emails.model import EventKind

REDACTED = "[erased]"
# A mail that says nothing, in the form that the core reads.
BLANK: Mapping[str, Any] = {
    "to": [],
    "cc": [],
    "bcc": [],
    "reply_to": [],
    "subject": "",
    "html": None,
    "text": "",
    "headers": {},
    "attachments": [],
    "links": [],
    "token": None,
    "mode": "simple",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """One copy of a mail that went, or is to go, to the person."""

    stream_id: int
    seq: int
    email: str


async def read_address(conn: Connection, account_id: int, stream_id: int, seq: int) -> str | None:
    """The address that one copy went to, unless it was erased."""
    email: str | None = await conn.fetchval(
        "SELECT email FROM audience WHERE account_id = $1 AND stream_id = $2 AND seq = $3 AND email_hash IS NULL",
        account_id,
        stream_id,
        seq,
    )
    return email


async def read_streams(conn: Connection, account_id: int, after_id: int, most: int) -> list[int]:
    """The account's streams behind one, in order."""
    rows = await conn.fetch(
        "SELECT stream_id FROM streams WHERE account_id = $1 AND stream_id > $2 ORDER BY stream_id LIMIT $3",
        account_id,
        after_id,
        most,
    )
    return [row["stream_id"] for row in rows]


async def find(
    conn: Connection, account_id: int, stream_ids: Sequence[int], contact_id: int, folded: str
) -> list[Trace]:
    """The person's copies in these streams: by the contact, whatever its address was, and by the address."""
    rows = await conn.fetch(
        """SELECT stream_id, seq, email FROM audience
           WHERE account_id = $1 AND stream_id = ANY($2::bigint[]) AND email <> '' AND (contact_id = $3 OR lower(email) = $4)
           ORDER BY stream_id, seq""",
        account_id,
        list(stream_ids),
        contact_id,
        folded,
    )
    return [Trace(**row) for row in rows]


async def erase(conn: Connection, account_id: int, traces: Sequence[Trace], hashes: Mapping[str, bytes]) -> None:
    """Takes the person out of these copies; `hashes` has one for each of the addresses in lower case."""
    stream_ids, seqs = [one.stream_id for one in traces], [one.seq for one in traces]
    await conn.execute(
        """UPDATE audience a SET email = '', email_hash = t.hash
           FROM unnest($1::bigint[], $2::integer[], $3::bytea[]) AS t(stream_id, seq, hash)
           WHERE a.stream_id = t.stream_id AND a.seq = t.seq""",
        stream_ids,
        seqs,
        [hashes[one.email.lower()] for one in traces],
    )
    # Servers quote the address when they say why they refuse it. The detail of a click is the number of its link.
    for statement in (
        """UPDATE results r SET error = NULL FROM unnest($1::bigint[], $2::integer[]) AS t(stream_id, seq)
           WHERE r.stream_id = t.stream_id AND r.seq = t.seq AND r.error IS NOT NULL""",
        f"""UPDATE events e SET detail = NULL FROM unnest($1::bigint[], $2::integer[]) AS t(stream_id, seq)
           WHERE e.stream_id = t.stream_id AND e.seq = t.seq AND e.detail IS NOT NULL AND e.kind <> {EventKind.CLICK}""",
        """UPDATE recipient_state r SET reason = NULL FROM unnest($1::bigint[], $2::integer[]) AS t(stream_id, seq)
           WHERE r.stream_id = t.stream_id AND r.seq = t.seq AND r.reason IS NOT NULL""",
        """UPDATE mails m SET email_folded = '' FROM unnest($1::bigint[], $2::integer[]) AS t(stream_id, seq)
           WHERE m.stream_id = t.stream_id AND m.seq = t.seq""",
    ):
        await conn.execute(statement, stream_ids, seqs)
    await _erase_contents(conn, stream_ids, seqs, {one.email for one in traces})


async def _erase_contents(
    conn: Connection, stream_ids: Sequence[int], seqs: Sequence[int], addresses: Iterable[str]
) -> None:
    """What the mails said: all of it where the person was the only one left, else what names the address, since others may
    still get theirs.
    """
    rows = await conn.fetch(
        f"""SELECT DISTINCT ON (f.stream_id, f.seq) f.stream_id, f.seq, f.sender, f.subject, f.tags, f.content,
              EXISTS (SELECT FROM mails o WHERE o.stream_id = f.stream_id AND o.first_seq = f.seq
                      AND o.seq BETWEEN f.seq AND f.seq + {ADDRESSES_MAX - 1} AND o.email_folded <> '') AS has_others
            FROM unnest($1::bigint[], $2::integer[]) AS t(stream_id, seq)
            JOIN mails m ON m.stream_id = t.stream_id AND m.seq = t.seq
            JOIN mails f ON f.stream_id = m.stream_id AND f.seq = m.first_seq
            ORDER BY f.stream_id, f.seq""",
        list(stream_ids),
        list(seqs),
    )
    for row in rows:
        if row["has_others"]:
            subject, tags = _redacted(row["subject"], addresses), [_redacted(tag, addresses) for tag in row["tags"]]
            content = redacted_content(row["content"], addresses)
        else:
            subject, tags = "", []
            content = orjson.dumps({"from": {"name": None, "email": row["sender"]}, **BLANK})
        await conn.execute(
            "UPDATE mails SET subject = $3, tags = $4, content = $5 WHERE stream_id = $1 AND seq = $2",
            row["stream_id"],
            row["seq"],
            subject,
            tags,
            content,
        )
        await _erase_links(conn, row, addresses)


async def _erase_links(conn: Connection, row: Any, addresses: Iterable[str]) -> None:
    """Links of a mail to one person alone are his; of a mail to several, those that name him."""
    if not row["has_others"]:
        await conn.execute(
            "DELETE FROM mail_links WHERE stream_id = $1 AND first_seq = $2", row["stream_id"], row["seq"]
        )
        return
    urls = await conn.fetchval(
        "SELECT urls FROM mail_links WHERE stream_id = $1 AND first_seq = $2", row["stream_id"], row["seq"]
    )
    if urls:
        await conn.execute(
            "UPDATE mail_links SET urls = $3 WHERE stream_id = $1 AND first_seq = $2",
            row["stream_id"],
            row["seq"],
            [_redacted(url, addresses) for url in urls],
        )


def redacted_content(content: bytes, addresses: Iterable[str]) -> bytes:
    """A stored mail without the addresses, in its header and wherever its text names them."""
    folded = {address.lower() for address in addresses}
    mail = orjson.loads(content)
    for role in ("to", "cc", "bcc", "reply_to"):
        mail[role] = [box for box in mail[role] if box["email"].lower() not in folded]
    for part in ("subject", "html", "text"):
        if mail[part]:
            mail[part] = _redacted(mail[part], folded)
    mail["headers"] = {name: _redacted(value, folded) for name, value in mail["headers"].items()}
    mail["links"] = [_redacted(url, folded) for url in mail["links"]]
    return orjson.dumps(mail)


def _redacted(text: str, addresses: Iterable[str]) -> str:
    for address in addresses:
        while (at := text.lower().find(address.lower())) >= 0:
            text = text[:at] + REDACTED + text[at + len(address) :]
    return text


async def find_mails(conn: Connection, account_id: int, contact_id: int, folded: str, most: int) -> list[Any]:
    """Rows like those of `mails.read_page`, newest first, of the person's copies alone; `first_seq` names the whole mail."""
    return await conn.fetch(
        """WITH own AS (
             SELECT m.stream_id, m.seq, m.first_seq FROM mails m WHERE m.account_id = $1 AND m.email_folded = $3
             UNION
             SELECT a.stream_id, a.seq, a.seq FROM audience a WHERE a.account_id = $1 AND a.contact_id = $2
           )
           SELECT o.stream_id, o.seq, o.seq AS last_seq, o.first_seq, coalesce(f.created_at, c.sent_at, t.created_at) AS created_at,
             f.scheduled_at, coalesce(f.sender, t.identity::jsonb ->> 'from_email') AS sender,
             coalesce(f.subject, c.subject) AS subject, coalesce(f.tags, '{}') AS tags, t.is_test, t.campaign_id
           FROM own o JOIN streams t USING (stream_id)
           LEFT JOIN mails f ON f.stream_id = o.stream_id AND f.seq = o.first_seq
           LEFT JOIN campaigns c ON c.id = t.campaign_id
           ORDER BY o.stream_id DESC, o.seq DESC LIMIT $4""",
        account_id,
        contact_id,
        folded,
        most,
    )
