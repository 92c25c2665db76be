"""The fourth part of the store of campaigns: the mode in which each is sent, the canaries that decide it, and what undoes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailrail.campaigns.delivery import Canary, Delivery, Mode
from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.model import Outcome


@dataclass(frozen=True, slots=True)
class Due:
    """A campaign whose canaries this worker is to send; `sent` are those that another one has made and not sent."""

    stream_id: int
    content: str
    identity: str
    sample: dict[str, Any]
    sent: list[int]


@dataclass(frozen=True, slots=True)
class Awaited:
    """The canaries of a campaign that waits for them; `is_over` says that nobody is left who could be sent by slots."""

    stream_id: int
    canaries: list[Canary]
    is_overdue: bool
    is_over: bool


async def read_mode(conn: Connection, stream_id: int) -> tuple[Mode | None, bool]:
    """The campaign's mode, None where its stream alone says it, and whether that may still change."""
    row = await conn.fetchrow("SELECT wire_mode, awaits_canary FROM campaigns WHERE stream_id = $1", stream_id)
    if row is None or row["wire_mode"] is None:
        return None, False
    return Mode(row["wire_mode"]), row["awaits_canary"]


async def take_due(conn: Connection, lease_s: float) -> Due | None:
    """The next campaign that waits for canaries which nobody is sending, in the caller's transaction, which keeps others away
    until they are noted. A worker that fell silent has had its time, and another one sends the same canaries.
    """
    row = await conn.fetchrow(
        """SELECT c.stream_id, t.content, t.identity,
             coalesce((SELECT k.custom_fields FROM audience a JOIN contacts k ON k.id = a.contact_id
                       WHERE a.stream_id = c.stream_id AND k.account_id = c.account_id AND a.seq <= 100
                         AND k.custom_fields <> '{}' ORDER BY a.seq LIMIT 1), '{}') AS sample
           FROM campaigns c JOIN streams t USING (stream_id)
           WHERE c.awaits_canary AND c.status IN ('queued', 'sending')
             AND NOT EXISTS (SELECT FROM canaries k WHERE k.stream_id = c.stream_id AND k.taken_until > clock_timestamp())
             AND (NOT EXISTS (SELECT FROM canaries k WHERE k.stream_id = c.stream_id)
                  OR EXISTS (SELECT FROM canaries k WHERE k.stream_id = c.stream_id AND k.outcome IS NULL))
             AND EXISTS (SELECT FROM installation WHERE held_at IS NULL)
           ORDER BY c.id LIMIT 1 FOR UPDATE OF c SKIP LOCKED"""
    )
    if row is None:
        return None
    taken = await conn.fetch(
        """UPDATE canaries SET taken_until = clock_timestamp() + make_interval(secs => $2)
           WHERE stream_id = $1 AND outcome IS NULL RETURNING id""",
        row["stream_id"],
        lease_s,
    )
    return Due(**row, sent=[canary["id"] for canary in taken])


async def insert_canaries(
    conn: Connection, stream_id: int, configuration_set: str | None, contacts: Sequence[dict[str, Any]], lease_s: float
) -> list[int]:
    """Notes canaries that are about to be sent; returns their numbers, which their tags carry as seq."""
    rows = await conn.fetch(
        """INSERT INTO canaries (configuration_set, stream_id, contact, taken_until)
           SELECT coalesce($2::text, ''), $1, contact, clock_timestamp() + make_interval(secs => $4)
           FROM unnest($3::jsonb[]) AS contact RETURNING id""",
        stream_id,
        configuration_set,
        list(contacts),
        lease_s,
    )
    return [row["id"] for row in rows]


async def read_contact(conn: Connection, number: int) -> dict[str, Any]:
    """Whom a canary is for, as it was noted."""
    row = await fetch_one(conn, "SELECT contact FROM canaries WHERE id = $1", number)
    contact: dict[str, Any] = row["contact"]
    return contact


async def write_outcome(conn: Connection, number: int, outcome: Outcome, error: str | None) -> None:
    """What became of a canary's call."""
    await conn.execute("UPDATE canaries SET outcome = $2, error = $3 WHERE id = $1", number, int(outcome), error)


async def put_off(conn: Connection, stream_id: int, pause_s: float) -> None:
    """Nothing was sent: whoever comes after the pause may try."""
    await conn.execute(
        """UPDATE canaries SET taken_until = clock_timestamp() + make_interval(secs => $2)
           WHERE stream_id = $1 AND outcome IS NULL""",
        stream_id,
        pause_s,
    )


async def read_awaited(conn: Connection, patience_s: float) -> list[Awaited]:
    """All campaigns that wait for canaries that were sent, or that are over by now."""
    rows = await conn.fetch(
        """SELECT c.stream_id, c.status IN ('completed', 'cancelled') AS is_over, bool_or(k.id IS NOT NULL) AS is_sent,
             coalesce(max(k.sent_at) <= clock_timestamp() - make_interval(secs => $1), false) AS is_overdue,
             array_agg(k.outcome ORDER BY k.id) AS outcomes, array_agg(k.error ORDER BY k.id) AS errors,
             array_agg(k.delivered_at IS NOT NULL ORDER BY k.id) AS delivered, array_agg(k.failure ORDER BY k.id) AS failures
           FROM campaigns c LEFT JOIN canaries k USING (stream_id) WHERE c.awaits_canary GROUP BY c.id""",
        patience_s,
    )
    return [
        Awaited(row["stream_id"], _canaries(row) if row["is_sent"] else [], row["is_overdue"], row["is_over"])
        for row in rows
        if row["is_sent"] or row["is_over"]
    ]


def _canaries(row: Any) -> list[Canary]:
    facts = zip(row["outcomes"], row["errors"], row["delivered"], row["failures"], strict=True)
    return [
        Canary(None if outcome is None else Outcome(outcome), error, delivered, failure)
        for outcome, error, delivered, failure in facts
    ]


async def decide(conn: Connection, stream_id: int, delivery: Delivery) -> bool:
    """Writes the mode in which the campaign goes on; False where somebody has decided it before: the first word stands."""
    decided = await conn.fetchval(
        """UPDATE campaigns SET wire_mode = $2, wire_reason = $3, awaits_canary = false
           WHERE stream_id = $1 AND awaits_canary RETURNING id""",
        stream_id,
        delivery.mode,
        delivery.reason,
    )
    return decided is not None


async def add_rendering_failures(conn: Connection, stream_id: int, failures: int) -> tuple[int, int]:
    """Counts mails that SES could not render; (all of the campaign's, mails accepted so far), or zeros once it goes by simple,
    where what still comes in is of the time before.
    """
    row = await conn.fetchrow(
        """UPDATE campaigns SET rendering_failures = rendering_failures + $2
           WHERE stream_id = $1 AND wire_mode IS DISTINCT FROM 'simple' RETURNING rendering_failures""",
        stream_id,
        failures,
    )
    if row is None:
        return 0, 0
    accepted = await fetch_one(
        conn, "SELECT coalesce(sum(accepted), 0)::integer AS accepted FROM shards WHERE stream_id = $1", stream_id
    )
    return row["rendering_failures"], accepted["accepted"]


async def leave_slots(conn: Connection, stream_id: int, reason: str) -> None:
    """From now on each mail of the campaign goes whole, whatever a canary said."""
    await conn.execute(
        """UPDATE campaigns SET wire_mode = 'simple', wire_reason = $2, awaits_canary = false WHERE stream_id = $1""",
        stream_id,
        reason,
    )
