"""The second part of the store of suppressions: the copy of SES's own list, and what is to be taken off it. It belongs to the
installation and to no tenant; the functions of the owner are all that the API's role has of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailrail.db.pool import Connection, fetch_one
from mailrail.ses.control import Listed
from mailrail.suppressions.model import Suppression


@dataclass(frozen=True, slots=True)
class Copy:
    """How far the copy goes, when all of the list was walked through last, and what is wrong with it."""

    copied_until: datetime | None = None
    walked_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Lift:
    """An address that is to leave SES's list, with all the spellings under which it may be there."""

    email_folded: str
    spellings: list[str]
    attempts: int


@dataclass(frozen=True, slots=True)
class WaitingLift:
    """A lift as operators see it."""

    account_id: int
    asked_at: datetime
    attempts: int
    error: str | None


async def take_turn(conn: Connection) -> bool:
    """Whether nobody else is at SES's list; then it is the caller's until the connection goes back."""
    taken: bool = await conn.fetchval("SELECT pg_try_advisory_lock(hashtext('mailrail.ses_list'))")
    return taken


async def read_clock(conn: Connection) -> datetime:
    """The database's."""
    now: datetime = await conn.fetchval("SELECT clock_timestamp()")
    return now


async def read_copy(conn: Connection) -> Copy:
    """Where the copy stands."""
    row = await conn.fetchrow("SELECT copied_until, walked_at, error FROM ses_list_copies")
    return Copy() if row is None else Copy(**row)


async def write_copy(conn: Connection, copy: Copy) -> None:
    """Where the copy stands from now on."""
    await conn.execute(
        """INSERT INTO ses_list_copies (copied_until, walked_at, error) VALUES ($1, $2, $3)
           ON CONFLICT (singleton) DO UPDATE SET copied_until = excluded.copied_until, walked_at = excluded.walked_at,
             error = excluded.error""",
        copy.copied_until,
        copy.walked_at,
        copy.error,
    )


async def add(conn: Connection, entries: Sequence[Listed], begun: datetime) -> None:
    """What SES lists, as seen by the walk that began then, so that no jump of the clock during it makes an address unseen."""
    await conn.execute(
        """INSERT INTO ses_suppressions (email, reason, updated_at, seen_at)
           SELECT *, $4 FROM unnest($1::text[], $2::text[], $3::timestamptz[])
           ON CONFLICT (email) DO UPDATE SET reason = excluded.reason, updated_at = excluded.updated_at,
             seen_at = excluded.seen_at""",
        [one.email for one in entries],
        [one.reason for one in entries],
        [one.updated_at for one in entries],
        begun,
    )


async def drop_unseen(conn: Connection, since: datetime) -> int:
    """Forgets what a walk through the whole list that began then did not meet; returns how many."""
    status = await conn.execute("DELETE FROM ses_suppressions WHERE seen_at < $1", since)
    return int(status.rpartition(" ")[2])


async def count(conn: Connection) -> int:
    """How many addresses the copy has."""
    found: int = await conn.fetchval("SELECT count(*) FROM ses_suppressions")
    return found


# —— lifting ———————————————————————————————————————————————————————————————————————————————————————————————————————————


async def ask_lift(conn: Connection, lifted: Suppression, *, is_sure: bool) -> bool:
    """Has the address taken off SES's list; `is_sure` says that it is there, whatever the copy knows. Whether it was asked."""
    asked: bool = await conn.fetchval(
        "SELECT ask_ses_lift($1, $2, $3, $4, $5)",
        lifted.account_id,
        lifted.email,
        lifted.stream_id,
        lifted.seq,
        is_sure,
    )
    return asked


async def ask_lift_of_address(conn: Connection, account_id: int, folded: str) -> bool:
    """The same for an address that the tenant itself does not suppress. Whether it was asked."""
    asked: bool = await conn.fetchval("SELECT ask_ses_lift($1, $2, NULL, NULL, false)", account_id, folded)
    return asked


async def read_due_lift(conn: Connection) -> Lift | None:
    """The lift that waits longest; None when none is due."""
    row = await conn.fetchrow(
        """SELECT email_folded, attempts, ARRAY(
             SELECT l.email UNION SELECT l.email_folded
             UNION SELECT s.email FROM ses_suppressions s WHERE s.email_folded = l.email_folded) AS spellings
           FROM ses_lifts l WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 1"""
    )
    return None if row is None else Lift(**row)


async def end_lift(conn: Connection, lift: Lift) -> None:
    """SES has it no more."""
    await conn.execute(
        """WITH done AS (DELETE FROM ses_lifts WHERE email_folded = $1)
           DELETE FROM ses_suppressions WHERE email_folded = $1""",
        lift.email_folded,
    )


async def postpone_lift(conn: Connection, lift: Lift, pause: timedelta, error: str) -> None:
    """SES did not do it."""
    await conn.execute(
        """UPDATE ses_lifts SET attempts = attempts + 1, due_at = clock_timestamp() + $2::interval, error = $3
           WHERE email_folded = $1""",
        lift.email_folded,
        pause,
        error,
    )


async def read_waiting_lifts(conn: Connection, most: int) -> tuple[int, list[WaitingLift]]:
    """How many wait, and the oldest of them."""
    rows = await conn.fetch(
        "SELECT account_id, asked_at, attempts, error FROM ses_lifts ORDER BY asked_at LIMIT $1", most
    )
    total = (await fetch_one(conn, "SELECT count(*) FROM ses_lifts"))[0]
    return total, [WaitingLift(**row) for row in rows]
