"""Every statement on campaigns and on what they freeze when they start."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mailrail.accounts.model import Tracking
from mailrail.bus.messages import ShardsReadyV1
from mailrail.campaigns.audience import from_columns, to_columns
from mailrail.campaigns.delivery import Delivery
from mailrail.campaigns.model import GROUPS, Campaign, CampaignDraft, CampaignNotFound, Progress, Status, Totals
from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.model import OPEN_STATES, Outcome, State

_COLUMNS = """id, account_id, name, subject, preheader, from_name, from_email, reply_to, html, text, list_id, tags,
audience, warnings, status, reason, stream_id, hold_id, audience_count, created_at, scheduled_at, sent_at, submitted_at,
completed_at, template_id, template_version, track_opens, track_clicks, wire_mode, wire_reason"""


def _campaign(row: Any) -> Campaign:
    values = dict(row)
    audience = from_columns(values.pop("list_id"), values.pop("tags"), values.pop("audience"))
    tracking = Tracking(values.pop("track_opens"), values.pop("track_clicks"))
    return Campaign(**{**values, "audience": audience, "tracking": tracking, "status": Status(row["status"])})


async def insert_campaign(conn: Connection, account_id: int, draft: CampaignDraft, warnings: list[str]) -> Campaign:
    """A new draft."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO campaigns (account_id, name, subject, preheader, from_name, from_email, reply_to, html, text,
              warnings, scheduled_at, template_id, template_version, list_id, tags, audience,
              track_opens, track_clicks)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) RETURNING {_COLUMNS}""",
        account_id,
        *_values(draft, warnings),
    )
    return _campaign(row)


async def update_campaign(conn: Connection, campaign: Campaign, draft: CampaignDraft, warnings: list[str]) -> Campaign:
    """Writes all that a user chooses; the caller has locked the campaign."""
    row = await fetch_one(
        conn,
        f"""UPDATE campaigns SET name = $3, subject = $4, preheader = $5, from_name = $6, from_email = $7, reply_to = $8,
              html = $9, text = $10, warnings = $11, scheduled_at = $12, template_id = $13, template_version = $14, list_id = $15,
              tags = $16, audience = $17, track_opens = $18, track_clicks = $19
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        campaign.id,
        campaign.account_id,
        *_values(draft, warnings),
    )
    return _campaign(row)


async def delete_campaign(conn: Connection, campaign: Campaign) -> None:
    """One that was never sent, and that the caller has locked."""
    await conn.execute("DELETE FROM campaigns WHERE id = $1 AND account_id = $2", campaign.id, campaign.account_id)


def _values(draft: CampaignDraft, warnings: list[str]) -> tuple[Any, ...]:
    """In the order of the two statements above."""
    return (
        draft.name,
        draft.subject,
        draft.preheader,
        draft.from_name,
        draft.from_email,
        draft.reply_to,
        draft.html,
        draft.text,
        warnings,
        draft.scheduled_at,
        *(draft.copied_from or (None, None)),
        *to_columns(draft.audience),
        draft.tracking.opens,
        draft.tracking.clicks,
    )


async def read_campaign(conn: Connection, account_id: int, campaign_id: int, *, lock: bool = False) -> Campaign:
    """Raises CampaignNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM campaigns WHERE id = $1 AND account_id = $2 {'FOR UPDATE' if lock else ''}",
        campaign_id,
        account_id,
    )
    if row is None:
        raise CampaignNotFound
    return _campaign(row)


async def read_page(conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None) -> list[Campaign]:
    """Newest first; `after_id` goes on behind that campaign, else `offset` skips."""
    rows = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM campaigns WHERE account_id = $1 AND ($4::bigint IS NULL OR id < $4)
            ORDER BY id DESC LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
        after_id,
    )
    return [_campaign(row) for row in rows]


async def count_campaigns(conn: Connection, account_id: int) -> int:
    """All of the account's."""
    count: int = await conn.fetchval("SELECT count(*) FROM campaigns WHERE account_id = $1", account_id)
    return count


async def new_stream_id(conn: Connection) -> int:
    """An id in this week's partition of campaigns."""
    stream_id: int = await conn.fetchval("SELECT new_stream_id(0)")
    return stream_id


