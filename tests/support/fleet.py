"""The production commands as real processes on a test's database, beside a simulator."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan
from mailrail.config import SIMULATOR_TOPIC_ARN, Settings, variable
from mailrail.db.pool import Pool
from mailrail.wallet import service as wallet
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.processes import wait_until
from tests.support.simulator import RunningSimulator, simulating


@dataclass(frozen=True, slots=True)
class Process:
    """A command that runs; its output goes to a file."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def text(self) -> str:
        """All that it printed and logged."""
        return self.log.read_text()

    def end(self, which: signal.Signals = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Signals it; its exit status. Fails with its log where it does not end."""
        self.process.send_signal(which)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout_s:g} s:\n{self.text()}") from None


def variables(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings, and none of the tester's own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILRAIL_")}
    for item in dataclasses.fields(Settings):
        value = getattr(settings, item.name)
        if value != item.default:
            clean[variable(item.name)] = ",".join(value) if isinstance(value, tuple) else str(value)
    return clean


@contextlib.contextmanager
def starting(name: str, settings: Settings, folder: Path, *arguments: str, **environment: str) -> Iterator[Process]:
    """`mailrail NAME` once it is ready, until the end of the block; killed there if it still runs.

    `environment` has variables that are no settings.
    """
    log = folder / f"{name}-{len(list(folder.glob(f'{name}-*.log')))}.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "mailrail", name, *arguments],
            stdout=out,
            stderr=out,
            env=variables(settings) | environment,
        )
    process = Process(name, child, log)
    try:
        wait_until(lambda: "ready" in process.text().split() or child.poll() is not None, f"the start of {name}")
        assert child.poll() is None, process.text()
        yield process
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def command(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """An operator's command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mailrail", *arguments],
        capture_output=True,
        text=True,
        env=variables(settings),
        timeout=120,
    )


@contextlib.contextmanager
def simulated(
    database: Database, folder: Path, changes: dict[str, Any], **options: Any
) -> Iterator[tuple[Settings, RunningSimulator]]:
    """A simulator, and the settings of processes that use it; `changes` are settings, `options` the simulator's."""
    port, simulator_port = free_port(), free_port()
    with simulating(
        folder,
        port=simulator_port,
        events_url=f"http://127.0.0.1:{port}/events/sns",
        topic_arn=SIMULATOR_TOPIC_ARN,
        **options,
    ) as simulator:
        yield (
            database.settings(
                port=port,
                public_url=f"http://127.0.0.1:{port}",
                ses_endpoint=simulator.endpoint,
                ses_ca_file=str(folder / "ca.pem"),
                sns_topics=(SIMULATOR_TOPIC_ARN,),
                sns_cert_hosts=(f"127.0.0.1:{simulator_port}",),
                sns_ca_file=str(folder / "ca.pem"),
                **{"bounce_grace_s": 0.0, "round_size": 100, "shard_size": 500, **changes},
            ),
            simulator,
        )


def fetch(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """(status, body) of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def add_sender(pool: Pool, recipients: int, email: str = "p{}@example.net") -> str:
    """A funded tenant with a verified domain and as many contacts; its key. `{}` in `email` is the contact's number."""
    async with pool.acquire() as conn, conn.transaction():
        account = await accounts.create(conn, "Acme", plan=Plan.UNLIMITED)
        await wallet.open_wallet(conn, account.id)
        await wallet.deposit(conn, account.id, 300 * recipients, "opening")
        _, key = await accounts.create_key(conn, account.id, "tests")
        await conn.execute(
            """INSERT INTO domains (account_id, domain, status, verified_at, next_check_at)
               VALUES ($1, 'acme.com', 'verified', now(), 'infinity')""",
            account.id,
        )
        await conn.execute(
            "INSERT INTO contacts (account_id, email) SELECT $1, replace($3, '{}', n::text) FROM generate_series(1, $2::integer) n",
            account.id,
            recipients,
            email,
        )
    return key


def post(settings: Settings, key: str, path: str, body: object = None) -> tuple[int, Any]:
    """(status, JSON) of a POST to the API of these settings."""
    return post_to(f"http://127.0.0.1:{settings.port}", key, path, body)


def post_to(base_url: str, key: str, path: str, body: object = None) -> tuple[int, Any]:
    """(status, JSON) of a POST to an API."""
    request = urllib.request.Request(  # noqa: S310
        base_url + path,
        data=b"" if body is None else orjson.dumps(body),
        method="POST",
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, orjson.loads(error.read())


CAMPAIGN = {
    "name": "News",
    "subject": "Hi",
    "from": {"name": "Acme", "email": "news@acme.com"},
    "audience": {},
    "content": {"html": "<p>Hi</p>"},
}


def send_campaign(settings: Settings, key: str) -> str:
    """Starts a campaign to all contacts; its id."""
    status, made = post(settings, key, "/v1/mail/campaigns", CAMPAIGN)
    assert status == 201, made
    status, sent = post(settings, key, f"/v1/mail/campaigns/{made['id']}/send")
    assert status == 200, sent
    return str(made["id"])


def assert_each_got_one(simulator: RunningSimulator, recipients: int) -> None:
    """Nobody is missing, nobody has two."""
    counts = Counter(simulator.accepted())
    doubled = sorted(address for address, mails in counts.items() if mails > 1)
    found = (len(counts), doubled, simulator.get("duplicates")["count"])
    assert found == (recipients, [], 0), found


def accepted_count(simulator: RunningSimulator) -> int:
    """How many mails the simulator accepted."""
    return int(simulator.get("accepted?from=0&limit=0")["total"])


def set_faults(simulator: RunningSimulator, **menu: Any) -> None:
    """Replaces the simulator's faults."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{simulator.port}/_simulator/faults", data=orjson.dumps(menu), method="PUT"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200
