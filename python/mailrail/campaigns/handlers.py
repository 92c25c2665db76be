"""The send loop of a worker: lease a shard, take tokens and send rounds until it is through or others have their turn."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Plan, Report, Sender
from mailrail.bus.messages import NotNow, ShardsReadyV1
from mailrail.campaigns import canary_store, store
from mailrail.campaigns.delivery import Mode
from mailrail.campaigns.rounds import CampaignStream, MailStream, Rounds, Stream, Timings
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import store as emails
from mailrail.emails.accepted_log import AcceptedLog
from mailrail.emails.model import UNSENT, LeasedShard
from mailrail.ses.limiter import Limiter, NoTokens

log = logging.getLogger(__name__)

# Between two looks at a database that failed.
DATABASE_PAUSE_S = 0.5
# A free slot looks for a shard no more often than this.
IDLE_MIN_S = 0.2
# How long a doorbell waits for a free slot to look for a shard.
RING_TIMEOUT_S = 2.0
# Compiled content kept by a worker: running campaigns change far less often than shards.
STREAMS_MAX = 64
# Transactional mails that a worker sends in one round: those that could not be sent when they came.
MAILS_AT_ONCE = 10
# At a low rate a shard takes minutes: after this long a tenant that has less under way gets its turn.
TURN_S = 5.0


class SendLoop:
    """Sends shards, a few at a time, until stopped; then ends after the rounds under way.

    `accepted_log` hears of every round that SES may have accepted, `count` of every round's outcomes.
    """

    def __init__(
        self,
        pool: Pool,
        sender: Sender,
        limiter: Limiter,
        codec: Codec,
        settings: Settings,
        sweep_interval_s: float,
        accepted_log: AcceptedLog | None = None,
        count: Callable[[Mapping[int, int]], None] = lambda counts: None,
    ) -> None:
        """`sweep_interval_s` is what losing every doorbell costs."""
        self._pool = pool
        self._limiter = limiter
        self._codec = codec
        self._settings = settings
        self._rounds = Rounds(pool, sender, settings, accepted_log, count)
        self._sweep_interval_s = sweep_interval_s
        self._doorbell = asyncio.Event()
        self._free = settings.shards_at_once
        # One per doorbell that waits until a slot has looked for a shard.
        self._rings: list[asyncio.Future[None]] = []
        self._stopping = False
        self._streams: OrderedDict[tuple[int, Mode | None], Stream] = OrderedDict()

    async def ring(self, wire: Any = None) -> None:
        """There may be a shard to send: `wire` says so, or None after a pause in listening.

        Returns once a slot has looked for one since; or at once if none is free or may send, since each looks again as soon
        as it is.
        Raises UnreadableMessage; NotNow if the database did not answer in time or the loop is ending.
        """
        if wire is None:
            self._doorbell.set()
            return
        ShardsReadyV1.from_wire(wire)
        if self._stopping:
            raise NotNow
        if self._free == 0 or not self._limiter.is_open:
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
        self._rounds.stop()
        self._limiter.stop()
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
        """Takes a shard once mail may be sent at all, and answers the doorbells that rang before."""
        if not self._limiter.is_open:
            _answer(self._rings)
            await self._limiter.until_open()
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
        return shard, Lease(asked_ns + int(self._settings.lease_s * 1e9))

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
        stream, may_change = await self._stream(shard.stream_id)
        timings = Timings()
        last_claim_id = 0
        turn_ends_at = time.monotonic() + TURN_S
        # Without tokens for long the shard goes back, to whoever has some first.
        while tokens := await self._take_tokens(stream):
            if may_change:
                stream, may_change = await self._stream(shard.stream_id)
            sent = await self._rounds.send_next(stream, shard, lease, tokens, last_claim_id, timings)
            await self._tell_limiter(tokens, sent.report if sent else None)
            if sent is None:
                break
            last_claim_id = sent.claim_id
            if time.monotonic() >= turn_ends_at:
                if await self._is_others_turn(shard):
                    break
                turn_ends_at = time.monotonic() + TURN_S
        await self._release(shard)
        timings.log(shard)

    async def _take_tokens(self, stream: Stream) -> int:
        """Recipients that the next round may have; 0 when there are none for now. What a transactional mail waits for is not
        a campaign's turn.
        """
        if isinstance(stream, CampaignStream):
            return await self._limiter.grant(self._settings.round_size, self._settings.lease_s / 3)
        tokens = min(MAILS_AT_ONCE, self._settings.round_size)
        try:
            await asyncio.sleep(await self._limiter.take(tokens))
        except NoTokens:
            return 0
        return tokens

    async def _tell_limiter(self, tokens: int, report: Report | None) -> None:
        if report is None:
            await self._limiter.give_back(tokens)
            return
        await self._limiter.throttled(report.throttled)
        if report.daily_quota_hit:
            await self._limiter.day_used_up()
        await self._limiter.give_back(tokens - sum(n for code, n in report.counts.items() if code not in UNSENT))

    async def _is_others_turn(self, shard: LeasedShard) -> bool:
        async with self._pool.acquire() as conn:
            return await emails.is_poorer_tenant_waiting(conn, shard)

    async def _release(self, shard: LeasedShard) -> None:
        async with self._pool.acquire() as conn:
            submitted = await emails.release_shard(conn, shard)
            failpoints.hit("shard.released", stream_id=shard.stream_id, shard=shard.shard)
            if submitted:
                await store.mark_submitted(conn, shard.stream_id)

    async def _stream(self, stream_id: int) -> tuple[Stream, bool]:
        """The stream in the mode in which it goes out now, and whether that may change while it does."""
        async with self._pool.acquire() as conn:
            mode, may_change = await canary_store.read_mode(conn, stream_id)
            found = self._streams.get((stream_id, mode))
            if found is None:
                found = self._compile(mode, *await store.read_stream(conn, stream_id))
                self._streams[stream_id, mode] = found
        while len(self._streams) > STREAMS_MAX:
            self._streams.popitem(last=False)
        self._streams.move_to_end((stream_id, mode))
        return found, may_change

    def _compile(
        self, mode: Mode | None, content: str, identity: str, list_ids: list[int], campaign_id: int | None
    ) -> Stream:
        if campaign_id is None:
            return MailStream(identity.encode(), self._codec)
        sender = orjson.loads(identity) | ({"mode": mode} if mode else {})
        return CampaignStream(Plan(content.encode(), orjson.dumps(sender), self._codec), list_ids, campaign_id)


def _answer(rings: list[asyncio.Future[None]]) -> None:
    for ring in rings:
        if not ring.done():
            ring.set_result(None)
