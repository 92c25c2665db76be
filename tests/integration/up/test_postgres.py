"""The embedded server: made, found again, ended with us, and recovered after every kind of end."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from mailrail.errors import StartError
from mailrail.up import postgres
from mailrail.up.child import NOBODY
from mailrail.up.postgres import Cluster, prepare, running, start, stop
from tests.support.processes import is_alive, wait_until

HOLD_A_SERVER = """
import sys, time
from pathlib import Path
from mailrail.up.postgres import prepare, start
cluster, child = start(prepare(Path(sys.argv[1])))
print(child.pid, cluster.port, flush=True)
time.sleep(600)
"""


async def query(cluster: Cluster, statement: str) -> object:
    """One value as the superuser."""
    connection = await asyncpg.connect(cluster.url("postgres"))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def holder(home: Path) -> tuple["subprocess.Popen[str]", int]:
    """Another process that runs a server, and the server's process id."""
    process = subprocess.Popen([sys.executable, "-c", HOLD_A_SERVER, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[0])
    process.stdout.close()
    return process, pid


async def test_data_outlives_a_stop(home: Path) -> None:
    with running(home) as first:
        await query(first, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert await query(first, "SHOW fsync") == "on"
        assert await query(first, "SHOW synchronous_commit") == "on"
        assert await query(first, "SHOW listen_addresses") == "127.0.0.1"
        assert await query(first, "SELECT lower('ÄÖÜ')") == "äöü"
    with running(home) as second:
        assert await query(second, "SELECT answer FROM kept") == 42
        assert second.port == first.port


async def test_a_wrong_password_does_not_get_in(home: Path) -> None:
    with running(home) as cluster:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:guess@127.0.0.1:{cluster.port}/postgres")
    assert stat.S_IMODE((home / "postgres-password").stat().st_mode) == 0o600
    assert not list(home.glob("*initdb-password*"))


async def test_no_mode_of_a_folder_above_changes(home: Path) -> None:
    home.parent.chmod(0o700)
    with running(home) as cluster:
        assert await query(cluster, "SELECT 1") == 1
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700


def test_the_server_goes_with_a_killed_parent_and_comes_back(home: Path) -> None:
    process, server = holder(home)
    process.kill()
    process.wait()
    assert wait_until(lambda: not is_alive(server), "the end of the server") < 2
    with running(home) as cluster:
        assert postgres.recorded_pid(cluster.directory) != server


def test_a_server_that_is_still_leaving_is_waited_for(home: Path) -> None:
    process, _ = holder(home)
    process.kill()
    process.wait()
    with running(home):
        pass


async def test_a_killed_server_recovers(home: Path) -> None:
    cluster, child = start(prepare(home))
    await query(cluster, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    child.send(signal.SIGKILL)
    child.wait(10)
    with running(home) as again:
        assert await query(again, "SELECT count(*) FROM kept") == 1000


async def test_a_server_left_behind_is_ended(home: Path) -> None:
    """As if the parent-death signal did not exist."""
    cluster = prepare(home)
    child = cluster.child()
    child.start()
    assert postgres.wait_until_ready(cluster, child)
    with running(home) as again:
        assert await query(again, "SELECT 1") == 1
        assert not child.running()


async def test_a_port_in_use_is_given_up(home: Path) -> None:
    with running(home) as first:
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first.port))
        taken.listen()
        with running(home) as second:
            assert second.port != first.port
            assert await query(second, "SELECT 1") == 1


def test_a_port_taken_in_the_last_moment_is_given_up(home: Path) -> None:
    cluster = prepare(home)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", cluster.port))
        taken.listen()
        moved, child = start(cluster)
        assert moved.port != cluster.port
        assert stop(child)


def test_a_recycled_process_id_is_no_server(home: Path) -> None:
    with running(home) as cluster:
        pass
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        lock = cluster.directory / "postmaster.pid"
        lock.write_text(f"{sleeper.pid}\n{cluster.directory}\n1\n{cluster.port}\n\n127.0.0.1\n0 0\nready\n")
        with running(home):
            assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_half_made_directory_is_made_again(home: Path) -> None:
    (home / "postgres.new").mkdir(parents=True)
    (home / "postgres.new" / "PG_VERSION").write_text("18\n")
    with running(home) as cluster:
        assert (cluster.directory / "PG_VERSION").exists()
    assert not (home / "postgres.new").exists()


def test_a_directory_of_another_version_is_refused(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(StartError, match="made by PostgreSQL 16 and this is 18"):
        prepare(home)


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    with running(home) as cluster:
        pass
    (cluster.directory / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(StartError, match="no_such_setting"):
        start(prepare(home))


def test_the_callers_variables_do_not_reach_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    with running(home):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")
async def test_without_namespaces_nobody_serves(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(f"/var/tmp/mailrail-test-{os.getpid()}-{time.time_ns()}")
    monkeypatch.setattr(postgres, "choose_mode", lambda: NOBODY)
    monkeypatch.setattr(postgres, "NOBODY_HOME", place)
    try:
        with running(home) as cluster:
            assert cluster.directory.owner() == "nobody"
            assert await query(cluster, "SELECT 1") == 1
        assert "runs as nobody and keeps its data in" in capsys.readouterr().out
        with running(home) as again:
            assert again.directory == cluster.directory
        assert postgres.copy_programs(postgres.program_directory()).is_relative_to(place)
    finally:
        subprocess.run(["rm", "-rf", str(place)], check=True)
