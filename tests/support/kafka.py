"""A real Apache Kafka of one node for tests: jars from Maven Central, a data folder and two ports of its own.

What every broker needs alike (jars, a formatted data folder, an archive of loaded classes that halves the start) is made once
per user and machine and kept in the user's cache folder.
"""

import base64
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailrail.up.child import Child
from tests.support.ports import free_port

POM = Path(__file__).parent / "kafka" / "pom.xml"
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
FETCH_TIMEOUT_S = 600
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

LOGGING = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %-5p %c{1}: %m%n
"""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENTS://127.0.0.1:{port}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENTS
controller.listener.names=CONTROLLER
# Static, so that the formatted folder names no port and can be copied for any broker.
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
# One node holds the only replica of everything.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Small and quick.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
num.io.threads=4
num.network.threads=2
# After a SIGKILL the next start is refused until the dead one's session is over.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


class Broker:
    """A broker that keeps its ports through stop, kill and wipe. It dies with this process.

    Start it from the main thread: the kernel ties the death signal to the thread that forked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._child: Child | None = None
        self.port, controller_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.properties").write_text(
            PROPERTIES.format(port=self.port, controller_port=controller_port, data=self._data)
        )

    @property
    def address(self) -> str:
        """Where clients connect, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the present life."""
        assert self._child is not None
        return self._child.pid

    def running(self) -> bool:
        """Started and not ended."""
        return self._child is not None and self._child.running()

    def start(self, *options: str) -> None:
        """Starts it where it does not run, on the data that is there; returns when it takes connections.

        Takes 1–2 s, and up to 5 s after a kill. `options` go to the virtual machine.
        """
        if self.running():
            return
        kit = prepare()
        if not self._data.exists():
            shutil.copytree(kit / "formatted", self._data)
        archive = kit / "classes.jsa"
        if not options and archive.exists():
            options = (f"-XX:SharedArchiveFile={archive}", "-Xshare:auto")
        command = java(kit, *JVM, *options, "kafka.Kafka", str(self.folder / "server.properties"))
        self._child = Child("kafka", command, os.environ, self.folder / "broker.log")
        self._child.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not takes_connections(self.port):
            if not self._child.running() or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"Kafka did not start:\n{self._child.last_lines(20)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that takes too long."""
        if self._child is not None:
            self._child.send(signal.SIGTERM)
            if not self._child.wait(STOP_TIMEOUT_S):
                self.kill()

    def kill(self) -> None:
        """SIGKILL: a crash. What the page cache holds survives it."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            self._child.wait(STOP_TIMEOUT_S)

    def restart(self) -> None:
        """A crash and the next start on the same data."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """A crash that takes all data along, topics and offsets included; then a start from nothing."""
        self.kill()
        shutil.rmtree(self._data)
        self.start()


@contextmanager
def running(folder: Path) -> Iterator[Broker]:
    """A broker for the length of a block."""
    broker = Broker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def missing() -> str | None:
    """Why there can be no broker on this machine, or None."""
    absent = [program for program in ("java", "mvn") if shutil.which(program) is None]
    return f"a Kafka broker needs {' and '.join(absent)} on the path" if absent else None


def prepare() -> Path:
    """The folder of what brokers share: `jars`, `formatted` and `classes.jsa`. Made at the first call, about 15 s."""
    recipe = "\n".join((POM.read_text(), PROPERTIES, LOGGING, *JVM))
    kit = cache_folder() / f"kafka-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    done = kit / "complete"
    if done.exists():
        return kit
    kit.mkdir(parents=True, exist_ok=True)
    with (kit / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            fetch_jars(kit)
            (kit / "log4j2.properties").write_text(LOGGING)
            format_data(kit)
            done.touch()
            archive_classes(kit)
    return kit


def cache_folder() -> Path:
    """The user's cache folder, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailrail-tests"


def fetch_jars(kit: Path) -> None:
    """The broker and all it needs, by Maven."""
    run("mvn", "-q", "-B", "-f", str(POM), COPY_JARS, "-DincludeScope=runtime", f"-DoutputDirectory={kit / 'jars'}")


def format_data(kit: Path) -> None:
    """An empty data folder with a cluster id."""
    shutil.rmtree(kit / "formatted", ignore_errors=True)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
    properties = kit / "format.properties"
    properties.write_text(PROPERTIES.format(port=1, controller_port=2, data=kit / "formatted"))
    run(*java(kit, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)))


def archive_classes(kit: Path) -> None:
    """One short life to record the classes that a broker loads."""
    folder = kit / "first-life"
    shutil.rmtree(folder, ignore_errors=True)
    broker = Broker(folder)
    broker.start(f"-XX:ArchiveClassesAtExit={kit / 'classes.jsa.new'}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
    broker.stop()
    if (kit / "classes.jsa.new").exists():
        (kit / "classes.jsa.new").rename(kit / "classes.jsa")
    shutil.rmtree(folder)


def java(kit: Path, *arguments: str) -> list[str]:
    """A command with the broker's jars."""
    return ["java", f"-Dlog4j2.configurationFile={kit / 'log4j2.properties'}", "-cp", f"{kit / 'jars'}/*", *arguments]


def run(*command: str) -> None:
    """A preparing command; its output is shown where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"


def takes_connections(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
