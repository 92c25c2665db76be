"""The applier: raw notifications become events; shards that they touch are folded, money settles, campaigns complete."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from mailrail import failpoints
from mailrail._core import Codec, parse_events
from mailrail.campaigns import store as campaigns
from mailrail.campaigns import storms
from mailrail.campaigns.reputation import judge_and_pause
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import fold
from mailrail.emails.model import ShardUnfoldable
from mailrail.events import soft_bounces, store
from mailrail.reputation import service as reputation
from mailrail.reputation.model import Tally

log = logging.getLogger(__name__)

APPLY_BATCH = 2000
WORTHWHILE_BATCH = 500
IDLE_S = 0.2

CountLag = Callable[[float, int], None]


def ignore_lag(seconds: float, events: int) -> None:
    """Where nobody counts."""


async def apply_once(conn: Connection, codec: Codec, settings: Settings, count_lag: CountLag = ignore_lag) -> bool:
    """Applies one batch in one transaction; False when so few waited that it is worth gathering more first. `count_lag` is told how
    long events were under way from SES to here.
    """
    tallies: list[Tally] = []
    lags: list[tuple[float, int]] = []
    stormy: dict[int, int] = {}
    with contextlib.ExitStack() as under_way:
        async with conn.transaction():
            await store.prepare_staging(conn)
            taken = await store.take_notifications(conn, APPLY_BATCH)
            if taken:
                under_way.enter_context(failpoints.span("event", rows=taken))
                failpoints.hit("apply.taken", rows=taken)
                tallies, stormy = await _apply_taken(conn, codec, settings)
                lags = await store.read_lags(conn)
                failpoints.hit("apply.inserted", rows=taken)
        if taken:
            failpoints.hit("apply.committed", rows=taken)
            if troubled := [one.account_id for one in tallies if one.is_trouble]:
                await judge_and_pause(conn, troubled, settings)
            await storms.stop(conn, stormy)
    for seconds, events in lags:
        count_lag(seconds, events)
    return taken >= WORTHWHILE_BATCH


async def _apply_taken(conn: Connection, codec: Codec, settings: Settings) -> tuple[list[Tally], dict[int, int]]:
    parsed = await asyncio.to_thread(parse_events, codec, await store.read_taken(conn))
    await store.stage(conn, parsed.events, parsed.parked)
    # What is new is told by what is not yet among the events.
    stormy = await storms.count(conn, await store.count_rendering_failures(conn))
    tallies = await store.insert_events(conn)
    await store.note_canaries(conn)
    await store.suppress_addresses(conn)
    await judge_soft_bounces(conn, sum(one.soft_bounced for one in tallies), settings)
    await store.mark_folds_due(conn)
    if parsed.parked_count:
        log.warning("applier: parked %d notifications; `mailrail events parked` says what and why", parsed.parked_count)
        await store.park_notifications(conn)
    await reputation.count(conn, tallies)
    if parsed.event_count:
        await store.note_heard(conn)
    return tallies, stormy


async def judge_soft_bounces(conn: Connection, softly: int, settings: Settings) -> None:
    """Ends mail to addresses that it comes back from again and again. Bounces are counted before deliveries clear them, so
    that their order within a batch does not matter.
    """
    if softly:
        await soft_bounces.count(conn)
    await soft_bounces.clear_delivered(conn)
    if softly:
        await soft_bounces.suppress(conn, settings.soft_bounces_max, settings.soft_bounce_days_min)


async def fold_once(conn: Connection) -> bool:
    """Folds one shard and completes its campaign if that was the last open one; False when no fold was due.

    One that cannot be folded waits, so that it stands in nobody's way.
    """
    with contextlib.ExitStack() as under_way:
        try:
            async with conn.transaction():
                folded = await fold.fold_next(conn, lambda: under_way.enter_context(failpoints.span("ledger")))
        except ShardUnfoldable as error:
            log.exception("folder: stream=%d shard=%d cannot be folded", error.stream_id, error.shard)
            await fold.postpone(conn, error.stream_id, error.shard)
            return True
        if folded is None:
            return False
        failpoints.hit("fold.committed", stream_id=folded.stream_id, shard=folded.shard)
    if folded.closed_now:
        await complete_if_done(conn, folded.stream_id)
    return True


async def complete_if_done(conn: Connection, stream_id: int) -> None:
    """Completes a campaign only when SQL counts zero open recipients over its whole audience."""
    async with conn.transaction():
        if not await campaigns.lock_running_campaign(conn, stream_id):
            return
        if not await fold.is_every_shard_closed(conn, stream_id):
            return
        if await fold.count_unfinished(conn, stream_id) == 0:
            await campaigns.mark_submitted(conn, stream_id)
            await campaigns.complete_campaign(conn, stream_id)


async def complete_finished(conn: Connection) -> None:
    """Completes what a folder that died between its fold and the completion left behind, and what was paused meanwhile."""
    for stream_id in await campaigns.finished_streams(conn):
        await complete_if_done(conn, stream_id)


async def run_applier(pool: Pool, codec: Codec, settings: Settings, count_lag: CountLag = ignore_lag) -> None:
    """Until cancelled."""
    await _run(pool, "applier", lambda conn: apply_once(conn, codec, settings, count_lag))


async def run_folder(pool: Pool) -> None:
    """Until cancelled."""
    await _run(pool, "folder", fold_once)


async def _run(pool: Pool, name: str, step: Callable[[Connection], Awaitable[bool]]) -> None:
    while not is_cancelled():
        try:
            async with pool.acquire() as conn:
                busy = await step(conn)
        except DATABASE_ERRORS as error:
            log.warning("%s: the database failed (%s: %s)", name, type(error).__name__, error)
            busy = False
        if not busy:
            await asyncio.sleep(IDLE_S)
