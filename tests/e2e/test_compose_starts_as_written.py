"""docker-compose.yml and Dockerfile without a container engine: their very commands and variables, started on loopback.

What a container gives is replaced by name: hosts by 127.0.0.1 and a free port, folders by the test's own, the images of
PostgreSQL and Kafka by the servers of the test run.
"""

import asyncio
import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import yaml

from mailrail.config import Settings, load, with_role_urls
from mailrail.db.pool import open_pool
from mailrail.up.postgres import Cluster, ensure_database, running
from tests.support import fleet
from tests.support.kafka import Broker
from tests.support.ports import free_port
from tests.support.postgres import SECRET
from tests.support.processes import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
OURS = ("migrate", "simulator", "api", "worker")
RECIPIENTS = 500
PASSWORD = "superuserOfTheTest"
ENV_FILE = {"MAILRAIL_SECRET_KEY": SECRET, "POSTGRES_PASSWORD": PASSWORD}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def substituted(text: str, given: dict[str, str]) -> str:
    """As compose does it: `${NAME}`, `${NAME:-default}`, `${NAME:?complaint}`."""

    def value(match: re.Match[str]) -> str:
        name, kind, word = match[1], match[2], match[3]
        if given.get(name):
            return given[name]
        assert kind != ":?", f"{name} is not set: {word}"
        return word or ""

    return VARIABLE.sub(value, text)


def instruction(name: str) -> str:
    """The arguments of the last such instruction of the Dockerfile."""
    found: list[str] = re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)
    return found[-1]


