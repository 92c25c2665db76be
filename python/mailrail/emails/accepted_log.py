"""The log of accepted mail outside the database: the one thing that a restored backup cannot forget.

A record is added for every round of which SES accepted something, or may have, BEFORE the round's results are committed:
a database that is lost in that moment leaves the record behind. Its claim was committed before its first call, so every
record has its row in `claims`, and a record without one says that the database is older than the log.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import orjson

from mailrail.bus.kafka import KafkaBus
from mailrail.bus.messages import BadLetter
from mailrail.config import Settings
from mailrail.emails.model import LeasedShard, Outcome, Round

if TYPE_CHECKING:
    from mailrail._core import Report

log = logging.getLogger(__name__)

VERSION = 1
# 300,000 rounds or so in a file: the logs kept reach back some hundred million mails.
FILE_MAX_BYTES = 64 * 1024 * 1024
FILES_KEPT = 4
BLOCK_BYTES = 64 * 1024

# Inclusive spans of recipients' numbers.
Ranges: TypeAlias = list[list[int]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A round that SES accepted at least in part, or may have.

    `claimed` is whom the round was for; `accepted` those whom SES surely accepted; with `unsure` the others of the round may
    have been accepted too. `system` is PostgreSQL's system identifier, `at` an ISO time for people.
    """

    system: str
    account_id: int
    campaign_id: int | None
    stream_id: int
    shard: int
    claim_id: int
    attempt: int
    claimed: Ranges
    accepted: Ranges
    unsure: bool
    at: str


@dataclass(frozen=True, slots=True)
class Released:
    """A person looked and let sending go on: what stands before this mark is settled. The database holds the same mark."""

    mark: str
    at: str


Record: TypeAlias = Accepted | Released
KINDS: dict[str, type[Accepted] | type[Released]] = {"accepted": Accepted, "released": Released}


class AcceptedLog(Protocol):
    """Where the records are kept."""

    async def append(self, record: Record) -> None:
        """Adds a record that outlives this process from the moment this returns. Raises OSError."""
        ...

    async def tail(self, most: int) -> list[Record]:
        """The last records, oldest first. Raises OSError."""
        ...

    def records(self) -> AsyncIterator[Record]:
        """All records that are kept, oldest first. Raises OSError."""
        ...


def to_line(record: Record) -> bytes:
    """One JSON object, without a line's end."""
    kind = "accepted" if isinstance(record, Accepted) else "released"
    return orjson.dumps({"v": VERSION, "kind": kind, **asdict(record)})