async def insert_stream(
    conn: Connection,
    campaign: Campaign,
    stream_id: int,
    content: str,
    identity: str,
    shard_size: int,
    bounce_grace: timedelta,
) -> None:
    """What is sent, as it stays until the last retry."""
    await conn.execute(
        """INSERT INTO streams (stream_id, account_id, campaign_id, list_ids, list_id, content, identity, shard_size,
             bounce_grace)
           VALUES ($1, $2, $3, $4::bigint[], CASE WHEN cardinality($4::bigint[]) = 1 THEN ($4::bigint[])[1] END, $5, $6,
             $7, $8)""",
        stream_id,
        campaign.account_id,
        campaign.id,
        campaign.audience.lists,
        content,
        identity,
        shard_size,
        bounce_grace,
    )


async def insert_links(conn: Connection, account_id: int, stream_id: int, urls: Sequence[str]) -> None:
    """The targets of the stream's tracked links, n counted from 1."""
    await conn.execute(
        """INSERT INTO links (stream_id, n, account_id, url)
           SELECT $1, n, $2, url FROM unnest($3::text[]) WITH ORDINALITY AS link(url, n)""",
        stream_id,
        account_id,
        list(urls),
    )


async def insert_shards(conn: Connection, account_id: int, stream_id: int, recipients: int, shard_size: int) -> None:
    """Cuts recipients 1..n into shards that are awake, each with its fold."""
    await conn.execute(
        """WITH cut AS (
             SELECT shard, shard * $4 + 1 AS first_seq, least((shard + 1) * $4, $3) AS last_seq
             FROM generate_series(0, ($3 - 1) / $4) AS shard
           ), made AS (
             INSERT INTO shards (stream_id, shard, account_id, state, first_seq, last_seq, next_seq, wake_at)
             SELECT $1, shard, $2, 'sending', first_seq, last_seq, first_seq, now() FROM cut
           )
           INSERT INTO folds (stream_id, shard, account_id, open)
           SELECT $1, shard, $2, last_seq - first_seq + 1 FROM cut""",
        stream_id,
        account_id,
        recipients,
        shard_size,
    )


async def ring_shards(conn: Connection, stream_id: int) -> None:
    """Queues a doorbell per awake shard of the stream: each row is a `ShardsReadyV1`."""
    await conn.execute(
        """INSERT INTO outbox (topic, key, message)
           SELECT $2, stream_id || ':' || shard, jsonb_build_object('v', 1, 'stream_id', stream_id, 'shard', shard)
           FROM shards WHERE stream_id = $1 AND wake_at <= clock_timestamp() AND state = 'sending' ORDER BY shard""",
        stream_id,
        ShardsReadyV1.topic,
    )


