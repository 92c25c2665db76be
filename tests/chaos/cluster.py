"""A whole installation of real processes on loopback, in which everything but the stand-in for SES may be killed at any time.

PostgreSQL has a data folder of its own; mailrail reaches it through the proxy, the harness past it. Whatever dies is started again at
once. All times are scaled: what takes an hour in production takes seconds here.
"""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from mailrail.config import SIMULATOR_TOPIC_ARN, Settings, with_role_urls
from mailrail.db.migrate import migrate
from mailrail.up import postgres
from mailrail.up.child import Child
from mailrail.worker import ROLES
from tests.chaos.nursery import Nursery, Process, nursery
from tests.chaos.proxy import Proxy, Report
from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY
from tests.support.kafka import Broker
from tests.support.ports import free_port
from tests.support.postgres import SECRET

DATABASE = "mailrail"
APPLIER_ROLES = ("apply", "fold", "sweep", "reconcile", "schedule")
SCALED = {
    "LEASE_S": "1.5",
    "CALL_TIMEOUT_MS": "700",
    "FENCE_S": "4",
    "EVENT_LAG_MAX_S": "5",
    "BOUNCE_GRACE_S": "0",
    "SHARD_SIZE": "100",
    "ROUND_SIZE": "20",
    "SHARDS_AT_ONCE": "2",
    "LOG_LEVEL": "warning",
}
# A signature is stamped in whole seconds, so SES may take it up to a second longer.
SIGNATURE_MAX_AGE_MS = 2000
# SNS gives a subscriber 15 s of the hour that a fence lasts. Left as they are, they would be four fences here, and a frozen API
# would keep a notification for as long.
EVENTS_TIMEOUT_MS = 500
EVENTS_PAUSE_MAX_MS = 500
READY_TIMEOUT_S = 60.0
STEP_S = 0.01
# One that dies right after its start would otherwise be started again and again.
RESTART_PAUSE_S = 0.3
DRAIN_TIMEOUT_S = 12.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of each process, and how the stand-in paces them; rate in recipients per second."""

    apis: int = 2
    senders: int = 3
    appliers: int = 2
    with_kafka: bool = False
    rate: float = 60.0
    settings: Mapping[str, str] = field(default_factory=dict)
    patches: Sequence[str] = ()


@dataclass(slots=True)
class Member:
    """A place that one process after another takes."""

    name: str
    role: str
    arguments: list[str]
    settings: dict[str, str]
    process: Process | None = None
    started_at: float = 0.0
    # Set by whoever sends it a SIGKILL.
    is_killed: bool = False
    lives: int = 0


Armed = Callable[[str], dict[str, dict[str, float]]]
Ended = Callable[[Member, Process, int], None]


class Database:
    """The server, which may crash."""

    def __init__(self, cluster: postgres.Cluster, child: Child) -> None:
        self.cluster = cluster
        self._child = child
        self.is_up = asyncio.Event()
        self.is_up.set()

    async def crash(self) -> float:
        """An immediate shutdown (SIGQUIT), a start, and the seconds until it took sessions again."""
        begun = time.monotonic()
        self.is_up.clear()
        self._child.send(signal.SIGQUIT)
        while self._child.running():
            await asyncio.sleep(STEP_S)
        while not postgres.is_ready(self.cluster, self._child):
            if not self._child.running():
                # Backends of the crashed one may still be leaving; then the start is refused and tried again.
                self._child = self.cluster.child()
                self._child.start()
            await asyncio.sleep(STEP_S)
            if time.monotonic() - begun > READY_TIMEOUT_S:
                raise RuntimeError(f"PostgreSQL did not come back:\n{self._child.last_lines()}")
        self.is_up.set()
        return time.monotonic() - begun

    def stop(self) -> None:
        """For good, without a checkpoint."""
        self._child.send(signal.SIGQUIT)
        self._child.wait(10)


class MessageBroker:
    """Kafka, whose verbs wait: they have a thread of their own. It lives as long as the cluster, because the kernel ends the broker
    with the thread that started it.
    """

    def __init__(self, broker: Broker, thread: ThreadPoolExecutor) -> None:
        self._broker = broker
        self._thread = thread
        self.is_busy = False

    @property
    def address(self) -> str:
        """Where clients connect."""
        return self._broker.address

    async def do(self, verb: Callable[[Broker], None]) -> None:
        """One verb, to its end; it goes on when nobody waits for it any more."""

        def run() -> None:
            try:
                verb(self._broker)
            finally:
                self.is_busy = False

        self.is_busy = True
        await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def end(self) -> None:
        """For good and at once, also in the middle of a start."""
        while True:
            self._broker.kill()
            if not self.is_busy:
                return
            await asyncio.sleep(10 * STEP_S)


class Cluster:
    """Everything that runs."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        shape: Shape,
        database: Database,
        proxy: Proxy,
        nest: Nursery,
        broker: MessageBroker | None,
        history: Path,
    ) -> None:
        self.folder = folder
        self.shape = shape
        self.database = database
        self.proxy = proxy
        self.broker = broker
        self.history = history
        self.members: list[Member] = []
        self.simulator_port = 0
        self.api_port = free_port()
        self.armed: Armed = lambda role: {}
        self.ended: Ended = lambda member, process, status: None
        self._seed = seed
        self._nest = nest
        self._keepers: list[asyncio.Task[None]] = []
        self._is_closing = False

    @property
    def direct(self) -> Settings:
        """Settings of somebody who reaches the database past the proxy."""
        return with_role_urls(Settings(database_url=self.database.cluster.url(DATABASE), secret_key=SECRET))

    @property
    def api_url(self) -> str:
        """Where the API answers, whichever of its processes."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def simulator_url(self) -> str:
        """The stand-in's own endpoints, unsigned."""
        return f"http://127.0.0.1:{self.simulator_port}"

    def living(self, role: str | None = None) -> list[Member]:
        """Members with a process just now."""
        return [member for member in self.members if member.process is not None and role in (None, member.role)]

    def member_of(self, pid: int) -> Member | None:
        """Whose process this is."""
        return next((member for member in self.living() if member.process and member.process.pid == pid), None)

    async def start_simulator(self, faults: Mapping[str, Any]) -> None:
        """The stand-in, which is never killed: it is the judge's witness."""
        self.simulator_port = free_port()
        directory = self.folder / "simulator"
        options = {
            "port": self.simulator_port,
            "directory": str(directory),
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_ACCESS_KEY,
            "region": REGION,
            "events_url": f"{self.api_url}/events/sns",
            "topic_arn": SIMULATOR_TOPIC_ARN,
            "events_timeout_ms": EVENTS_TIMEOUT_MS,
            "events_pause_max_ms": EVENTS_PAUSE_MAX_MS,
            "max_send_rate": self.shape.rate,
            "signature_max_age_ms": SIGNATURE_MAX_AGE_MS,
        }
        output = self.folder / "simulator.log"
        process = await self._nest.fork("simulator", ["stand-in", orjson.dumps(options).decode()], {}, output)
        while not re.search(r"^ready", output.read_text() if output.exists() else "", re.MULTILINE):
            if process.ended.done():
                raise RuntimeError(f"the simulator did not start: {output.read_text()[-500:]}")
            await asyncio.sleep(STEP_S)

    def populate(self) -> None:
        """Starts all members and keeps them going."""
        applier = ",".join(role for role in APPLIER_ROLES if role in ROLES)
        # Both ways of sending, by turns: which API process launches a campaign chooses.
        modes = ("slots", "simple")
        for number in range(self.shape.apis):
            self.members.append(Member(f"api-{number}", "api", ["api"], {"WIRE_MODE": modes[number % 2]}))
        for number in range(self.shape.senders):
            self.members.append(Member(f"send-{number}", "send", ["worker", "--roles", "send"], {}))
        self.members.append(Member("relay-0", "relay", ["worker", "--roles", "relay"], {}))
        for number in range(self.shape.appliers):
            self.members.append(Member(f"apply-{number}", "apply", ["worker", "--roles", applier], {}))
        self._keepers = [asyncio.create_task(self._keep(member)) for member in self.members]

    async def _keep(self, member: Member) -> None:
        while not self._is_closing:
            # Without a database a start is refused; waiting saves the tries.
            await self.database.is_up.wait()
            member.is_killed = False
            member.started_at = time.monotonic()
            member.lives += 1
            process = await self._nest.fork(
                member.role, member.arguments, self._environment(member), self.folder / f"{member.name}.log"
            )
            member.process = process
            status = await process.ended
            member.process = None
            self.ended(member, process, status)
            if status != -signal.SIGKILL or time.monotonic() - member.started_at < RESTART_PAUSE_S:
                await asyncio.sleep(RESTART_PAUSE_S)

    def _environment(self, member: Member) -> dict[str, str]:
        ca_file = str(self.folder / "simulator" / "ca.pem")
        settings = {
            "DATABASE_URL": at_port(self.database.cluster.url(DATABASE), self.proxy.port),
            "SECRET_KEY": SECRET,
            "PORT": str(self.api_port),
            "PUBLIC_URL": self.api_url,
            "SES_ENDPOINT": f"https://127.0.0.1:{self.simulator_port}",
            "SES_CA_FILE": ca_file,
            "SES_ACCESS_KEY": ACCESS_KEY,
            "SES_SECRET_KEY": SECRET_ACCESS_KEY,
            "SES_REGION": REGION,
            "SNS_TOPICS": SIMULATOR_TOPIC_ARN,
            "SNS_CERT_HOSTS": f"127.0.0.1:{self.simulator_port}",
            "SNS_CA_FILE": ca_file,
            "KAFKA": self.broker.address if self.broker else "",
            **SCALED,
            **self.shape.settings,
            **member.settings,
            "TEST_HISTORY": str(self.history),
            "TEST_FAILPOINTS": orjson.dumps(
                {"seed": self._seed * 100_003 + member.lives, "points": self.armed(member.role)}
            ).decode(),
        }
        return {f"MAILRAIL_{name}": value for name, value in settings.items()}

    async def renew(self) -> None:
        """Ends every process in an orderly way, so that the next ones run with what `armed` says now."""
        old = [(member, member.process) for member in self.living() if member.process is not None]
        for _, process in old:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        ended = [process.ended for _, process in old]
        _, late = await asyncio.wait(ended, timeout=DRAIN_TIMEOUT_S) if ended else (set(), set())
        for member, process in old:
            if process.ended in late:
                member.is_killed = True
                process.signal(signal.SIGKILL)

    async def close(self) -> None:
        """Starts nothing any more; the nursery's end takes the processes along."""
        self._is_closing = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(folder: Path, seed: int, shape: Shape, history: Path, report: Report) -> AsyncIterator[Cluster]:
    """A cluster with a simulator and no members yet, for the length of a block; nothing is left of it after."""
    async with contextlib.AsyncExitStack() as stack:
        prepared, child = postgres.start(postgres.prepare(folder / "database"))
        database = Database(prepared, child)
        stack.callback(database.stop)
        await postgres.ensure_database(prepared, DATABASE)
        await migrate(prepared.url(DATABASE), SECRET, report=lambda line: None)
        broker = None
        if shape.with_kafka:
            broker = MessageBroker(Broker(folder / "kafka"), stack.enter_context(ThreadPoolExecutor(1, "broker")))
            stack.push_async_callback(broker.end)
            await broker.do(Broker.start)
        proxy = await stack.enter_async_context(Proxy(prepared.port, seed, report).listening())
        nest = await stack.enter_async_context(nursery(folder / "nursery.log", shape.patches))
        cluster = Cluster(folder, seed, shape, database, proxy, nest, broker, history)
        stack.push_async_callback(cluster.close)
        yield cluster


def at_port(url: str, port: int) -> str:
    """The same URL at another port of this machine."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
