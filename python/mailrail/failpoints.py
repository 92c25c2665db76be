"""Named points between the steps of the write ordering. In production each is one comparison; under test a process writes
down there what it has under way, and may be ended or frozen there by chance. The core has a twin, `failpoints.rs`.

`MAILRAIL_TEST_HISTORY` names a file to which every hit appends one JSON line in one write, so that a SIGKILL loses none.
`MAILRAIL_TEST_FAILPOINTS` arms points: `{"seed": 7, "points": {"claim.committed": {"kill": 0.02, "stop": 0.01}}}`.
"""

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

HISTORY = "MAILRAIL_TEST_HISTORY"
FAILPOINTS = "MAILRAIL_TEST_FAILPOINTS"
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Failpoints:
    """What the environment asks for; a process has one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get(HISTORY)
        self._history = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644) if path else None
        armed = _read(environment.get(FAILPOINTS, ""))
        self._points: dict[str, dict[str, float]] = armed.get("points", {})
        self._random = random.Random(f"{armed.get('seed', 0)}:{os.getpid()}")  # noqa: S311
        self._spans = itertools.count(1)
        self.armed = bool(self._points)
        self.active = self._history is not None or self.armed

    def hit(self, point: str, **facts: Any) -> None:
        """Records the point and draws its fate; facts are numbers, short texts, or lists of numbers."""
        if self.active:
            end = self._draw(point)
            self._record(point, facts if end is None else facts | {"end": end})
            if end is not None:
                os.kill(os.getpid(), SIGNALS[end])

    @contextlib.contextmanager
    def span(self, kind: str, **facts: Any) -> Iterator[None]:
        """Marks something as under way for the length of the block: a process killed meanwhile left it open."""
        if not self.active:
            yield
            return
        number = next(self._spans)
        self._record(f"{kind}.open", facts | {"span": kind, kind: number})
        try:
            yield
        finally:
            self._record(f"{kind}.closed", {"span": kind, kind: number})

    def _draw(self, point: str) -> str | None:
        # Both are drawn every time, so that switching one off does not shift the other.
        drawn = [end for end, chance in self._points.get(point, {}).items() if self._random.random() < chance]
        return drawn[0] if drawn else None

    def _record(self, point: str, facts: Mapping[str, Any]) -> None:
        if self._history is not None:
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            line = {"ns": now_ns, "pid": os.getpid(), "point": point, **facts}
            os.write(self._history, orjson.dumps(line) + b"\n")


def _read(text: str) -> dict[str, Any]:
    try:
        armed = orjson.loads(text) if text else {}
        if not isinstance(armed, dict) or not set().union(*armed.get("points", {}).values()) <= SIGNALS.keys():
            raise ValueError("it needs points that kill or stop")
    except (ValueError, AttributeError, TypeError) as error:
        print(f"mailrail: {FAILPOINTS} is ignored: {error}", file=sys.stderr)
        return {}
    return armed


_process = Failpoints(os.environ)
hit = _process.hit
span = _process.span


def is_armed() -> bool:
    """Whether this process may end or freeze by chance."""
    return _process.armed


def rearm(environment: Mapping[str, str]) -> None:
    """Reads the environment again, for a process that was forked after this module was loaded."""
    _process.__init__(environment)  # type: ignore[misc]