class Machine:
    """Stands for the containers' network and disks."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports

    def here(self, text: str, worker_port: int | None = None) -> str:
        """A text of the compose file as it is on this machine."""
        for address, port in self.ports.items():
            text = re.sub(rf"(?<![\w.]){re.escape(address)}\b", f"127.0.0.1:{port}", text)
        text = text.replace("0.0.0.0", "127.0.0.1").replace("/data/", f"{self.folder}/data/")
        return text.replace("127.0.0.1:8027", f"127.0.0.1:{worker_port}") if worker_port else text

    def environment(self, service: str, worker_port: int | None = None) -> dict[str, str]:
        """A service's variables, and of ours only what every process needs."""
        given = {
            name: self.here(substituted(str(value), ENV_FILE))
            for name, value in COMPOSE["services"][service].get("environment", {}).items()
        }
        if worker_port:
            assert given["MAILRAIL_WORKER_PORT"] == "8027"
            given["MAILRAIL_WORKER_PORT"] = str(worker_port)
        if "MAILRAIL_HOST" in given:
            given["MAILRAIL_PORT"] = str(self.ports["api:8025"])
        needed = ("PATH", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH")
        return given | {name: os.environ[name] for name in needed if name in os.environ}

    def command(self, service: str) -> list[str]:
        """Entry point of the image and command of the service."""
        entry = orjson.loads(instruction("ENTRYPOINT"))
        assert entry == ["mailrail"]
        arguments = [self.here(substituted(part, ENV_FILE)) for part in COMPOSE["services"][service]["command"]]
        if "--host" in arguments:
            at = arguments.index("--host") + 1
            assert arguments[at] == service, "it listens on its own name"
            arguments[at] = "127.0.0.1"
            arguments[arguments.index("--port") + 1] = str(self.ports["simulator:8026"])
        return [sys.executable, "-m", *entry, *arguments]

    def is_healthy(self, service: str, worker_port: int | None = None) -> bool:
        """What the service's own health check says."""
        kind, program, *arguments = COMPOSE["services"][service]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python3")
        check = [self.here(argument, worker_port) for argument in arguments]
        return subprocess.run([sys.executable, *check], capture_output=True).returncode == 0

    @contextlib.contextmanager
    def service(self, service: str, worker_port: int | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """Up and healthy for the length of a block; then it has to end well on SIGTERM."""
        log = self.folder / f"{service}-{worker_port or 0}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(service),
                env=self.environment(service, worker_port),
                stdout=out,
                stderr=out,
                cwd=self.folder,
            )
        try:
            wait_until(
                lambda: process.poll() is not None or self.is_healthy(service, worker_port), f"health of {service}", 60
            )
            assert process.poll() is None, log.read_text()
            yield process
            process.terminate()
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def postgres_service(tmp_path: Path) -> Iterator[Cluster]:
    """A server with the user and the database that the image would make."""
    with running(tmp_path / "postgres") as cluster:
        yield cluster


async def as_the_image_would(cluster: Cluster) -> None:
    """POSTGRES_USER, a superuser with POSTGRES_PASSWORD, and POSTGRES_DB."""
    variables = COMPOSE["services"]["postgres"]["environment"]
    assert (variables["POSTGRES_USER"], variables["POSTGRES_DB"]) == ("mailrail", "mailrail")
    await ensure_database(cluster, variables["POSTGRES_DB"])
    connection = await asyncpg.connect(cluster.url("postgres"))
    password = substituted(variables["POSTGRES_PASSWORD"], ENV_FILE)
    await connection.execute(f"CREATE ROLE {variables['POSTGRES_USER']} SUPERUSER LOGIN PASSWORD '{password}'")
    await connection.close()


async def test_a_campaign_goes_through_everything_that_compose_starts(
    postgres_service: Cluster, broker: Broker, tmp_path: Path
) -> None:
    await as_the_image_would(postgres_service)
    (tmp_path / "data" / "simulator").mkdir(parents=True)
    api_port = free_port()
    machine = Machine(
        tmp_path,
        {
            "postgres:5432": postgres_service.port,
            "kafka:9092": broker.port,
            "simulator:8026": free_port(),
            "api:8025": api_port,
            "127.0.0.1:8025": api_port,
        },
    )
    assert machine.environment("worker")["MAILRAIL_KAFKA"] == broker.address
    migrated = subprocess.run(
        machine.command("migrate"), env=machine.environment("migrate"), capture_output=True, text=True, timeout=120
    )
    assert migrated.returncode == 0, migrated.stderr
    settings = with_role_urls(Settings(database_url=postgres_service.url("mailrail"), secret_key=SECRET, port=api_port))
    with machine.service("simulator"), machine.service("api"), contextlib.ExitStack() as workers:
        for _ in range(2):
            workers.enter_context(machine.service("worker", free_port()))
        pool = await open_pool(settings.worker_database_url, application_name="tests")
        key = await fleet.add_sender(pool, RECIPIENTS)
        fleet.send_campaign(settings, key)
        status = None
        for _ in range(600):
            status = await pool.fetchval("SELECT status FROM campaigns")
            if status == "completed":
                break
            await asyncio.sleep(0.1)
        assert status == "completed"
        delivered = await pool.fetchval("SELECT count(*) FROM settlements WHERE kind = 'captured'")
        assert delivered == RECIPIENTS
        assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
        await pool.close()


def test_every_setting_of_compose_is_one_and_no_secret_is_in_the_files() -> None:
    for service in OURS:
        variables = COMPOSE["services"][service].get("environment", {})
        load({name: substituted(str(value), ENV_FILE) for name, value in variables.items()})
    examples = dict(
        line.split("=", 1)
        for line in (REPOSITORY / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert examples["MAILRAIL_SECRET_KEY"] == examples["POSTGRES_PASSWORD"] == ""
    wanted = {match[1] for match in VARIABLE.finditer((REPOSITORY / "docker-compose.yml").read_text())}
    assert set(examples) == wanted
    with pytest.raises(AssertionError, match="MAILRAIL_SECRET_KEY is not set"):
        substituted(str(COMPOSE["services"]["api"]["environment"]["MAILRAIL_SECRET_KEY"]), {})
    assert not re.search(r"^(ARG|ENV) .*(SECRET|PASSWORD|TOKEN)", DOCKERFILE, re.MULTILINE)


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert instruction("USER") == "mailrail"
    assert int(re.findall(r"useradd .*--uid (\d+)", DOCKERFILE)[0]) > 0
    for service in OURS:
        written = COMPOSE["services"][service]
        assert written["read_only"] is True
        assert written["build"] == "."
    worker = COMPOSE["services"]["worker"]
    assert "ports" not in worker, "it could not be scaled"
    assert "container_name" not in worker


def test_the_image_copies_only_what_exists_and_is_let_in() -> None:
    """.dockerignore refuses everything but its exceptions; the lock's tools are found by the build's own expression."""
    let_in = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in shlex.split(line)[:-1]
    }
    assert copied == let_in
    assert [source for source in copied if not (REPOSITORY / source).exists()] == []
    tools = subprocess.run(
        ["sed", "-n", r"/^\(uv\|maturin\)==/,/[^\\]$/p", "requirements.txt"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    ).stdout
    assert r"/^\(uv\|maturin\)==/,/[^\\]$/p" in DOCKERFILE
    assert re.findall(r"^(\w+)==", tools, re.MULTILINE) == ["maturin", "uv"]


def test_the_services_stand_in_each_others_order() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    assert set(services) == {"postgres", "kafka", *OURS}
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]
    assert re.fullmatch(r"postgres:18(\.\d+)?", services["postgres"]["image"])
    assert re.fullmatch(r"apache/kafka:4\.\d+\.\d+", services["kafka"]["image"])
    assert services["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
