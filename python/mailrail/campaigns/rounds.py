"""One round of a shard: claim, read, submit, write down.

A claim is committed before any of its calls is written, and a call is written only while the lease holds; so whatever
dies in between leaves a trace that says who may have been written to. What is not known here is asked for, not guessed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Plan, Report, Sender
from mailrail.campaigns import store
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.emails import mails
from mailrail.emails import store as emails
from mailrail.emails.accepted_log import AcceptedLog, remember_round
from mailrail.emails.model import RETRYABLE, LeasedShard, Outcome, Round

log = logging.getLogger(__name__)

# Between two tries at a database that failed.
DATABASE_PAUSE_S = 0.5
CAUSES = {
    Outcome.HALTED: "Amazon SES refused the campaign as a whole: check the sender's verification and that sending is not paused.",
}


class Stream(Protocol):
    """What all rounds of a stream share."""

    campaign_id: int | None

    async def read(self, conn: Connection, shard: LeasedShard, claimed: Round) -> bytes:
        """The round's rows, for `submit`."""
        ...

    def submit(self, sender: Sender, rows: bytes, lease: Lease) -> Awaitable[Report]:
        """Sends them. Raises CoreError."""
        ...


@dataclass(slots=True)
class CampaignStream:
    """One content for all."""

    plan: Plan
    list_ids: Sequence[int]
    campaign_id: int | None

    async def read(self, conn: Connection, shard: LeasedShard, claimed: Round) -> bytes:
        """As emails/store.py reads a round."""
        return await emails.read_round(conn, shard, claimed, self.list_ids)

    def submit(self, sender: Sender, rows: bytes, lease: Lease) -> Awaitable[Report]:
        """Rendered for each recipient."""
        return sender.submit(self.plan, rows, lease)


@dataclass(slots=True)
class MailStream:
    """Transactional mail: each has its own content. `identity` is JSON for the core, `codec` makes the tokens of links."""

    identity: bytes
    codec: Codec
    campaign_id: int | None = None

    async def read(self, conn: Connection, shard: LeasedShard, claimed: Round) -> bytes:
        """As emails/mails.py reads a round."""
        return await mails.read_round(conn, shard, claimed)

    def submit(self, sender: Sender, rows: bytes, lease: Lease) -> Awaitable[Report]:
        """As each was prepared."""
        return sender.submit_mails(self.identity, rows, lease, self.codec)


@dataclass(frozen=True, slots=True)
class Sent:
    """A round that was claimed; without a report it was given back, and nobody in it was written to."""

    claim_id: int
    report: Report | None


