"""What passes over a desk of the mailroom: requests, the range of numbers in use, and what a commit wrote."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from uuid import UUID

from mailrail._core import encode_mail_rows
from mailrail.addresses import domain_of
from mailrail.domains.service import covering_domains
from mailrail.emails.desk_store import SHARD_SIZE, Answered, Placed
from mailrail.emails.keys import Key
from mailrail.emails.mail import Mail
from mailrail.emails.model import LeasedShard, Outcome, Round


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail that was taken: its numbers, and what its first attempt came to, address by address. None for an address that
    a worker will try.
    """

    stream_id: int
    first_seq: int
    mail: Mail
    outcomes: tuple[Answered | None, ...]


@dataclass(eq=False, slots=True)
class Submission:
    """Mails of one request, taken together or not at all. `done` gets a `Sent` for each, or what a replay answers."""

    mails: Sequence[Mail]
    key: Key | None = None
    done: "asyncio.Future[list[Sent]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    placed: list[Placed] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """Everybody that its mails go to."""
        return [address for mail in self.mails for _, address in mail.addresses]

    @property
    def is_scheduled(self) -> bool:
        """Whether one of its mails waits for its time; then the others go with it to the workers, due at once."""
        return any(mail.scheduled_at is not None for mail in self.mails)

    def is_covered_by(self, verified_domains: frozenset[str]) -> bool:
        """Whether every sender is of a verified domain, or below one."""
        return all(verified_domains & set(covering_domains(domain_of(mail.sender))) for mail in self.mails)

    def sent(self, stream_id: int, by_seq: Mapping[int, Answered]) -> list[Sent]:
        """Its mails in their order, with what is known of each address."""
        return [
            Sent(
                stream_id,
                item.first_seq,
                item.mail,
                tuple(by_seq.get(item.first_seq + n) for n in range(len(item.mail.addresses))),
            )
            for item in self.placed
        ]

    def succeed(self, stream_id: int, by_seq: Mapping[int, Answered]) -> None:
        """Gives its request the answer."""
        if not self.done.done():
            self.done.set_result(self.sent(stream_id, by_seq))

    def fail(self, error: BaseException) -> None:
        """Nothing of it was taken."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class Shard:
    """A range of numbers that this process gives out, known by its `opening_id`. `leased` ones are sent from here, the others by
    workers.
    """

    leased: LeasedShard
    opening_id: UUID
    identity: str
    next_seq: int
    day: date = field(default_factory=lambda: datetime.now(UTC).date())
    under_way: int = 0
    is_left: bool = False

    @property
    def room(self) -> int:
        """Numbers that are left in it."""
        return (self.leased.shard + 1) * SHARD_SIZE + 1 - self.next_seq

    def has_room(self, addresses: int) -> bool:
        """Whether so many more fit and it is still in use."""
        return not self.is_left and self.room >= addresses and self.day == datetime.now(UTC).date()


@dataclass(eq=False, slots=True)
class Written:
    """What a first commit wrote, and where: `sent` is claimed and goes out from here, `left` has permits for workers."""

    stream_id: int = 0
    sending: Shard | None = None
    leaving: Shard | None = None
    sent: list[Submission] = field(default_factory=list)
    left: list[Submission] = field(default_factory=list)
    claimed: Round | None = None
    # Address in lower case → why nothing may be sent to it.
    suppressed: Mapping[str, str] = field(default_factory=dict)

    def used(self, *, sent: bool) -> LeasedShard:
        """The shard of what is sent from here, or of what is left."""
        shard = self.sending if sent else self.leaving
        assert shard is not None
        return shard.leased

    @property
    def numbered(self) -> list[tuple[int, str]]:
        """(number, address) of all that is sent from here."""
        return [
            (item.first_seq + n, address)
            for each in self.sent
            for item in each.placed
            for n, (_, address) in enumerate(item.mail.addresses)
        ]

    def rows(self) -> bytes:
        """The first attempt, as `Sender.submit_mails` takes it."""
        numbered = self.numbered
        return encode_mail_rows(
            self.stream_id,
            [seq for seq, _ in numbered],
            1,
            [Outcome.SKIPPED_SUPPRESSED if self.is_suppressed(address) else None for _, address in numbered],
            [address for _, address in numbered],
            [item.mail.content for each in self.sent for item in each.placed for _ in item.mail.addresses],
        )

    def is_suppressed(self, address: str) -> bool:
        """Whether nothing may be sent to it."""
        return address.lower() in self.suppressed

    def named(self, answers: Iterable[Answered]) -> list[Answered]:
        """The answers, each suppressed address with the reason."""
        addresses = dict(self.numbered)
        return [
            replace(one, error=f"suppressed: {self.suppressed[addresses[one.seq].lower()]}")
            if one.outcome is Outcome.SKIPPED_SUPPRESSED
            else one
            for one in answers
        ]

    def facts(self) -> dict[str, int]:
        """The claim, for the history."""
        assert self.claimed is not None
        return {"stream_id": self.stream_id, "claim_id": self.claimed.claim_id, "attempt": self.claimed.attempt}