async def start_campaign(
    conn: Connection, campaign: Campaign, stream_id: int, hold_id: int, audience_count: int, delivery: Delivery
) -> Campaign:
    """draft → queued; the other statuses that `decide` lets start likewise."""
    row = await fetch_one(
        conn,
        f"""UPDATE campaigns SET status = 'queued', reason = NULL, stream_id = $3, hold_id = $4, audience_count = $5,
              sent_at = now(), wire_mode = $6, wire_reason = $7, awaits_canary = $8
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        campaign.id,
        campaign.account_id,
        stream_id,
        hold_id,
        audience_count,
        delivery.mode,
        delivery.reason,
        delivery.awaits_canary,
    )
    return _campaign(row)


async def read_progress(conn: Connection, account_id: int, stream_id: int, recipients: int) -> Progress:
    """From counters alone: a few rows a shard, whatever the audience's size."""
    by_state = await count_states(conn, account_id, stream_id)
    live = await fetch_one(
        conn,
        """SELECT coalesce(sum(s.accepted), 0)::integer AS accepted, coalesce(sum(f.opened), 0)::integer AS opened,
             coalesce(sum(f.clicked), 0)::integer AS clicked, coalesce(sum(f.complained), 0)::integer AS complained,
             coalesce(sum(f.unsubscribed), 0)::integer AS unsubscribed,
             coalesce(sum(f.machine_opened), 0)::integer AS machine_opened,
             coalesce(sum(f.machine_clicked), 0)::integer AS machine_clicked
           FROM shards s JOIN folds f USING (stream_id, shard) WHERE s.stream_id = $1 AND s.account_id = $2""",
        stream_id,
        account_id,
    )

    def total(*states: State) -> int:
        return sum(by_state.get(state, 0) for state in states)

    closed = sum(n for state, n in by_state.items() if state not in OPEN_STATES)
    proven = total(State.ACCEPTED, State.EXPIRED, State.DELIVERED, State.REJECTED, *GROUPS["bounced"])
    return Progress(
        recipients=recipients,
        # Rounds report before the fold does; events may prove more than rounds could report.
        accepted=max(live["accepted"], proven),
        delivered=total(State.DELIVERED),
        bounced=total(*GROUPS["bounced"]),
        complained=live["complained"],
        opened=live["opened"],
        clicked=live["clicked"],
        unsubscribed=live["unsubscribed"],
        failed=total(*GROUPS["failed"]),
        skipped=total(*GROUPS["skipped"]),
        open=recipients - closed,
        machine_opened=live["machine_opened"],
        machine_clicked=live["machine_clicked"],
    )


async def read_totals(conn: Connection, account_id: int) -> Totals:
    """Counts over the account's campaigns; mail, of whatever kind, counts the recipients that SES accepted of what was begun
    since the first of the month (UTC), as each result batch adds them up in its shard.
    """
    row = await fetch_one(
        conn,
        """SELECT count(*) AS total, count(*) FILTER (WHERE status IN ('queued', 'sending')) AS sending,
             count(*) FILTER (WHERE status = 'completed') AS completed
           FROM campaigns WHERE account_id = $1""",
        account_id,
    )
    emails: int = await conn.fetchval(
        """SELECT coalesce(sum(s.accepted), 0) FROM streams t JOIN shards s USING (stream_id)
           WHERE t.account_id = $1 AND NOT t.is_test AND t.created_at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'""",
        account_id,
    )
    return Totals(row["total"], row["sending"], row["completed"], emails)


# —— steering: whoever changes a campaign locks it first, then its shards in their order, then their folds ——————————————


async def read_clock(conn: Connection) -> datetime:
    """The database's clock, by which alone schedules go."""
    now: datetime = await conn.fetchval("SELECT clock_timestamp()")
    return now


async def read_held_reason(conn: Connection) -> str | None:
    """Why nothing may be sent at the moment; None while all is well."""
    reason: str | None = await conn.fetchval(
        "SELECT coalesce(held_reason, 'no reason was noted') FROM installation WHERE held_at IS NOT NULL"
    )
    return reason


async def schedule_campaign(conn: Connection, campaign: Campaign, scheduled_at: datetime) -> Campaign:
    """draft → scheduled."""
    row = await fetch_one(
        conn,
        f"""UPDATE campaigns SET status = 'scheduled', reason = NULL, scheduled_at = $3
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        campaign.id,
        campaign.account_id,
        scheduled_at,
    )
    return _campaign(row)


async def set_status(conn: Connection, campaign: Campaign, status: Status, reason: str | None) -> Campaign:
    """Writes where the campaign, which the caller has locked, stands from now on, and why."""
    row = await fetch_one(
        conn,
        f"""UPDATE campaigns SET status = $3, reason = $4 WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        campaign.id,
        campaign.account_id,
        status,
        reason,
    )
    return _campaign(row)


async def set_shard_states(conn: Connection, stream_id: int, state: str) -> None:
    """Turns the shards' copies of the campaign's state to sending, paused or cancelled, in shard order; each worker's next
    claim sees it. Shards wake only with something to send.

    In the caller's transaction. The locks come first: a statement that waits for one does not see the permits that were
    written meanwhile, and would put the shard to sleep with them.
    """
    await conn.execute("SELECT FROM shards WHERE stream_id = $1 ORDER BY shard FOR UPDATE", stream_id)
    await conn.execute(
        """UPDATE shards s SET state = $2, epoch = s.epoch + 1,
             wake_at = CASE WHEN $2 <> 'sending' THEN NULL
                            WHEN s.next_seq <= s.last_seq THEN now()
                            ELSE (SELECT min(p.due_at) FROM permits p
                                  WHERE p.stream_id = $1 AND p.shard = s.shard AND p.claim_id IS NULL) END
           WHERE s.stream_id = $1 AND s.state <> $2""",
        stream_id,
        state,
    )


async def withdraw_permits(conn: Connection, stream_id: int) -> None:
    """Nobody gets a further attempt; the caller has stopped the shards, whose locks keep claims away."""
    await conn.execute("UPDATE permits SET claim_id = 0 WHERE stream_id = $1 AND claim_id IS NULL", stream_id)


async def refold(conn: Connection, stream_id: int) -> None:
    """Has every shard folded anew, and closed anew if nothing is open: the last one then completes the campaign."""
    await conn.execute("SELECT FROM folds WHERE stream_id = $1 ORDER BY shard FOR UPDATE", stream_id)
    await conn.execute(
        "UPDATE folds SET due_at = least(due_at, now()), closed_at = NULL WHERE stream_id = $1", stream_id
    )


async def lock_shards_with(conn: Connection, stream_id: int, states: Sequence[State]) -> None:
    """Locks the shards that have recipients in one of the states, then their folds: no claim and no fold of them is under
    way from here on, and the next statement sees what the last ones wrote.
    """
    for table in ("shards", "folds"):
        await conn.execute(
            f"""SELECT FROM {table} t WHERE t.stream_id = $1 AND EXISTS (
                  SELECT FROM state_counts c WHERE c.stream_id = $1 AND c.shard = t.shard AND c.state = ANY($2::smallint[]))
                ORDER BY t.shard FOR UPDATE""",
            stream_id,
            [int(state) for state in states],
        )


# Between its INSERT and the hold, in one transaction, a retry's permits name this hold, which does not exist.
_HOLD_TO_COME = 0


async def permit_retry(conn: Connection, stream_id: int, states: Sequence[State]) -> int:
    """One more attempt for everybody in the states; returns how many. Left out: who was accepted after the last fold, and
    who has a further attempt already.
    """
    status = await conn.execute(
        """INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at, hold_id)
           SELECT $1, r.seq, r.attempt + 1, r.account_id, r.shard, now(), $3
           FROM recipient_state r
           WHERE r.stream_id = $1 AND r.state = ANY($2::smallint[])
             AND NOT EXISTS (SELECT FROM permits p WHERE p.stream_id = $1 AND p.seq = r.seq AND p.attempt > r.attempt)
             AND NOT EXISTS (SELECT FROM events e WHERE e.stream_id = $1 AND e.seq = r.seq)
             AND NOT EXISTS (SELECT FROM results a WHERE a.stream_id = $1 AND a.seq = r.seq AND a.outcome = $4)
           ON CONFLICT DO NOTHING""",
        stream_id,
        [int(state) for state in states],
        _HOLD_TO_COME,
        int(Outcome.ACCEPTED),
    )
    return int(status.rpartition(" ")[2])


async def wake_permitted(conn: Connection, stream_id: int) -> None:
    """Wakes the shards of the new permits, and has their states and counts written anew."""
    await conn.execute(
        """WITH permitted AS (
             SELECT shard, count(*)::integer AS recipients FROM permits
             WHERE stream_id = $1 AND claim_id IS NULL AND hold_id = $2 GROUP BY shard
           ), woken AS (
             UPDATE shards s SET wake_at = least(s.wake_at, now()), submitted_at = NULL
             FROM permitted p WHERE s.stream_id = $1 AND s.shard = p.shard
           )
           UPDATE folds f SET due_at = now(), closed_at = NULL, open = f.open + p.recipients
           FROM permitted p WHERE f.stream_id = $1 AND f.shard = p.shard""",
        stream_id,
        _HOLD_TO_COME,
    )


async def name_hold(conn: Connection, stream_id: int, hold_id: int) -> None:
    """Gives the new permits the hold that pays for them."""
    await conn.execute(
        "UPDATE permits SET hold_id = $2 WHERE stream_id = $1 AND claim_id IS NULL AND hold_id = $3",
        stream_id,
        hold_id,
        _HOLD_TO_COME,
    )


async def reopen_campaign(conn: Connection, campaign: Campaign) -> Campaign:
    """completed → sending; one that is still under way stays so."""
    row = await fetch_one(
        conn,
        f"""WITH reopened AS (UPDATE streams SET closed_at = NULL WHERE stream_id = $3)
            UPDATE campaigns SET status = CASE status WHEN 'completed' THEN 'sending' ELSE status END, reason = NULL,
              submitted_at = NULL, completed_at = NULL
            WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}""",
        campaign.id,
        campaign.account_id,
        campaign.stream_id,
    )
    return _campaign(row)


async def count_states(conn: Connection, account_id: int, stream_id: int) -> dict[State, int]:
    """How many recipients are in each state, as last folded; those never claimed are not among them."""
    rows = await conn.fetch(
        """SELECT state, sum(recipients)::integer AS recipients FROM state_counts
           WHERE stream_id = $1 AND account_id = $2 GROUP BY state""",
        stream_id,
        account_id,
    )
    return {State(row["state"]): row["recipients"] for row in rows}


# —— schedules: read by the workers for all tenants ————————————————————————————————————————————————————————————————————


async def read_due_schedules(conn: Connection, most: int) -> list[tuple[int, int]]:
    """(campaign, account) of what should have started by now, longest due first; nobody's while sending is held."""
    rows = await conn.fetch(
        """SELECT id, account_id FROM campaigns
           WHERE status = 'scheduled' AND scheduled_at <= clock_timestamp()
             AND NOT EXISTS (SELECT FROM installation WHERE held_at IS NOT NULL)
           ORDER BY scheduled_at, id LIMIT $1""",
        most,
    )
    return [(row["id"], row["account_id"]) for row in rows]


async def lock_due_schedule(conn: Connection, account_id: int, campaign_id: int) -> tuple[Campaign, float] | None:
    """The campaign and by how many seconds it is late; None where it is not due any more, or another worker has it."""
    row = await conn.fetchrow(
        f"""SELECT {_COLUMNS}, extract(epoch FROM clock_timestamp() - scheduled_at)::float8 AS late_s FROM campaigns
            WHERE id = $1 AND account_id = $2 AND status = 'scheduled' AND scheduled_at <= clock_timestamp()
            FOR UPDATE SKIP LOCKED""",
        campaign_id,
        account_id,
    )
    if row is None:
        return None
    values = dict(row)
    late_s: float = values.pop("late_s")
    return _campaign(values), late_s


# —— what the workers do to a campaign; they run for all tenants and know it by its stream ——————————————————————————————


async def read_stream(conn: Connection, stream_id: int) -> tuple[str, str, list[int], int | None]:
    """(frozen content, identity, lists, campaign id) of a stream; the first two are JSON for the core."""
    row = await fetch_one(
        conn,
        """SELECT content, identity, campaign_id, coalesce(list_ids, array_remove(ARRAY[list_id], NULL)) AS list_ids
           FROM streams WHERE stream_id = $1""",
        stream_id,
    )
    return row["content"], row["identity"], row["list_ids"], row["campaign_id"]


async def mark_sending(conn: Connection, stream_id: int) -> None:
    """queued → sending, at the first lease of a shard."""
    await conn.execute("UPDATE campaigns SET status = 'sending' WHERE stream_id = $1 AND status = 'queued'", stream_id)


async def mark_submitted(conn: Connection, stream_id: int) -> None:
    """Stamps the campaign with its last shard's time once every shard is handed over."""
    await conn.execute(
        """UPDATE campaigns c SET submitted_at = s.at
           FROM (SELECT max(submitted_at) AS at, bool_and(submitted_at IS NOT NULL) AS done
                 FROM shards WHERE stream_id = $1) s
           WHERE c.stream_id = $1 AND c.submitted_at IS NULL AND s.done""",
        stream_id,
    )


async def pause_campaign(conn: Connection, stream_id: int, reason: str) -> None:
    """sending → paused, because a worker cannot go on with it."""
    paused = await conn.fetchval(
        """UPDATE campaigns SET status = 'paused', reason = $2
           WHERE stream_id = $1 AND status IN ('queued', 'sending') RETURNING id""",
        stream_id,
        reason,
    )
    if paused is not None:
        await set_shard_states(conn, stream_id, "paused")


async def read_running(conn: Connection, account_id: int) -> list[int]:
    """Streams of the account's campaigns that are being sent."""
    rows = await conn.fetch(
        "SELECT stream_id FROM campaigns WHERE account_id = $1 AND status IN ('queued', 'sending') ORDER BY id",
        account_id,
    )
    return [row["stream_id"] for row in rows]


async def finished_streams(conn: Connection) -> list[int]:
    """Streams of running campaigns of which no shard is open any more."""
    rows = await conn.fetch(
        """SELECT c.stream_id FROM campaigns c WHERE c.status IN ('queued', 'sending')
             AND NOT EXISTS (SELECT FROM folds f WHERE f.stream_id = c.stream_id AND f.closed_at IS NULL)"""
    )
    return [row["stream_id"] for row in rows]


async def lock_running_campaign(conn: Connection, stream_id: int) -> bool:
    """Locks the stream's campaign against two workers that both see its last shard close."""
    status = await conn.fetchval("SELECT status FROM campaigns WHERE stream_id = $1 FOR UPDATE", stream_id)
    return status in (Status.QUEUED, Status.SENDING)


async def complete_campaign(conn: Connection, stream_id: int) -> None:
    """sending → completed; the caller has counted."""
    await conn.execute(
        """WITH done AS (UPDATE streams SET closed_at = clock_timestamp() WHERE stream_id = $1)
           UPDATE campaigns SET status = 'completed', completed_at = clock_timestamp() WHERE stream_id = $1""",
        stream_id,
    )
