"""One child process: started by `launch.py`, in a session of its own, with its output in a log file."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LAUNCHER = str(Path(__file__).with_name("launch.py"))
READY_LINE = re.compile(r"^ready(?: (\d+))?$", re.MULTILINE)
PLAIN = "plain"
NAMESPACE = "namespace"
NOBODY = "nobody"


class Child:
    """A process that dies with us. Start it from the main thread: the kernel ties the death signal to the thread that forked.

    A session of its own keeps the terminal's Ctrl-C away, so that we decide about the order of the end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        death_signal: signal.Signals = signal.SIGKILL,
        mode: str = PLAIN,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.log_file = log_file
        self.death_signal = death_signal
        self.mode = mode
        self.process: subprocess.Popen[bytes] | None = None
        self.log_start = 0

    def start(self) -> None:
        """Fork and exec; what the program then does is seen by `status` and `output`."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.log_start = log.seek(0, os.SEEK_END)
            self.process = subprocess.Popen(
                launch_command(self.command, self.death_signal, self.mode),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; the launcher keeps it through every exec."""
        assert self.process is not None
        return self.process.pid

    def status(self) -> int | None:
        """None while it runs, else the exit status (negative: the signal)."""
        return None if self.process is None else self.process.poll()

    def running(self) -> bool:
        """Started and not ended."""
        return self.process is not None and self.process.poll() is None

    def send(self, which: signal.Signals) -> None:
        """Signal it, if it still runs."""
        if self.process is not None:
            self.process.send_signal(which)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        if self.process is None:
            return True
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def output(self) -> str:
        """What it printed since its start."""
        with self.log_file.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def last_lines(self, count: int = 8) -> str:
        """The end of its output, for the message that it died."""
        return "\n".join(self.output().rstrip().splitlines()[-count:])

    def ready_port(self) -> int | None:
        """The port of its line `ready <port>` (0 for a bare `ready`), or None while it has not printed one."""
        match = READY_LINE.search(self.output())
        return None if match is None else int(match[1] or 0)


def launch_command(command: Sequence[str], death_signal: signal.Signals, mode: str) -> list[str]:
    """The command behind the launcher, by an interpreter that reads neither site packages nor the user's variables."""
    return [sys.executable, "-I", "-S", LAUNCHER, death_signal.name, str(os.getpid()), mode, *command]
