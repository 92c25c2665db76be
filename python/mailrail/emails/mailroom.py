"""Where an API process sends transactional mail. Each account has a desk; what arrives while the desk writes is written
together with the next commit.

Two commits, as for a campaign's round: the mails, their hold and their claim before any call, and what came of the calls
after it. Whatever dies in between leaves a claim without results, which its shard's fold calls unknown. What cannot be
sent now is left to the workers with a permit.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import orjson

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Sender
from mailrail.accounts.model import Account
from mailrail.addresses import domain_of
from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool, transaction
from mailrail.domains.model import SenderNotVerified
from mailrail.domains.service import covering_domains
from mailrail.emails import keys, mails, store
from mailrail.emails.accepted_log import AcceptedLog, remember_round
from mailrail.emails.fold import FOLD_INTERVAL_S
from mailrail.emails.keys import Key
from mailrail.emails.mail import Mail
from mailrail.emails.mails import SHARD_SIZE, Answered, Placed
from mailrail.emails.model import RETRYABLE, UNSENT, EventKind, LeasedShard, Outcome, Round, SendingHeld
from mailrail.emails.submission import Sent, Shard, Submission, Written
from mailrail.errors import IdempotencyKeyInUse, MailrailError
from mailrail.ses.limiter import Limiter, NoTokens
from mailrail.suppressions import service as suppressions
from mailrail.wallet import service as wallet
from mailrail.wallet.model import InsufficientFunds, WalletFrozen

log = logging.getLogger(__name__)

# Addresses written by one commit.
COMMIT_MAX = 200
# Mail that would have to wait longer for its tokens is left to a worker.
TOKENS_PATIENCE_S = 1.0
DATABASE_PAUSE_S = 0.5
DESKS_MAX = 10_000
REFUSED = (InsufficientFunds, WalletFrozen)
# What one mail in a batch may cause, and would cause again.
UNWRITABLE = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)
# Amazon's mailbox simulator has an address for each fate; mail of a test key plays them.
PLAYED = {
    "bounce": (EventKind.SEND, EventKind.BOUNCE_PERMANENT),
    "complaint": (EventKind.SEND, EventKind.DELIVERY, EventKind.COMPLAINT),
    "ooto": (EventKind.SEND, EventKind.DELIVERY),
    "suppressionlist": (EventKind.SEND, EventKind.BOUNCE_PERMANENT),
}
PLAYED_OTHERWISE = (EventKind.SEND, EventKind.DELIVERY)
SIMULATED_DOMAIN = "simulator.amazonses.com"


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

        All of them or none: raises SenderNotVerified, InsufficientFunds, WalletFrozen, SpendCapReached, SendingHeld, and
        Replayed, IdempotencyKeyInUse or IdempotencyKeyReused for a key that came before.
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
        self._waiting: list[Submission] = []
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
            submission = self._waiting.pop(0)
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
        asked = sum(len(each.addresses) for each in batch if not each.is_scheduled)
        wait_s = await self._take_tokens(asked)
        asked_ns = Lease.now_ns()
        written = Written()
        try:
            await self._commit(batch, written, asked_ns, is_sent_here=wait_s is not None or self._is_test)
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

    async def _commit(self, batch: list[Submission], written: Written, asked_ns: int, *, is_sent_here: bool) -> None:
        """Durable when it returns."""
        try:
            async with transaction(self._room.pool, self._account_id) as conn:
                await self._write(conn, batch, written, is_sent_here=is_sent_here)
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

    async def _write(self, conn: Connection, batch: list[Submission], written: Written, *, is_sent_here: bool) -> None:
        """Everything that has to be true before a call; whoever is refused leaves the batch with the reason."""
        assert self._account is not None
        account, settings = self._account, self._room.settings
        for submission in batch:
            submission.placed.clear()
        addresses = sorted({address.lower() for each in batch for address in each.addresses})
        senders = {domain_of(mail.sender) for submission in batch for mail in submission.mails}
        standing = await mails.read_standing(
            conn, account.id, sorted({name for sender in senders for name in covering_domains(sender)}), addresses
        )
        if standing.is_held:
            raise SendingHeld
        batch[:] = await keys.take(conn, account.id, batch, self._is_test, settings.lease_s)
        unverified = [each for each in batch if not each.is_covered_by(standing.verified_domains)]
        await self._refuse(conn, batch, unverified, SenderNotVerified())
        if not batch:
            return
        await self._open_shards(conn, batch, written, is_sent_here=is_sent_here)
        price_micros = account.price_micros if settings.billing and not self._is_test else 0
        written.suppressed = standing.suppressed
        if standing.has_erased:
            written.suppressed |= await suppressions.wake(conn, account.id, addresses, settings.secret_key)
        billed = {each: self._billed(each, written.suppressed, is_sent_here=is_sent_here) for each in batch}
        holds = await self._hold(conn, batch, written.stream_id, billed, price_micros)
        for submission in batch:
            shard = written.leaving if self._is_left(submission, is_sent_here=is_sent_here) else written.sending
            assert shard is not None
            for mail in submission.mails:
                submission.placed.append(
                    Placed(mail, shard.next_seq, holds.get(submission), frozenset(billed[submission]))
                )
                shard.next_seq += len(mail.addresses)
        placed = [item for submission in batch for item in submission.placed]
        if not placed:
            return
        await mails.insert_mails(conn, account.id, written.stream_id, placed)
        written.left = [each for each in batch if self._is_left(each, is_sent_here=is_sent_here)]
        written.sent = [each for each in batch if each not in written.left]
        await keys.keep(conn, account.id, self._is_test, written.left, written.stream_id, {})
        await keys.keep(conn, account.id, self._is_test, written.sent, written.stream_id, None)
        if written.left:
            assert written.leaving is not None
            await mails.insert_first_permits(
                conn, written.leaving.leased, [item for each in written.left for item in each.placed]
            )
            if any(mail.scheduled_at is None for each in written.left for mail in each.mails):
                await outbox.append(conn, ShardsReadyV1(written.stream_id, written.leaving.leased.shard))
        if written.sent:
            assert written.sending is not None
            first = written.sent[0].placed[0].first_seq
            last = max(item.first_seq + len(item.mail.addresses) - 1 for each in written.sent for item in each.placed)
            written.claimed = await mails.insert_claim(conn, written.sending.leased, first, last)

    def _is_left(self, submission: Submission, *, is_sent_here: bool) -> bool:
        """Whether workers send it. A request with one scheduled mail is left as a whole: its others are due at once. What a
        test key sends is played here and now: no worker may ever have it.
        """
        return not self._is_test and (not is_sent_here or submission.is_scheduled)

    async def _open_shards(
        self, conn: Connection, batch: list[Submission], written: Written, *, is_sent_here: bool
    ) -> None:
        """Room for the batch's numbers, under a lease that covers its calls where it is sent from here."""
        sent = sum(len(each.addresses) for each in batch if not self._is_left(each, is_sent_here=is_sent_here))
        left = sum(len(each.addresses) for each in batch) - sent
        sending, leaving = self._sending, self._leaving
        if sending is not None and sent and not sending.has_room(sent):
            sending.is_left, sending = True, None
        if sending is not None and sent:
            renewed = await mails.renew(conn, sending.leased, self._room.settings.lease_s)
            if renewed is None:
                sending.is_left, sending = True, None
            else:
                sending.leased = renewed
        if leaving is not None and left and not leaving.has_room(left):
            leaving = None
        if sent and sending is None:
            sending = await self._open(conn, batch, self._room.settings.lease_s)
        if left and leaving is None:
            leaving = await self._open(conn, batch, None)
        written.sending, written.leaving = sending, leaving
        used = (sending if sent else None) or leaving
        assert used is not None
        written.stream_id = used.leased.stream_id
        if sent and left:
            assert sending is not None
            assert leaving is not None
            if sending.leased.stream_id != leaving.leased.stream_id:
                # Midnight passed between the two: both go on in the newer day.
                written.leaving = await self._open(conn, batch, None)
                written.sending = await self._open(conn, batch, self._room.settings.lease_s)
                written.stream_id = written.sending.leased.stream_id

    async def _open(self, conn: Connection, batch: list[Submission], lease_s: float | None) -> Shard:
        settings = self._room.settings
        identity: dict[str, Any] = {
            "account_id": self._account_id,
            "from_name": None,
            # Canaries for this day's unknown mails go by this sender.
            "from_email": batch[0].mails[0].sender,
            "reply_to": [],
            "configuration_set": settings.configuration_set or None,
            "base_url": settings.public_url,
        }
        stream_id, text = await mails.open_stream(
            conn,
            self._account_id,
            self._is_test,
            orjson.dumps(identity).decode(),
            timedelta(seconds=settings.bounce_grace_s),
        )
        leased = await mails.open_shard(conn, self._account_id, stream_id, lease_s)
        return Shard(leased, text, leased.shard * SHARD_SIZE + 1)

    def _billed(self, submission: Submission, suppressed: frozenset[str], *, is_sent_here: bool) -> list[str]:
        """The addresses that are paid for. Nobody pays for one that is suppressed; but what a worker sends later may not
        be by then, and is released if it is.
        """
        if self._is_left(submission, is_sent_here=is_sent_here):
            return submission.addresses
        return [address for address in submission.addresses if address.lower() not in suppressed]

    async def _hold(
        self,
        conn: Connection,
        batch: list[Submission],
        stream_id: int,
        billed: Mapping[Submission, list[str]],
        price_micros: int,
    ) -> dict[Submission, int]:
        """One hold for the batch; if the money is not enough for all, one for each that it is enough for, in their order.
        Those without money leave the batch.
        """
        paying = [each for each in batch if billed[each]]
        if price_micros == 0 or not paying:
            return {}
        try:
            recipients = sum(len(billed[each]) for each in paying)
            async with conn.transaction():
                hold = await wallet.hold(conn, self._account_id, stream_id, price_micros, recipients)
            return dict.fromkeys(paying, hold.id)
        except REFUSED as error:
            if len(paying) == 1:
                await self._refuse(conn, batch, paying, error)
                return {}
        holds: dict[Submission, int] = {}
        for each in paying:
            try:
                async with conn.transaction():
                    hold = await wallet.hold(conn, self._account_id, stream_id, price_micros, len(billed[each]))
                holds[each] = hold.id
            except REFUSED as error:
                await self._refuse(conn, batch, [each], error)
        return holds

    async def _refuse(
        self, conn: Connection, batch: list[Submission], refused: list[Submission], error: MailrailError
    ) -> None:
        await keys.drop(conn, self._account_id, self._is_test, refused)
        for each in refused:
            batch.remove(each)
            each.fail(error)

    async def _took_place(self, written: Written, asked_ns: int, error: BaseException) -> bool:
        """Whether a commit without an answer was one, asked for as long as the lease would have held."""
        placed = [item for each in written.sent + written.left for item in each.placed]
        if not placed:
            return False
        log.warning("mailroom: a commit went unanswered (%s)", type(error).__name__)
        until_ns = asked_ns + int(self._room.settings.lease_s * 1e9)
        while Lease.now_ns() < until_ns:
            try:
                async with transaction(self._room.pool, self._account_id) as conn:
                    return await mails.took_place(conn, self._account_id, written.stream_id, placed[0].first_seq)
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
            answers = self._play(written) if self._is_test else await self._submit(written, asked_ns, wait_s)
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

    def _play(self, written: Written) -> list[Answered]:
        """Outcomes of mail that never leaves this machine."""
        return [
            Answered(seq, Outcome.SKIPPED_SUPPRESSED, None, None)
            if written.is_suppressed(address)
            else Answered(seq, Outcome.ACCEPTED, f"test-{written.stream_id:x}-{seq}", None)
            for seq, address in written.numbered
        ]

    async def _write_down(self, written: Written, shard: LeasedShard, claimed: Round, answers: list[Answered]) -> None:
        """Outcomes once, however often the database fails meanwhile; then the requests get their answers."""
        began = time.monotonic()
        by_seq = {answer.seq: answer for answer in answers}
        counts = {outcome: sum(answer.outcome is outcome for answer in answers) for outcome in Outcome}
        is_retried = any(counts[outcome] for outcome in RETRYABLE)
        while True:
            try:
                async with transaction(self._room.pool, self._account_id) as conn:
                    if not await store.has_result_batch(conn, shard, claimed):
                        await mails.insert_answers(conn, shard, claimed, answers)
                        await store.add_progress(conn, shard, {int(outcome): n for outcome, n in counts.items()})
                        if is_retried:
                            await store.permit_retries(conn, shard, claimed)
                        if self._is_test:
                            await self._write_played(conn, shard, written, by_seq)
                        await mails.fold_soon(conn, shard, FOLD_INTERVAL_S)
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

    async def _write_played(
        self, conn: Connection, shard: LeasedShard, written: Written, by_seq: Mapping[int, Answered]
    ) -> None:
        played = [
            (seq, int(kind))
            for seq, address in written.numbered
            if by_seq[seq].outcome is Outcome.ACCEPTED
            for kind in _fate(address)
        ]
        await mails.insert_played_events(conn, shard, [seq for seq, _ in played], [kind for _, kind in played])

    async def _release(self, shard: Shard) -> None:
        """Lets a shard go that gets no more mail, so that workers may take it."""
        try:
            async with transaction(self._room.pool, self._account_id) as conn:
                await store.release_shard(conn, shard.leased)
                await outbox.append(conn, ShardsReadyV1(shard.leased.stream_id, shard.leased.shard))
        except DATABASE_ERRORS as error:
            # Its lease ends by itself.
            log.warning("mailroom: a shard is not released (%s)", type(error).__name__)


def _fate(address: str) -> tuple[EventKind, ...]:
    local, _, domain = address.lower().partition("@")
    return PLAYED.get(local.partition("+")[0], PLAYED_OTHERWISE) if domain == SIMULATED_DOMAIN else PLAYED_OTHERWISE
