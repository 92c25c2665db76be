"""Every statement on domains."""

from collections.abc import Sequence
from typing import Any

from mailrail.db.pool import Connection
from mailrail.domains.model import Domain, DomainNotFound, DomainStatus

_COLUMNS = "id, account_id, domain, status, created_at, verified_at"


def _domain(row: Any) -> Domain:
    return Domain(**{**row, "status": DomainStatus(row["status"])})


async def insert_domain(conn: Connection, account_id: int, domain: str) -> Domain | None:
    """None where the account has it already."""
    row = await conn.fetchrow(
        f"INSERT INTO domains (account_id, domain) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
        account_id,
        domain,
    )
    return None if row is None else _domain(row)


async def read_domain(conn: Connection, account_id: int, domain_id: int) -> Domain:
    """Raises DomainNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM domains WHERE id = $1 AND account_id = $2", domain_id, account_id
    )
    if row is None:
        raise DomainNotFound
    return _domain(row)


async def read_domain_by_name(conn: Connection, account_id: int, domain: str) -> Domain:
    """Raises DomainNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM domains WHERE domain = $1 AND account_id = $2", domain, account_id
    )
    if row is None:
        raise DomainNotFound
    return _domain(row)


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


async def set_status(conn: Connection, account_id: int, domain_id: int, status: DomainStatus) -> Domain:
    """Notes what SES said; the time is that of the first verification in a row. Raises DomainNotFound."""
    row = await conn.fetchrow(
        f"""UPDATE domains SET status = $3,
              verified_at = CASE WHEN $3 = 'verified' THEN coalesce(verified_at, now()) END
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        domain_id,
        account_id,
        status,
    )
    if row is None:
        raise DomainNotFound
    return _domain(row)


async def delete_domain(conn: Connection, account_id: int, domain_id: int) -> None:
    """Raises DomainNotFound."""
    gone = await conn.fetchval(
        "DELETE FROM domains WHERE id = $1 AND account_id = $2 RETURNING id", domain_id, account_id
    )
    if gone is None:
        raise DomainNotFound


async def any_verified(conn: Connection, account_id: int, domains: Sequence[str]) -> bool:
    """Whether one of the names is a verified domain of the account."""
    found: bool = await conn.fetchval(
        """SELECT EXISTS (SELECT FROM domains
                          WHERE account_id = $1 AND domain = ANY($2::text[]) AND status = 'verified')""",
        account_id,
        list(domains),
    )
    return found


async def first_verified(conn: Connection, account_id: int) -> str | None:
    """The account's oldest verified domain."""
    domain: str | None = await conn.fetchval(
        "SELECT domain FROM domains WHERE account_id = $1 AND status = 'verified' ORDER BY id LIMIT 1", account_id
    )
    return domain