class Rounds:
    """Sends rounds. `accepted_log` hears of every round that SES may have accepted, `count` of every round's outcomes."""

    def __init__(
        self,
        pool: Pool,
        sender: Sender,
        settings: Settings,
        accepted_log: AcceptedLog | None,
        count: Callable[[Mapping[int, int]], None],
    ) -> None:
        self._pool = pool
        self._sender = sender
        self._settings = settings
        self._accepted_log = accepted_log
        self._count = count
        self._system = ""
        self._stopping = False

    def stop(self) -> None:
        """From now on a database that stays away is waited for no longer than a lease."""
        self._stopping = True

    async def send_next(
        self,
        stream: Stream,
        shard: LeasedShard,
        lease: Lease,
        recipients: int,
        after_claim_id: int,
        timings: "Timings",
    ) -> Sent | None:
        """The shard's next round, of at most `recipients`; `after_claim_id` is the one before. None when there is none to
        claim any more. Raises CoreError if the core refuses the round as a whole.
        """
        with failpoints.span("claim"):
            claimed = await self._claim(shard, lease, recipients, after_claim_id)
            if claimed is None:
                return None
            rows = await self._read(stream, shard, claimed, timings)
            if rows is None:
                return Sent(claimed.claim_id, None)
            report = await self._submit(stream, shard, claimed, rows, lease)
            self._count(report.counts)
            await remember_round(self._accepted_log, self._system, shard, claimed, report, stream.campaign_id)
            await self._write_down(shard, claimed, report, timings)
        timings.add(report)
        return Sent(claimed.claim_id, report)

    async def _claim(self, shard: LeasedShard, lease: Lease, recipients: int, after_claim_id: int) -> Round | None:
        """Durable when it returns. None when nothing is due, the campaign stands still, or the lease is lost."""
        asked_ns = Lease.now_ns()
        until_ns = asked_ns + int(self._settings.lease_s * 1e9)
        try:
            async with self._pool.acquire() as conn:
                self._system = self._system or await emails.system_identifier(conn)
                claimed = await emails.claim_round(conn, shard, recipients, self._settings.lease_s)
        except DATABASE_ERRORS as error:
            log.warning("send loop: a claim went unanswered (%s)", type(error).__name__)
            claimed = await self._look_up_claim(shard, until_ns, after_claim_id)
        if claimed is None:
            return None
        lease.extend(until_ns)
        failpoints.hit("claim.committed", **_facts(shard, claimed), **_recipients(claimed))
        return claimed

    async def _look_up_claim(self, shard: LeasedShard, until_ns: int, after_claim_id: int) -> Round | None:
        """The claim whose commit went unanswered, if it took place and may still be sent; one that came too late is given
        back, since no call of it was begun. Asked for as long as it could be of use.
        """
        while Lease.now_ns() < until_ns:
            try:
                async with self._pool.acquire() as conn:
                    found, may_be_sent = await emails.find_claim(conn, shard, after_claim_id)
            except DATABASE_ERRORS:
                await asyncio.sleep(DATABASE_PAUSE_S)
                continue
            if found is None or may_be_sent:
                return found
            await self._withdraw(shard, found, "the lease ended before the claim was known")
            return None
        return None

    async def _read(self, stream: Stream, shard: LeasedShard, claimed: Round, timings: "Timings") -> bytes | None:
        """The round's rows; None once the database failed, and then nobody in the round was written to."""
        started = time.perf_counter()
        try:
            async with self._pool.acquire() as conn:
                rows = await stream.read(conn, shard, claimed)
        except DATABASE_ERRORS as error:
            log.warning("send loop: a round could not be read (%s)", type(error).__name__)
            await self._withdraw(shard, claimed, "the round could not be read")
            return None
        timings.read_s += time.perf_counter() - started
        failpoints.hit("rows.read", **_facts(shard, claimed))
        return rows

    async def _submit(self, stream: Stream, shard: LeasedShard, claimed: Round, rows: bytes, lease: Lease) -> Report:
        try:
            report = await stream.submit(self._sender, rows, lease)
        except CoreError:
            # Nothing was sent, and that is worth knowing.
            await self._withdraw(shard, claimed, "the send core refused the round")
            raise
        failpoints.hit("report.received", **_facts(shard, claimed))
        return report

    async def _write_down(self, shard: LeasedShard, claimed: Round, report: Report, timings: "Timings") -> None:
        """Outcomes are facts however late they come, and what is lost here would have to wait for its events."""
        started = time.perf_counter()

        async def write(conn: Connection) -> None:
            await self._write_once(conn, shard, claimed, report)

        with failpoints.span("result"):
            await self._persist(shard, claimed, write)
        timings.write_s += time.perf_counter() - started
        failpoints.hit("results.committed", **_facts(shard, claimed))
        if report.counts.get(Outcome.HALTED):
            async with self._pool.acquire() as conn, conn.transaction():
                await store.pause_campaign(conn, shard.stream_id, CAUSES[Outcome.HALTED])

    async def _write_once(self, conn: Connection, shard: LeasedShard, claimed: Round, report: Report) -> None:
        await emails.insert_results(conn, shard, claimed, report.outcomes)
        failpoints.hit("results.copied", **_facts(shard, claimed))
        if report.counts.get(Outcome.SKIPPED_SUPPRESSED):
            await emails.name_suppressions(conn, shard, claimed)
        await emails.add_progress(conn, shard, report.counts)
        if any(report.counts.get(outcome) for outcome in RETRYABLE):
            await emails.permit_retries(conn, shard, claimed)

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
                if is_cancelled() or time.perf_counter() - began > patience_s:
                    raise
                await asyncio.sleep(DATABASE_PAUSE_S)


def _facts(shard: LeasedShard, claimed: Round) -> dict[str, int]:
    return {
        "stream_id": shard.stream_id,
        "shard": shard.shard,
        "claim_id": claimed.claim_id,
        "attempt": claimed.attempt,
    }


def _recipients(claimed: Round) -> dict[str, int | list[int] | None]:
    return {"first_seq": claimed.first_seq, "last_seq": claimed.last_seq, "seqs": claimed.seqs}


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
