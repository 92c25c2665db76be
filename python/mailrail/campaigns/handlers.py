"""The send loop of a worker: lease a shard, then round by round claim, read, submit, write down.

A claim is committed before any of its calls is written, and a call is written only while the lease holds; so whatever
dies in between leaves a trace that says who may have been written to.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from mailrail._core import Codec, CoreError, Lease, Plan, Report, Sender
from mailrail.bus.messages import ShardsReadyV1
from mailrail.campaigns import store
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import store as emails
from mailrail.emails.accepted_log import Accepted, AcceptedLog, Ranges, ranges_of
from mailrail.emails.model import RETRYABLE, LeasedShard, Outcome, Round

log = logging.getLogger(__name__)

# Losing every doorbell costs this long.
SWEEP_INTERVAL_S = 2.0
# Compiled content kept by a worker: running campaigns change far less often than shards.
PLANS_MAX = 64
CAUSES = {
    Outcome.HALTED: "Amazon SES refused the campaign as a whole: check the sender's verification and that sending is not paused.",
}


@dataclass(frozen=True, slots=True)
class CompiledStream:
    """What all rounds of a stream share."""

    plan: Plan
    list_id: int | None
    campaign_id: int | None


class SendLoop:
    """Sends shards, a few at a time, until stopped; then ends after the rounds under way.

    `accepted_log` hears of every round that SES may have accepted, `count` of every round's outcomes.
    """

    def __init__(
        self,
        pool: Pool,
        sender: Sender,
        codec: Codec,
        settings: Settings,
        accepted_log: AcceptedLog | None = None,
        count: Callable[[Mapping[int, int]], None] = lambda counts: None,
    ) -> None:
        self._pool = pool
        self._sender = sender
        self._codec = codec
        self._settings = settings
        self._doorbell = asyncio.Event()
        self._stopping = False
        self._accepted_log = accepted_log
        self._count = count
        self._system = ""
        self._streams: OrderedDict[int, CompiledStream] = OrderedDict()

    def ring(self, wire: Any = None) -> None:
        """There may be a shard to send: `wire` says so, or None after a pause in listening. Raises UnreadableMessage."""
        if wire is not None:
            ShardsReadyV1.from_wire(wire)
        self._doorbell.set()

    def stop(self) -> None:
        """Finish the rounds under way and come home."""
        self._stopping = True
        self._doorbell.set()

    async def run(self) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._settings.shards_at_once):
                slots.create_task(self._run_slot())

    async def _run_slot(self) -> None:
        while not self._stopping:
            try:
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
        if not self._system:
            self._system = await emails.system_identifier(conn)
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
        stream = await self._stream(shard.stream_id)
        timings = Timings()
        while not self._stopping:
            claimed = await self._claim(shard, lease)
            if claimed is None:
                break
            rows = await self._read(shard, claimed, stream.list_id, timings)
            report = await self._sender.submit(stream.plan, rows, lease)
            self._count(report.counts)
            await self._remember(shard, claimed, stream, report)
            await self._write_down(shard, claimed, report, timings)
            timings.add(report)
        await self._release(shard)
        timings.log(shard)

    async def _claim(self, shard: LeasedShard, lease: Lease) -> Round | None:
        """If the commit's answer is lost this raises, and the claim stays unsent: its recipients become unknown."""
        asked_ns = Lease.now_ns()
        async with self._pool.acquire() as conn:
            claimed = await emails.claim_round(conn, shard, self._settings.round_size, self._settings.lease_s)
        lease.extend(self._deadline_ns(asked_ns))
        return claimed

    async def _read(self, shard: LeasedShard, claimed: Round, list_id: int | None, timings: "Timings") -> bytes:
        started = time.perf_counter()
        async with self._pool.acquire() as conn:
            rows = await emails.read_round(conn, shard, claimed, list_id)
        timings.read_s += time.perf_counter() - started
        return rows

    async def _remember(self, shard: LeasedShard, claimed: Round, stream: CompiledStream, report: Report) -> None:
        """Adds the round to the log of accepted mail before its results are committed: should the database be lost now and
        an older state of it restored, the log still knows.
        """
        count, unknown = (report.counts.get(outcome, 0) for outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN))
        if self._accepted_log is None or not (count or unknown):
            return
        accepted = accepted_ranges(claimed, report)
        record = Accepted(
            system=self._system,
            account_id=shard.account_id,
            campaign_id=stream.campaign_id,
            stream_id=shard.stream_id,
            shard=shard.shard,
            claim_id=claimed.claim_id,
            attempt=claimed.attempt,
            claimed=ranges_of(claimed.first_seq, claimed.last_seq, claimed.seqs),
            accepted=accepted,
            unsure=unknown > 0 or sum(last - first + 1 for first, last in accepted) < count,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        try:
            await self._accepted_log.append(record)
        except OSError as error:
            # The results are truth and go on; only the guard against restored backups misses this round.
            log.error("send loop: the log of accepted mail cannot be written (%s)", error)

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

    async def _stream(self, stream_id: int) -> CompiledStream:
        found = self._streams.get(stream_id)
        if found is None:
            async with self._pool.acquire() as conn:
                content, identity, list_id, campaign_id = await store.read_stream(conn, stream_id)
            found = CompiledStream(Plan(content.encode(), identity.encode(), self._codec), list_id, campaign_id)
            self._streams[stream_id] = found
            while len(self._streams) > PLANS_MAX:
                self._streams.popitem(last=False)
        self._streams.move_to_end(stream_id)
        return found

    def _deadline_ns(self, asked_ns: int) -> int:
        return asked_ns + int(self._settings.lease_s * 1e9)


def accepted_ranges(claimed: Round, report: Report) -> Ranges:
    """Whom SES accepted of a round; nobody where the core does not tell and it was not everybody."""
    told: bytes | None = getattr(report, "accepted_ranges", None)
    if told is not None:
        ranges: Ranges = orjson.loads(told)
        return ranges
    if report.counts.get(Outcome.ACCEPTED, 0) < len(claimed):
        return []
    return ranges_of(claimed.first_seq, claimed.last_seq, claimed.seqs)


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
