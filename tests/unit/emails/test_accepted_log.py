"""The file of accepted mail: every record comes back in order, across rotation, processes and torn lines."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailrail.emails.accepted_log import (
    Accepted,
    FileLog,
    Record,
    Released,
    TopicLog,
    from_line,
    ranges_of,
    to_line,
)


def record(claim_id: int) -> Accepted:
    return Accepted("7", 1, 2, 3 << 35, 0, claim_id, 1, [[1, 50]], [[1, 20], [22, 50]], False, "2026-01-01T00:00:00Z")


async def all_of(log: FileLog | TopicLog) -> list[Record]:
    return [item async for item in log.records()]


@pytest.mark.parametrize("item", [record(1), Released("ab12", "2026-01-01T00:00:00Z")])
def test_a_record_comes_back_as_it_was(item: Record) -> None:
    assert from_line(to_line(item)) == item


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"3", b'{"v":2,"kind":"accepted"}', b'{"v":1,"kind":"accepted","x":1}', to_line(record(1))[:-5]],
)
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert from_line(line) is None


async def test_records_come_back_across_rotation(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "accepted" / "log", max_bytes=2000, kept=4)
    for claim_id in range(20):
        await log.append(record(claim_id))
    assert [item.claim_id for item in await all_of(log) if isinstance(item, Accepted)] == list(range(20))
    assert await log.tail(8) == [record(claim_id) for claim_id in range(12, 20)]
    assert await log.tail(100) == await all_of(log)
    assert len(list((tmp_path / "accepted").glob("log*"))) > 2
    log.close()


async def test_the_oldest_file_goes(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "log", max_bytes=1000, kept=3)
    for claim_id in range(60):
        await log.append(record(claim_id))
    kept = await all_of(log)
    assert kept == [record(claim_id) for claim_id in range(60 - len(kept), 60)]
    assert {file.name for file in tmp_path.glob("log*")} == {"log", "log.1", "log.2", "log.lock"}
    log.close()


async def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "log")
    await log.append(record(1))
    with (tmp_path / "log").open("ab") as file:
        file.write(to_line(record(2))[:40] + b"\n")
    await log.append(record(3))
    assert await log.tail(10) == await all_of(log) == [record(1), record(3)]
    log.close()


APPEND = """
import asyncio, sys
from pathlib import Path
from mailrail.emails.accepted_log import FileLog
from tests.unit.emails.test_accepted_log import record

async def main():
    log = FileLog(Path(sys.argv[1]), max_bytes=8000, kept=100)
    for claim_id in range(300):
        await log.append(record(int(sys.argv[2]) * 1000 + claim_id))

asyncio.run(main())
"""


async def test_several_processes_share_a_file_and_rotate_it_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    command = [sys.executable, "-c", APPEND, str(path)]
    writers = [await asyncio.create_subprocess_exec(*command, str(number)) for number in range(3)]
    assert [await writer.wait() for writer in writers] == [0, 0, 0]
    log = FileLog(path, max_bytes=8000, kept=100)
    found = [item.claim_id for item in await all_of(log) if isinstance(item, Accepted)]
    assert sorted(found) == [number * 1000 + claim_id for number in range(3) for claim_id in range(300)]


async def test_a_log_that_was_never_written_is_empty(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "none" / "log")
    assert await log.tail(10) == await all_of(log) == []


class Broker:
    """A retained topic in memory."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.down = False

    async def append_retained(self, topic: str, key: bytes, value: bytes) -> None:
        """As the broker's client does."""
        if self.down:
            raise RuntimeError("no broker")
        self.values.append(value)

    async def read_tail(self, topic: str, most: int) -> Sequence[bytes]:
        """As the broker's client does."""
        return self.values[-most:]


async def test_a_topic_keeps_the_same_records() -> None:
    broker = Broker()
    log = TopicLog(broker)
    for claim_id in range(5):
        await log.append(record(claim_id))
    assert await log.tail(2) == [record(3), record(4)]
    assert len(await all_of(log)) == 5
    broker.down = True
    with pytest.raises(OSError, match="the broker failed"):
        await log.append(record(9))


def test_numbers_become_spans() -> None:
    assert ranges_of(3, 9, None) == [[3, 9]]
    assert ranges_of(None, None, [1, 2, 3, 7, 9, 10]) == [[1, 3], [7, 7], [9, 10]]
