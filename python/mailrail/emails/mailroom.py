"""Where an API process sends transactional mail. Each account has a desk; what arrives while the desk writes is written
together with the next commit.

Two commits, as for a campaign's round: the mails, their hold and their claim before any call, and what came of the calls
after it. Whatever dies in between leaves a claim without results, which its shard's fold calls unknown. What cannot be
sent now is left to the workers with a permit.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Sender
from mailrail.accounts.model import Account
from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool, transaction
from mailrail.emails import desk_store, keys, played, store
from mailrail.emails.accepted_log import AcceptedLog, remember_round
from mailrail.emails.desk_store import Answered
from mailrail.emails.fold import FOLD_INTERVAL_S
from mailrail.emails.keys import Key
from mailrail.emails.mail import Mail
from mailrail.emails.model import RETRYABLE, UNSENT, LeasedShard, Outcome, Round
from mailrail.emails.submission import Sent, Shard, Submission, Written
from mailrail.emails.taking import Taking
from mailrail.errors import IdempotencyKeyInUse
from mailrail.ses.limiter import Limiter, NoTokens

log = logging.getLogger(__name__)

# Addresses written by one commit.
COMMIT_MAX = 200
# Mail that would have to wait longer for its tokens is left to a worker.
TOKENS_PATIENCE_S = 1.0
DATABASE_PAUSE_S = 0.5
DESKS_MAX = 10_000
# What one mail in a batch may cause, and would cause again.
UNWRITABLE = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)


class Mailroom:
    """The desks of a process. `count` hears of every round's outcomes."""

    def __init__(
        self,
        pool: Pool,
        sender: Sender,
        limiter: Limiter,
        codec: Codec,
        settings: Settings,
        accepted_log: AcceptedLog | None = None,
        count: Callable[[Mapping[int, int]], None] = lambda counts: None,
    ) -> None:
        self.pool = pool
        self.sender = sender
        self.limiter = limiter
        self.codec = codec
        self.settings = settings
        self.accepted_log = accepted_log
        self.count = count
        self.system = ""
        self._desks: dict[tuple[int, bool], Desk] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(
        self, account: Account, mails_: Sequence[Mail], *, key: Key | None = None, is_test: bool = False
    ) -> list[Sent]:
        """Takes the mails and sends what can be sent now; returns once each has an answer or was left to a worker.

        All of them or none: raises SenderNotVerified, InsufficientFunds, WalletFrozen, SpendCapReached, SendingHeld,
        ReputationStopped, and Replayed, IdempotencyKeyInUse or IdempotencyKeyReused for a key that came before.
        """
        submission = Submission(mails_, key)
        self._desk(account, is_test).add(account, submission)
        # A client that goes away does not take its mail with it.
        return await asyncio.shield(submission.done)

    async def stop(self) -> None:
        """Returns once everything under way is written down."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, work: Any) -> None:
        """Runs it beside the requests, until `stop` at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _desk(self, account: Account, is_test: bool) -> "Desk":
        found = self._desks.get((account.id, is_test))
        if found is None:
            if len(self._desks) >= DESKS_MAX:
                self._desks = {name: desk for name, desk in self._desks.items() if desk.is_busy}
            found = self._desks[account.id, is_test] = Desk(self, account.id, is_test)
        return found


