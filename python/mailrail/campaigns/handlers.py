"""The send loop of a worker: lease a shard, then round by round claim, read, submit, write down.

A claim is committed before any of its calls is written, and a call is written only while the lease holds; so whatever
dies in between leaves a trace that says who may have been written to.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Plan, Report, Sender
from mailrail.bus.messages import NotNow, ShardsReadyV1
from mailrail.campaigns import store
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import store as emails
from mailrail.emails.model import RETRYABLE, LeasedShard, Outcome, Round

log = logging.getLogger(__name__)

# Between two tries at a database that failed.
DATABASE_PAUSE_S = 0.5
# A free slot looks for a shard no more often than this.
IDLE_MIN_S = 0.2
# How long a doorbell waits for a free slot to look for a shard.
RING_TIMEOUT_S = 2.0
# Compiled content kept by a worker: running campaigns change far less often than shards.
PLANS_MAX = 64
CAUSES = {
    Outcome.HALTED: "Amazon SES refused the campaign as a whole: check the sender's verification and that sending is not paused.",
}


class SendLoop:
    """Sends shards, a few at a time, until stopped; then ends after the rounds under way."""

    def __init__(self, pool: Pool, sender: Sender, codec: Codec, settings: Settings, sweep_interval_s: float) -> None:
        """`sweep_interval_s` is what losing every doorbell costs."""
        self._pool = pool
        self._sender = sender
        self._codec = codec
        self._settings = settings
        self._sweep_interval_s = sweep_interval_s
        self._doorbell = asyncio.Event()
        self._free = settings.shards_at_once
        # One per doorbell that waits until a slot has looked for a shard.
        self._rings: list[asyncio.Future[None]] = []
        self._stopping = False
        self._plans: OrderedDict[int, tuple[Plan, int | None]] = OrderedDict()

    async def ring(self, wire: Any = None) -> None:
        """There may be a shard to send: `wire` says so, or None after a pause in listening.

        Returns once a slot has looked for one since; or at once if none is free, since each looks again when it comes home.
        Raises UnreadableMessage; NotNow if the database did not answer in time or the loop is ending.
        """
        if wire is None:
            self._doorbell.set()
            return
        ShardsReadyV1.from_wire(wire)
        if self._stopping:
            raise NotNow
        if self._free == 0:
            return
        looked = asyncio.get_running_loop().create_future()
        self._rings.append(looked)
        self._doorbell.set()
        try:
            async with asyncio.timeout(RING_TIMEOUT_S):
                await looked
        except TimeoutError:
            raise NotNow from None

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
            # Before the look, so that a doorbell during it brings another one.
            self._doorbell.clear()
            pause_s = DATABASE_PAUSE_S
            try:
                lease = await self._look()
                if lease is not None:
                    await self._send_busily(*lease)
                    continue
                pause_s = await self._idle_s()
            except DATABASE_ERRORS as error:
                log.warning("send loop: the database failed (%s)", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doorbell.wait(), pause_s)

    async def _look(self) -> tuple[LeasedShard, Lease] | None:
        """Takes a shard, and answers the doorbells that rang before."""
        rings, self._rings = self._rings, []
        try:
            async with self._pool.acquire() as conn:
                lease = await self._take_shard(conn)
        except BaseException:
            self._rings += rings
            raise
        _answer(rings)
        return lease

    async def _send_busily(self, shard: LeasedShard, lease: Lease) -> None:
        self._free -= 1
        if self._free == 0:
            _answer(self._rings)
        try:
            await self._send_or_pause(shard, lease)
        finally:
            self._free += 1

    async def _idle_s(self) -> float:
        """How long to wait for a doorbell: none rings for a retry that falls due, or for a worker that fell silent."""
        async with self._pool.acquire() as conn:
            next_s = await emails.seconds_to_next_shard(conn)
        return min(self._sweep_interval_s, max(IDLE_MIN_S, next_s)) if next_s is not None else self._sweep_interval_s

    async def _take_shard(self, conn: Connection) -> tuple[LeasedShard, Lease] | None:
        asked_ns = Lease.now_ns()
        shard = await emails.take_shard(conn, self._settings.lease_s)
        if shard is None:
            return None
        failpoints.hit("lease.taken", stream_id=shard.stream_id, shard=shard.shard, epoch=shard.epoch)
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
        last_claim_id = 0
        while not self._stopping:
            with failpoints.span("claim"):
                claimed = await self._claim(shard, lease, last_claim_id)
                if claimed is None:
                    break
                last_claim_id = claimed.claim_id
                rows = await self._read(shard, claimed, list_id, timings)
                if rows is None:
                    continue
                report = await self._submit(plan, shard, claimed, rows, lease)
                await self._write_down(shard, claimed, report, timings)
            timings.add(report)
        await self._release(shard)
        timings.log(shard)

    async def _claim(self, shard: LeasedShard, lease: Lease, last_claim_id: int) -> Round | None:
        """The next round, durable. None when there is none, or when the lease is lost."""
        asked_ns = Lease.now_ns()
        try:
            async with self._pool.acquire() as conn:
                claimed = await emails.claim_round(conn, shard, self._settings.round_size, self._settings.lease_s)
        except DATABASE_ERRORS as error:
            log.warning("send loop: a claim went unanswered (%s)", type(error).__name__)
            claimed = await self._look_up_claim(shard, asked_ns, last_claim_id)
        if claimed is None:
            return None
        lease.extend(self._deadline_ns(asked_ns))
        failpoints.hit(
            "claim.committed",
            stream_id=shard.stream_id,
            shard=shard.shard,
            claim_id=claimed.claim_id,
            attempt=claimed.attempt,
            first_seq=claimed.first_seq,
            last_seq=claimed.last_seq,
            seqs=claimed.seqs,
        )
        return claimed

    async def _look_up_claim(self, shard: LeasedShard, asked_ns: int, last_claim_id: int) -> Round | None:
        """Whether a claim whose commit went unanswered took place; asked for as long as it could be of use."""
        until_ns = self._deadline_ns(asked_ns)
        while Lease.now_ns() < until_ns:
            try:
                async with self._pool.acquire() as conn:
                    return await emails.find_claim(conn, shard, last_claim_id)
            except DATABASE_ERRORS:
                await asyncio.sleep(DATABASE_PAUSE_S)
        return None

    async def _read(self, shard: LeasedShard, claimed: Round, list_id: int | None, timings: "Timings") -> bytes | None:
        """The round's rows; None once the database failed, and then nobody in the round was written to."""
        started = time.perf_counter()
        try:
            async with self._pool.acquire() as conn:
                rows = await emails.read_round(conn, shard, claimed, list_id)
        except DATABASE_ERRORS as error:
            log.warning("send loop: a round could not be read (%s)", type(error).__name__)
            await self._withdraw(shard, claimed, "the round could not be read")
            return None
        timings.read_s += time.perf_counter() - started
        failpoints.hit("rows.read", stream_id=shard.stream_id, shard=shard.shard, claim_id=claimed.claim_id)
        return rows

    async def _submit(self, plan: Plan, shard: LeasedShard, claimed: Round, rows: bytes, lease: Lease) -> Report:
        """Raises CoreError if the core refused the round as a whole; nothing was sent then."""
        try:
            report = await self._sender.submit(plan, rows, lease)
        except CoreError:
            await self._withdraw(shard, claimed, "the send core refused the round")
            raise
        failpoints.hit("report.received", stream_id=shard.stream_id, shard=shard.shard, claim_id=claimed.claim_id)
        return report

    async def _write_down(self, shard: LeasedShard, claimed: Round, report: Report, timings: "Timings") -> None:
        """Outcomes are facts however late they come, and what is lost here would have to wait for its events."""
        started = time.perf_counter()

        async def write(conn: Connection) -> None:
            await self._write_once(conn, shard, claimed, report)

        with failpoints.span("result"):
            await self._persist(shard, claimed, write)
        timings.write_s += time.perf_counter() - started
        failpoints.hit("results.committed", stream_id=shard.stream_id, shard=shard.shard, claim_id=claimed.claim_id)
        if report.counts.get(Outcome.HALTED):
            async with self._pool.acquire() as conn, conn.transaction():
                await store.pause_campaign(conn, shard.stream_id, CAUSES[Outcome.HALTED])

    async def _withdraw(self, shard: LeasedShard, claimed: Round, reason: str) -> None:
        """Gives back a round of which no call was begun."""

        async def withdraw(conn: Connection) -> None:
            await emails.withdraw_round(conn, shard, claimed, reason)

        await self._persist(shard, claimed, withdraw)

    async def _persist(
        self, shard: LeasedShard, claimed: Round, write: Callable[[Connection], Awaitable[None]]
    ) -> None:
        """Writes a round's outcomes exactly once, through any trouble of the database short of the fence, after which
        silence is judged without them; on the way home for the length of a lease.
        """
        began = time.perf_counter()
        while True:
            try:
                async with self._pool.acquire() as conn, conn.transaction():
                    if not await emails.has_result_batch(conn, shard, claimed):
                        await write(conn)
                return
            except DATABASE_ERRORS as error:
                log.warning("send loop: outcomes not written yet (%s)", type(error).__name__)
                patience_s = self._settings.lease_s if self._stopping else self._settings.fence_s
                if time.perf_counter() - began > patience_s:
                    raise
                await asyncio.sleep(DATABASE_PAUSE_S)

    async def _write_once(self, conn: Connection, shard: LeasedShard, claimed: Round, report: Report) -> None:
        counts = report.counts
        await emails.insert_results(conn, shard, claimed, report.outcomes)
        failpoints.hit("results.copied", stream_id=shard.stream_id, shard=shard.shard, claim_id=claimed.claim_id)
        await emails.add_progress(conn, shard, counts)
        if any(counts.get(outcome) for outcome in RETRYABLE):
            await emails.permit_retries(conn, shard, claimed)

    async def _release(self, shard: LeasedShard) -> None:
        async with self._pool.acquire() as conn:
            submitted = await emails.release_shard(conn, shard)
            failpoints.hit("shard.released", stream_id=shard.stream_id, shard=shard.shard)
            if submitted:
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


def _answer(rings: list[asyncio.Future[None]]) -> None:
    for ring in rings:
        if not ring.done():
            ring.set_result(None)


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
