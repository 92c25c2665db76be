"""The SES stand-in as a process of its own, and what it can be asked."""

import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY

_RUN = "import sys; from mailrail._core import run_simulator; run_simulator(sys.argv[1].encode())"


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that listens."""

    port: int
    directory: Path

    @property
    def endpoint(self) -> str:
        """Where SES calls go."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_pem(self) -> str:
        """The authority that signed its certificate."""
        return (self.directory / "ca.pem").read_text()

    def messages(self, to: str) -> list[dict[str, Any]]:
        """The mails assembled for one address, oldest first."""
        return self.get(f"messages?to={urllib.parse.quote(to, safe='')}")  # type: ignore[no-any-return]

    def accepted(self) -> list[str]:
        """To whom it accepted mail, in order, doubles included, canaries aside."""
        log = self.get("accepted?from=0&limit=1000000")
        assert log["complete"], "it forgot the oldest of its mails"
        to = (address for mail in log["mails"] for address in mail["to"])
        return [address for address in to if not address.endswith("@simulator.amazonses.com")]

    def forget(self) -> None:
        """Drops the mails kept so far."""
        self._request("messages", "DELETE")

    def get(self, path: str) -> Any:
        """Any of its own endpoints."""
        return orjson.loads(self._request(path, "GET"))

    def _request(self, path: str, method: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/_simulator/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the URL is ours
            return answer.read()  # type: ignore[no-any-return]


@contextmanager
def simulating(directory: Path, **options: Any) -> Iterator[RunningSimulator]:
    """A simulator for the length of a block; `options` are those of `run_simulator`."""
    settings = {
        "directory": str(directory),
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_ACCESS_KEY,
        "region": REGION,
        **options,
    }
    command = [sys.executable, "-c", _RUN, orjson.dumps(settings).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, _, port = process.stdout.readline().partition(" ")
            assert word == "ready", "the simulator did not start"
            yield RunningSimulator(int(port), directory)
        finally:
            process.terminate()
            process.wait(timeout=30)
