"""What `mailrail up` prints while it works: lines, and one line that fills up on a terminal."""

import shutil
import sys
import time
from typing import TextIO

BAR_CELLS = 30
# Without a terminal a line every few seconds is enough for a log.
LINE_INTERVAL_S = 2.0


def say(line: str) -> None:
    """One line, at once: the reader may be a pipe."""
    print(line, flush=True)


class ProgressBar:
    """`done` of `total`, redrawn in place on a terminal, printed now and then elsewhere."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.stream = stream or sys.stdout
        self.in_place = self.stream.isatty()
        self.printed_at = 0.0
        self.last = ""

    def show(self, done: int, words: str) -> None:
        """Draw the state; equal lines are not repeated."""
        line = f"{bar(done, self.total)} {words}"
        now = time.monotonic()
        if line == self.last or (not self.in_place and now - self.printed_at < LINE_INTERVAL_S):
            return
        self.last, self.printed_at = line, now
        if self.in_place:
            columns = shutil.get_terminal_size().columns - 1
            self.stream.write(f"\r\x1b[2K{line[:columns]}")
            self.stream.flush()
        else:
            self.stream.write(f"{line}\n")
            self.stream.flush()

    def close(self, done: int, words: str) -> None:
        """The last state stays on its own line."""
        self.printed_at = 0.0
        self.show(done, words)
        if self.in_place:
            self.stream.write("\n")
            self.stream.flush()


def bar(done: int, total: int) -> str:
    """`██████░░░░  60 %`; a finished bar is full and no other is."""
    share = min(done / total, 1.0) if total else 1.0
    cells = int(share * BAR_CELLS)
    return f"{'█' * cells}{'░' * (BAR_CELLS - cells)} {int(share * 100):3} %"
