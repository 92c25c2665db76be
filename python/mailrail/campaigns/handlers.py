"""The send loop of a worker: lease a shard, then round by round take tokens, claim, read, submit, write down.

A claim is committed before any of its calls is written, and a call is written only while the lease holds; so whatever
dies in between leaves a trace that says who may have been written to.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from typing import Any

from mailrail._core import Codec, CoreError, Lease, Plan, Report, Sender
from mailrail.bus.messages import ShardsReadyV1
from mailrail.campaigns import store
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import store as emails
from mailrail.emails.model import RETRYABLE, UNSENT, LeasedShard, Outcome, Round
from mailrail.ses.limiter import Limiter

log = logging.getLogger(__name__)

# Losing every doorbell costs this long.
SWEEP_INTERVAL_S = 2.0
# Compiled content kept by a worker: running campaigns change far less often than shards.
PLANS_MAX = 64
# At a low rate a shard takes minutes: after this long a tenant that has less under way gets its turn.
TURN_S = 5.0
CAUSES = {
    Outcome.HALTED: "Amazon SES refused the campaign as a whole: check the sender's verification and that sending is not paused.",
}


class SendLoop:
    """Sends shards, a few at a time, until stopped; then ends after the rounds under way."""

    def __init__(self, pool: Pool, sender: Sender, limiter: Limiter, codec: Codec, settings: Settings) -> None:
        self._pool = pool
        self._sender = sender
        self._limiter = limiter
        self._codec = codec
        self._settings = settings
        self._doorbell = asyncio.Event()
        self._stopping = False
        self._plans: OrderedDict[int, tuple[Plan, int | None]] = OrderedDict()

    def ring(self, wire: Any = None) -> None:
        """There may be a shard to send: `wire` says so, or None after a pause in listening. Raises UnreadableMessage."""
        if wire is not None:
            ShardsReadyV1.from_wire(wire)
        self._doorbell.set()

    def stop(self) -> None:
        """Finish the rounds under way and come home."""
        self._stopping = True
        self._limiter.stop()
        self._doorbell.set()

    async def run(self) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._settings.shards_at_once):
                slots.create_task(self._run_slot())

    async def _run_slot(self) -> None:
        while not self._stopping:
            try:
                await self._limiter.until_open()
                async with self._pool.acquire() as conn:
                    lease = await self._take_shard(conn)
                if lease is not None:
                    await self._send_or_pause(*lease)
                    continue
            except DATABASE_ERRORS as error:
                log.warning("send loop: the database failed (%s)", type(error).__name__)
            self._doorbell.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doorbell.wait(), SWEEP_INTERVAL_S)

    async def _take_shard(self, conn: Connection) -> tuple[LeasedShard, Lease] | None:
        asked_ns = Lease.now_ns()
        shard = await emails.take_shard(conn, self._settings.lease_s)
        if shard is None:
            return None
        await store.mark_sending(conn, shard.stream_id)
        return shard, Lease(self._deadline_ns(asked_ns))

    async def _send_or_pause(self, shard: LeasedShard, lease: Lease) -> None:
        """A campaign that the core cannot work with stops itself, not the worker and everybody else's mail."""
        try:
            await self._send_shard(shard, lease)
        except CoreError as error:
            log.error("send loop: stream %d is paused (%s)", shard.stream_id, error)
            async with self._pool.acquire() as conn, conn.transaction():
                await store.pause_campaign(conn, shard.stream_id, f"The send core cannot send this campaign: {error}")
            await self._release(shard)

    async def _send_shard(self, shard: LeasedShard, lease: Lease) -> None:
        plan, list_id = await self._plan(shard.stream_id)
        timings = Timings()
        turn_ends_at = time.monotonic() + TURN_S
        # Without tokens for long the shard goes back, to whoever has some first.
        while tokens := await self._limiter.grant(self._settings.round_size, self._settings.lease_s / 3):
            claimed = await self._claim(shard, lease, tokens)
            if claimed is None:
                await self._limiter.give_back(tokens)
                break
            rows = await self._read(shard, claimed, list_id, timings)
            report = await self._sender.submit(plan, rows, lease)
            await self._write_down(shard, claimed, report, timings)
            timings.add(report)
            await self._tell_limiter(tokens, report)
            if time.monotonic() >= turn_ends_at:
                if await self._is_others_turn(shard):
                    break
                turn_ends_at = time.monotonic() + TURN_S
        await self._release(shard)
        timings.log(shard)

    async def _claim(self, shard: LeasedShard, lease: Lease, recipients: int) -> Round | None:
        """If the commit's answer is lost this raises, and the claim stays unsent: its recipients become unknown."""
        asked_ns = Lease.now_ns()
        async with self._pool.acquire() as conn:
            claimed = await emails.claim_round(conn, shard, recipients, self._settings.lease_s)
        lease.extend(self._deadline_ns(asked_ns))
        return claimed

    async def _tell_limiter(self, tokens: int, report: Report) -> None:
        await self._limiter.throttled(getattr(report, "throttled", 0))
        if getattr(report, "daily_quota_hit", False):
            await self._limiter.day_used_up()
        await self._limiter.give_back(tokens - sum(n for code, n in report.counts.items() if code not in UNSENT))

    async def _is_others_turn(self, shard: LeasedShard) -> bool:
        async with self._pool.acquire() as conn:
            return await emails.is_poorer_tenant_waiting(conn, shard)

    async def _read(self, shard: LeasedShard, claimed: Round, list_id: int | None, timings: "Timings") -> bytes:
        started = time.perf_counter()
        async with self._pool.acquire() as conn:
            rows = await emails.read_round(conn, shard, claimed, list_id)
        timings.read_s += time.perf_counter() - started
        return rows

    async def _write_down(self, shard: LeasedShard, claimed: Round, report: Report, timings: "Timings") -> None:
        """Keeps at it while the lease lasts: outcomes that are lost here come back as unknown."""
        started = time.perf_counter()
        give_up_at = started + self._settings.lease_s
        while True:
            try:
                async with self._pool.acquire() as conn:
                    if not await emails.has_result_batch(conn, shard, claimed):
                        await self._write_once(conn, shard, claimed, report)
                break
            except DATABASE_ERRORS as error:
                log.warning("send loop: outcomes not written yet (%s)", type(error).__name__)
                if time.perf_counter() > give_up_at:
                    raise
                await asyncio.sleep(0.5)
        timings.write_s += time.perf_counter() - started

    async def _write_once(self, conn: Connection, shard: LeasedShard, claimed: Round, report: Report) -> None:
        counts = report.counts
        async with conn.transaction():
            await emails.insert_results(conn, shard, claimed, report.outcomes)
            await emails.add_progress(conn, shard, counts)
            if any(counts.get(outcome) for outcome in RETRYABLE):
                await emails.permit_retries(conn, shard, claimed)
        if counts.get(Outcome.HALTED):
            async with conn.transaction():
                await store.pause_campaign(conn, shard.stream_id, CAUSES[Outcome.HALTED])

    async def _release(self, shard: LeasedShard) -> None:
        async with self._pool.acquire() as conn:
            if await emails.release_shard(conn, shard):
                await store.mark_submitted(conn, shard.stream_id)

    async def _plan(self, stream_id: int) -> tuple[Plan, int | None]:
        found = self._plans.get(stream_id)
        if found is None:
            async with self._pool.acquire() as conn:
                content, identity, list_id = await store.read_stream(conn, stream_id)
            found = (Plan(content.encode(), identity.encode(), self._codec), list_id)
            self._plans[stream_id] = found
            while len(self._plans) > PLANS_MAX:
                self._plans.popitem(last=False)
        self._plans.move_to_end(stream_id)
        return found

    def _deadline_ns(self, asked_ns: int) -> int:
        return asked_ns + int(self._settings.lease_s * 1e9)


class Timings:
    """Where a shard's time went."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.read_s = self.write_s = self.render_s = self.sign_s = self.call_s = 0.0
        self.recipients = 0
        self.calls = 0

    def add(self, report: Report) -> None:
        """Adds a round's figures."""
        self.recipients += sum(report.counts.values())
        self.calls += report.calls
        self.render_s += report.render_ns / 1e9
        self.sign_s += report.sign_ns / 1e9
        self.call_s += report.call_ns / 1e9

    def log(self, shard: LeasedShard) -> None:
        """One line a shard."""
        log.info(
            "shard sent stream=%d shard=%d recipients=%d calls=%d seconds=%.3f read=%.3f write=%.3f render=%.3f"
            " sign=%.3f call=%.3f",
            shard.stream_id,
            shard.shard,
            self.recipients,
            self.calls,
            time.perf_counter() - self.started,
            self.read_s,
            self.write_s,
            self.render_s,
            self.sign_s,
            self.call_s,
        )