class Desk:
    """One account's mail in this process."""

    def __init__(self, room: Mailroom, account_id: int, is_test: bool) -> None:
        self._room = room
        self._account_id = account_id
        self._is_test = is_test
        self._account: Account | None = None
        self._waiting: deque[Submission] = deque()
        self._is_writing = False
        self._sending: Shard | None = None
        self._leaving: Shard | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it must not be forgotten."""
        return self._is_writing or bool(self._waiting) or bool(self._sending and self._sending.under_way)

    def add(self, account: Account, submission: Submission) -> None:
        """Queues it for the next commit; `account` has the newest price."""
        self._account = account
        self._waiting.append(submission)
        if not self._is_writing:
            self._is_writing = True
            self._room.start(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch = self._take_batch()
                try:
                    with failpoints.span("claim"):
                        await self._take_in(list(batch))
                except UNWRITABLE as error:
                    await self._take_in_each(batch, error)
                except Exception as error:  # noqa: BLE001  each request gets it as its own
                    for submission in batch:
                        submission.fail(error)
        finally:
            self._is_writing = False

    async def _take_in_each(self, batch: list[Submission], error: Exception) -> None:
        """One of them breaks a rule of the database: the others shall not suffer for it."""
        log.error("mailroom: a batch of %d cannot be written (%s)", len(batch), type(error).__name__)
        for submission in [each for each in batch if not each.done.done()]:
            try:
                if len(batch) == 1:
                    raise error
                with failpoints.span("claim"):
                    await self._take_in([submission])
            except Exception as alone:  # noqa: BLE001  as above
                submission.fail(alone)

    def _take_batch(self) -> list[Submission]:
        """The oldest that fit into one commit, and of each idempotency key only the first."""
        batch: list[Submission] = []
        taken, names = 0, set[str]()
        while self._waiting and (not batch or taken + len(self._waiting[0].addresses) <= COMMIT_MAX):
            submission = self._waiting.popleft()
            if submission.key is not None and submission.key.name in names:
                submission.fail(IdempotencyKeyInUse())
                continue
            if submission.key is not None:
                names.add(submission.key.name)
            taken += len(submission.addresses)
            batch.append(submission)
        return batch

    # —— the first commit ——

    async def _take_in(self, batch: list[Submission]) -> None:
        """Writes the batch, then has it sent."""
        assert self._account is not None
        asked = sum(len(each.addresses) for each in batch if not each.is_scheduled)
        wait_s = await self._take_tokens(asked)
        asked_ns = Lease.now_ns()
        written = Written(sending=self._sending, leaving=self._leaving)
        is_sent_here = wait_s is not None or self._is_test
        try:
            await self._commit(
                Taking(self._room.settings, self._account, self._is_test, is_sent_here, batch, written), asked_ns
            )
        finally:
            if wait_s is not None:
                await self._room.limiter.give_back(asked - (len(written.claimed) if written.claimed else 0))
        self._sending, self._leaving = written.sending, written.leaving
        for submission in written.left:
            submission.succeed(written.stream_id, {})
        if written.sent:
            assert written.sending is not None
            written.sending.under_way += 1
            self._room.start(self._send(written, asked_ns, wait_s or 0.0))

    async def _commit(self, taking: Taking, asked_ns: int) -> None:
        """Durable when it returns."""
        written = taking.written
        try:
            async with transaction(self._room.pool, self._account_id) as conn:
                await taking.write(conn)
        except DATABASE_ERRORS as error:
            if not await self._took_place(written, asked_ns, error):
                written.claimed = None
                raise
        if written.claimed is not None:
            failpoints.hit(
                "mail.committed",
                **written.facts(),
                first_seq=written.claimed.first_seq,
                last_seq=written.claimed.last_seq,
            )

    async def _take_tokens(self, addresses: int) -> float | None:
        """Seconds until so many may be sent; None where a worker has to do it later."""
        if self._is_test:
            return None
        if addresses == 0:
            return 0.0
        try:
            wait_s = await self._room.limiter.take(addresses)
        except NoTokens:
            return None
        if wait_s > TOKENS_PATIENCE_S:
            await self._room.limiter.give_back(addresses)
            return None
        return wait_s

    async def _took_place(self, written: Written, asked_ns: int, error: BaseException) -> bool:
        """Whether a commit without an answer was one, asked for as long as the lease would have held."""
        placed = [item for each in written.sent or written.left for item in each.placed]
        shard = written.sending if written.sent else written.leaving
        if not placed or shard is None:
            return False
        log.warning("mailroom: a commit went unanswered (%s)", type(error).__name__)
        until_ns = asked_ns + int(self._room.settings.lease_s * 1e9)
        while Lease.now_ns() < until_ns:
            try:
                async with transaction(self._room.pool, self._account_id) as conn:
                    return await desk_store.took_place(conn, shard.leased, shard.opening_id, placed[0].first_seq)
            except DATABASE_ERRORS:
                await asyncio.sleep(DATABASE_PAUSE_S)
        return False

    # —— the calls and the second commit ——

    async def _send(self, written: Written, asked_ns: int, wait_s: float) -> None:
        """The calls of a claimed batch, and what came of them."""
        shard, claimed = written.sending, written.claimed
        assert shard is not None
        assert claimed is not None
        try:
            answers = written.named(
                played.play(written) if self._is_test else await self._submit(written, asked_ns, wait_s)
            )
            with failpoints.span("result"):
                await self._write_down(written, shard.leased, claimed, answers)
        except Exception as error:
            log.exception("mailroom: a batch has no written outcome; its claim stands, so nobody is mailed twice")
            for each in written.sent:
                each.fail(error)
        finally:
            shard.under_way -= 1
            if shard.is_left and shard.under_way == 0:
                self._room.start(self._release(shard))

    async def _submit(self, written: Written, asked_ns: int, wait_s: float) -> list[Answered]:
        room, shard, claimed = self._room, written.sending, written.claimed
        assert shard is not None
        assert claimed is not None
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        lease = Lease(asked_ns + int(room.settings.lease_s * 1e9))
        try:
            report = await room.sender.submit_mails(shard.identity.encode(), written.rows(), lease, room.codec)
        except CoreError as error:
            log.error("mailroom: the send core refused a batch (%s)", error)
            return [Answered(seq, Outcome.NOT_WRITTEN, None, "the send core refused it") for seq, _ in written.numbered]
        failpoints.hit("mail.answered", **written.facts())
        room.count(report.counts)
        await room.limiter.throttled(report.throttled)
        if report.daily_quota_hit:
            await room.limiter.day_used_up()
        await room.limiter.give_back(sum(n for code, n in report.counts.items() if code in UNSENT))
        if room.accepted_log is not None and not room.system:
            async with room.pool.acquire() as conn:
                room.system = await store.system_identifier(conn)
        await remember_round(room.accepted_log, room.system, shard.leased, claimed, report, None)
        return [Answered(seq, Outcome(outcome), message_id, error) for seq, outcome, message_id, error in report.rows]

    async def _write_down(self, written: Written, shard: LeasedShard, claimed: Round, answers: list[Answered]) -> None:
        """Outcomes once, however often the database fails meanwhile; then the requests get their answers."""
        began = time.monotonic()
        by_seq = {answer.seq: answer for answer in answers}
        counts = Counter(answer.outcome for answer in answers)
        is_retried = any(counts[outcome] for outcome in RETRYABLE)
        while True:
            try:
                async with transaction(self._room.pool, self._account_id) as conn:
                    is_new = await desk_store.write_answers(conn, shard, claimed, answers, counts, FOLD_INTERVAL_S)
                    if is_new:
                        if is_retried:
                            await store.permit_retries(conn, shard, claimed)
                        if self._is_test:
                            await desk_store.insert_played_events(conn, shard, played.events(written, by_seq))
                        await keys.keep(conn, self._account_id, self._is_test, written.sent, written.stream_id, by_seq)
                break
            except DATABASE_ERRORS as error:
                log.warning("mailroom: outcomes not written yet (%s)", type(error).__name__)
                if time.monotonic() - began > self._room.settings.fence_s:
                    raise
                await asyncio.sleep(DATABASE_PAUSE_S)
        failpoints.hit("mail.written", **written.facts())
        if is_retried and written.sending is not None:
            # Workers take over whatever has to be tried again; new mail gets another shard.
            written.sending.is_left = True
            if self._sending is written.sending:
                self._sending = None
        for each in written.sent:
            each.succeed(written.stream_id, by_seq)

    async def _release(self, shard: Shard) -> None:
        """Lets a shard go that gets no more mail, so that workers may take it."""
        try:
            async with transaction(self._room.pool, self._account_id) as conn:
                await store.release_shard(conn, shard.leased)
                await outbox.append(conn, ShardsReadyV1(shard.leased.stream_id, shard.leased.shard))
        except DATABASE_ERRORS as error:
            # Its lease ends by itself.
            log.warning("mailroom: a shard is not released (%s)", type(error).__name__)
