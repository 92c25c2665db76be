"""Every statement on domains."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mailrail.db.pool import Connection
from mailrail.domains.model import Domain, DomainNotFound, DomainStatus, Report

_COLUMNS = (
    "id, account_id, domain, status, created_at, verified_at, mail_from, needs_proof, watched_since, checked_at, report,"
    " track_opens, track_clicks"
)


def _domain(row: Any) -> Domain:
    report = None if row["report"] is None else msgspec.convert(row["report"], Report)
    return Domain(**{**row, "status": DomainStatus(row["status"]), "report": report})


def _found(row: Any) -> Domain:
    if row is None:
        raise DomainNotFound
    return _domain(row)


async def insert_domain(conn: Connection, account_id: int, domain: str, mail_from: str | None) -> Domain | None:
    """None where the account has it already."""
    row = await conn.fetchrow(
        f"""INSERT INTO domains (account_id, domain, mail_from, next_check_at)
            VALUES ($1, $2, $3, now() + interval '1 minute') ON CONFLICT DO NOTHING RETURNING {_COLUMNS}""",
        account_id,
        domain,
        mail_from,
    )
    return None if row is None else _domain(row)


async def read_domain(conn: Connection, account_id: int, domain_id: int) -> Domain:
    """Raises DomainNotFound."""
    return _found(
        await conn.fetchrow(f"SELECT {_COLUMNS} FROM domains WHERE id = $1 AND account_id = $2", domain_id, account_id)
    )


async def lock_domain(conn: Connection, account_id: int, domain_id: int) -> Domain:
    """As it is now, and until the transaction ends. Raises DomainNotFound."""
    return _found(
        await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM domains WHERE id = $1 AND account_id = $2 FOR UPDATE", domain_id, account_id
        )
    )


async def read_domain_by_name(conn: Connection, account_id: int, domain: str) -> Domain:
    """Raises DomainNotFound."""
    return _found(
        await conn.fetchrow(f"SELECT {_COLUMNS} FROM domains WHERE domain = $1 AND account_id = $2", domain, account_id)
    )


async def read_page(conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None) -> list[Domain]:
    """Newest first; `after_id` goes on behind that domain, else `offset` skips."""
    rows = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM domains WHERE account_id = $1 AND ($4::bigint IS NULL OR id < $4)
            ORDER BY id DESC LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
        after_id,
    )
    return [_domain(row) for row in rows]


async def count_domains(conn: Connection, account_id: int) -> int:
    """All of the account's, in whatever state."""
    count: int = await conn.fetchval("SELECT count(*) FROM domains WHERE account_id = $1", account_id)
    return count


async def require_proof(conn: Connection, account_id: int, domain_id: int) -> Domain:
    """From now on DKIM alone does not verify it. Raises DomainNotFound."""
    return _found(
        await conn.fetchrow(
            f"UPDATE domains SET needs_proof = true WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}",
            domain_id,
            account_id,
        )
    )


async def set_mail_from(conn: Connection, account_id: int, domain_id: int, mail_from: str | None) -> Domain:
    """What its owner wishes. Raises DomainNotFound."""
    return _found(
        await conn.fetchrow(
            f"UPDATE domains SET mail_from = $3 WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}",
            domain_id,
            account_id,
            mail_from,
        )
    )


async def set_tracking(
    conn: Connection, account_id: int, domain_id: int, opens: bool | None, clicks: bool | None
) -> Domain:
    """What may be known of mail from it; None leaves as it is. Raises DomainNotFound."""
    return _found(
        await conn.fetchrow(
            f"""UPDATE domains SET track_opens = coalesce($3, track_opens), track_clicks = coalesce($4, track_clicks)
                WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
            domain_id,
            account_id,
            opens,
            clicks,
        )
    )


async def note_check(
    conn: Connection,
    account_id: int,
    domain_id: int,
    status: DomainStatus,
    report: Report,
    pause_s: float,
    *,
    is_asked: bool,
) -> Domain:
    """Writes down what was seen; the time is that of the first verification in a row. What somebody asks for, or was lost, is
    watched anew. Raises DomainNotFound.
    """
    return _found(
        await conn.fetchrow(
            f"""UPDATE domains SET status = $3, report = $4, checked_at = now(),
                  next_check_at = now() + make_interval(secs => $5),
                  verified_at = CASE WHEN $3 = 'verified' THEN coalesce(verified_at, now()) END,
                  watched_since = CASE WHEN $6 OR (status = 'verified' AND $3 <> 'verified') THEN now()
                                       ELSE watched_since END
                WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
            domain_id,
            account_id,
            status,
            msgspec.to_builtins(report),
            pause_s,
            is_asked,
        )
    )


async def take_due(conn: Connection, limit: int, lease_s: float) -> list[Domain]:
    """Domains of all accounts whose time has come, which no other worker looks at until then."""
    rows = await conn.fetch(
        f"""UPDATE domains SET next_check_at = now() + make_interval(secs => $2)
            WHERE id IN (SELECT id FROM domains WHERE next_check_at <= now()
                         ORDER BY next_check_at LIMIT $1 FOR UPDATE SKIP LOCKED)
            RETURNING {_COLUMNS}""",
        limit,
        lease_s,
    )
    return [_domain(row) for row in rows]


async def delete_domain(conn: Connection, account_id: int, domain_id: int) -> None:
    """Raises DomainNotFound."""
    gone = await conn.fetchval(
        "DELETE FROM domains WHERE id = $1 AND account_id = $2 RETURNING id", domain_id, account_id
    )
    if gone is None:
        raise DomainNotFound


async def read_covering(conn: Connection, account_id: int, domains: Sequence[str]) -> Domain | None:
    """Of the verified domains of the account among the names the longest, for which SES signs."""
    row = await conn.fetchrow(
        f"""SELECT {_COLUMNS} FROM domains
            WHERE account_id = $1 AND domain = ANY($2::text[]) AND status = 'verified'
            ORDER BY length(domain) DESC LIMIT 1""",
        account_id,
        list(domains),
    )
    return None if row is None else _domain(row)


async def any_verified(conn: Connection, account_id: int, domains: Sequence[str]) -> bool:
    """Whether one of the names is a verified domain of the account."""
    found: bool = await conn.fetchval(
        """SELECT EXISTS (SELECT FROM domains
                          WHERE account_id = $1 AND domain = ANY($2::text[]) AND status = 'verified')""",
        account_id,
        list(domains),
    )
    return found


async def any_verified_domain(conn: Connection) -> str | None:
    """A domain of the installation from which SES sends, whoever's it is; for the workers' role."""
    domain: str | None = await conn.fetchval("SELECT domain FROM domains WHERE status = 'verified' ORDER BY id LIMIT 1")
    return domain


async def first_verified(conn: Connection, account_id: int) -> str | None:
    """The account's oldest verified domain."""
    domain: str | None = await conn.fetchval(
        "SELECT domain FROM domains WHERE account_id = $1 AND status = 'verified' ORDER BY id LIMIT 1", account_id
    )
    return domain
