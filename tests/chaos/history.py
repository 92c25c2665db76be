"""The history that all processes write: which points they passed, and what each had under way when it died.

A line is `{"ns", "pid", "point", …facts}` (`mailrail/failpoints.py`). `X.open` and `X.closed` carry `"span": "X"` and the span's
number; `"end"` says that the process killed or froze itself there. `process.started` begins a new life of a process id.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

STARTED = "process.started"
# What must be under way in a process for its end to count.
COUNTED_SPANS = frozenset(("claim", "call", "result", "event", "ledger"))


@dataclass(frozen=True, slots=True)
class SelfEnd:
    """A process that ended or froze itself at a point."""

    pid: int
    point: str
    end: str


@dataclass(slots=True)
class Life:
    """One process: its spans under way as (kind, number), and the last point it passed."""

    role: str = ""
    open: dict[tuple[str, int], None] = field(default_factory=dict)
    last_point: str = ""
    self_end: SelfEnd | None = None


class History:
    """Reads the file as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._lives: dict[int, Life] = {}
        self.hits: Counter[str] = Counter()
        self._news: list[SelfEnd] = []

    def read(self) -> list[SelfEnd]:
        """Takes in what was written since the last time; returns the self-ends among it."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(orjson.loads(line))
        news, self._news = self._news, []
        return news

    def open_spans(self, pid: int) -> set[str]:
        """The kinds of what the process has under way, as far as was read."""
        life = self._lives.get(pid)
        return {kind for kind, _ in life.open} if life else set()

    def last_point(self, pid: int) -> str:
        """The last point that the process passed: between it and the next one it died, if it did."""
        life = self._lives.get(pid)
        return life.last_point if life else ""

    def self_end(self, pid: int) -> SelfEnd | None:
        """The kill that the process did to itself."""
        life = self._lives.get(pid)
        return life.self_end if life else None

    def _take(self, line: dict[str, Any]) -> None:
        pid, point = line["pid"], line["point"]
        if point == STARTED:
            self._lives[pid] = Life(line.get("role", ""))
            return
        life = self._lives.setdefault(pid, Life())
        span = line.get("span")
        if span is not None:
            key = (span, line[span])
            if point.endswith(".open"):
                life.open[key] = None
            else:
                life.open.pop(key, None)
            return
        self.hits[point] += 1
        life.last_point = point
        if "end" in line:
            end = SelfEnd(pid, point, line["end"])
            self._news.append(end)
            if end.end == "kill":
                life.self_end = end


class Scribe:
    """Writes what the harness itself does into the history."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, point: str, **facts: Any) -> None:
        """One line in one write."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.write(self._file, orjson.dumps({"ns": now_ns, "pid": os.getpid(), "point": point, **facts}) + b"\n")

    def close(self) -> None:
        """Lets the file go."""
        os.close(self._file)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """All lines of a finished history."""
    with path.open("rb") as file:
        for line in file:
            yield orjson.loads(line)