def from_line(line: bytes) -> Record | None:
    """The inverse; None for what is no record of ours, such as a line that a full disk cut short."""
    try:
        fields = orjson.loads(line)
        if fields.pop("v") != VERSION:
            return None
        return KINDS[fields.pop("kind")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_lines(lines: Iterable[bytes]) -> list[Record]:
    """The records among the lines; the others are counted in the log."""
    filled = [line for line in lines if line.strip()]
    read = [record for line in filled if (record := from_line(line)) is not None]
    if len(read) < len(filled):
        log.warning("accepted log: %d lines are no records", len(filled) - len(read))
    return read


class FileLog:
    """JSON lines in a file, and the files before it as `.1`, `.2` …

    Every record is one write at the file's end, so that a killed process loses none and several processes may share the
    file. There is no fsync: only a machine that fails as a whole loses the last seconds, and its database, which does sync,
    is then ahead of the log and not behind it.
    """

    def __init__(self, path: Path, max_bytes: int = FILE_MAX_BYTES, kept: int = FILES_KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._file: int | None = None

    async def append(self, record: Record) -> None:
        """See AcceptedLog."""
        line = to_line(record) + b"\n"
        file = self._current()
        if os.fstat(file).st_size + len(line) > self._max_bytes:
            self._rotate()
            file = self._current()
        written = os.write(file, line)
        if written < len(line):  # a full disk; the next record begins on a line of its own
            os.write(file, b"\n")
            raise OSError(f"only {written} of {len(line)} bytes were written")

    async def tail(self, most: int) -> list[Record]:
        """See AcceptedLog."""
        found: list[Record] = []
        for file in self._files():
            if len(found) >= most:
                break
            lines = await asyncio.to_thread(last_lines, file, most - len(found))
            found = [*read_lines(lines), *found]
        return found[-most:]

    async def records(self) -> AsyncIterator[Record]:
        """See AcceptedLog."""
        for file in reversed(self._files()):
            with file.open("rb") as lines:
                for line in lines:
                    for record in read_lines([line]):
                        yield record

    def close(self) -> None:
        """Lets the file go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _files(self) -> list[Path]:
        """Those that exist, newest first."""
        return [file for file in (self._path, *map(self._old, range(1, self._kept))) if file.exists()]

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _current(self) -> int:
        """The open file, opened anew once another process has rotated it away."""
        if self._file is not None and is_same_file(self._file, self._path):
            return self._file
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._file

    def _rotate(self) -> None:
        """Moves every file one place on, unless another process just did."""
        with locked(self._path.with_name(f"{self._path.name}.lock")):
            if not self._path.exists() or self._path.stat().st_size < self._max_bytes // 2:
                return
            for number in reversed(range(1, self._kept - 1)):
                if self._old(number).exists():
                    self._old(number).replace(self._old(number + 1))
            self._path.replace(self._old(1))


def is_same_file(file: int, path: Path) -> bool:
    """Whether an open file is what stands at the path now."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def last_lines(path: Path, most: int) -> list[bytes]:
    """The last lines of a file, oldest first, without reading what stands before them."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        read = b""
        while at > 0 and read.count(b"\n") <= most:
            size = min(BLOCK_BYTES, at)
            at = file.seek(at - size)
            read = file.read(size) + read
    lines = read.split(b"\n")
    return [line for line in lines[(0 if at == 0 else 1) :] if line][-most:]


class Entry(Protocol):
    """What a broker keeps."""

    @property
    def value(self) -> bytes:
        """A record's line."""
        ...


class RetainedTopic(Protocol):
    """What the log needs of a broker: a topic that is never cleaned, in one partition, so that it has an order."""

    async def append_retained(self, topic: str, key: bytes, value: bytes) -> None:
        """Returns once the broker has it."""
        ...

    async def read_tail(self, topic: str, most: int) -> Sequence[Entry]:
        """The last entries, oldest first."""
        ...


TOPIC = "mailrail.accepted.v1"
# A broker's topic is read in one piece: as many records as the files above hold.
TOPIC_READ_MAX = 1_000_000


# While a broker is away one round in so many seconds waits to learn whether it is back; the others' records gather here.
RETRY_S = 5.0
BACKLOG_MAX = 20_000


class TopicLog:
    """The same records in a retained topic. Raises OSError where the broker fails, whatever its client raises.

    Mail does not wait for a broker: records that it did not take are kept in memory and follow once it is back. What a
    process that dies meanwhile had in memory, the guard does not know of.
    """

    def __init__(self, topic: RetainedTopic, name: str = TOPIC) -> None:
        self._topic = topic
        self._name = name
        self._backlog: deque[Record] = deque(maxlen=BACKLOG_MAX)
        self._try_again_at = 0.0

    async def append(self, record: Record) -> None:
        """See AcceptedLog. While the broker is away this returns at once, but for the first who notices."""
        self._backlog.append(record)
        if time.monotonic() < self._try_again_at:
            return
        if len(self._backlog) > 1:
            # Whoever comes while this one tries does not.
            self._try_again_at = time.monotonic() + RETRY_S
        try:
            while self._backlog:
                await self._send(self._backlog.popleft())
        except OSError:
            self._try_again_at = time.monotonic() + RETRY_S
            raise
        self._try_again_at = 0.0

    async def tail(self, most: int) -> list[Record]:
        """See AcceptedLog."""
        entries = await self._try(lambda: self._topic.read_tail(self._name, most))
        return read_lines(entry.value for entry in entries)

    async def records(self) -> AsyncIterator[Record]:
        """See AcceptedLog."""
        for record in await self.tail(TOPIC_READ_MAX):
            yield record

    async def _send(self, record: Record) -> None:
        key = str(record.stream_id).encode() if isinstance(record, Accepted) else b"released"
        try:
            await self._try(lambda: self._topic.append_retained(self._name, key, to_line(record)))
        except BaseException:
            self._backlog.appendleft(record)
            raise

    async def _try(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        try:
            return await call()
        except OSError:
            raise
        except Exception as error:  # clients of brokers have error trees of their own
            raise OSError(f"the broker failed ({type(error).__name__})") from error


def open_log(path: str, topic: RetainedTopic | None = None) -> AcceptedLog | None:
    """The log that the settings ask for: a broker's topic where there is one, else the file, else none."""
    if topic is not None:
        return TopicLog(topic)
    return FileLog(Path(path)) if path else None


@contextlib.asynccontextmanager
async def opened_log(settings: Settings) -> AsyncIterator[AcceptedLog | None]:
    """The log for the length of a command, which has no bus of its own."""
    if not settings.kafka:
        yield open_log(settings.accepted_log)
        return

    async def park_nothing(letter: BadLetter) -> None:
        """A command hears no messages."""

    bus = KafkaBus(settings.kafka, settings.kafka_prefix, park_nothing)
    try:
        yield TopicLog(bus)
    finally:
        await bus.close()


def ranges_of(first_seq: int | None, last_seq: int | None, seqs: Sequence[int] | None) -> Ranges:
    """The numbers of a round as spans; `seqs` ascend."""
    if seqs is None:
        assert first_seq is not None
        assert last_seq is not None
        return [[first_seq, last_seq]]
    spans: Ranges = []
    for seq in seqs:
        if spans and spans[-1][1] == seq - 1:
            spans[-1][1] = seq
        else:
            spans.append([seq, seq])
    return spans


async def remember_round(
    accepted_log: AcceptedLog | None,
    system: str,
    shard: LeasedShard,
    claimed: Round,
    report: "Report",
    campaign_id: int | None,
) -> None:
    """Adds a round of which SES accepted something, or may have. To be called before its results are committed: should the
    database be lost now and an older state of it restored, the log still knows. `system` is the database's identifier.
    """
    accepted, unknown = (report.counts.get(outcome, 0) for outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN))
    if accepted_log is None or not (accepted or unknown):
        return
    record = Accepted(
        system=system,
        account_id=shard.account_id,
        campaign_id=campaign_id,
        stream_id=shard.stream_id,
        shard=shard.shard,
        claim_id=claimed.claim_id,
        attempt=claimed.attempt,
        claimed=ranges_of(claimed.first_seq, claimed.last_seq, claimed.seqs),
        accepted=orjson.loads(report.accepted_ranges),
        unsure=unknown > 0,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    try:
        await accepted_log.append(record)
    except OSError as error:
        # The results are truth and go on; only the guard against restored backups misses this round.
        log.error("the log of accepted mail cannot be written (%s)", error)
