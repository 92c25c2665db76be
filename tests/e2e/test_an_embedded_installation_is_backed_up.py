"""`mailrail backup` and `restore` on the installation of `mailrail up`, whether it runs or not."""

import signal
from pathlib import Path

import pytest

from tests.support.up import mailrail, started


@pytest.mark.long
def test_backup_while_it_runs_and_restore_once_it_is_stopped(home: Path, tmp_path: Path) -> None:
    running, stopped = (str(tmp_path / name) for name in ("running.backup", "stopped.backup"))
    with started(home) as up:
        assert mailrail(home, "account", "create", "Acme").returncode == 0
        done = mailrail(home, "backup", running)
        assert done.returncode == 0, done.stderr
        refused = mailrail(home, "restore", running, "--replace")
        assert refused.returncode == 2
        assert "stop all processes of mailrail first" in refused.stderr
        assert up.end(signal.SIGINT) == 0
    done = mailrail(home, "backup", stopped)
    assert done.returncode == 0, done.stderr
    assert "holds an installation already" in mailrail(home, "restore", stopped).stderr
    done = mailrail(home, "restore", stopped, "--replace")
    assert done.returncode == 0, done.stderr
    with started(home):
        assert "Acme" in mailrail(home, "account", "list").stdout
        assert "FAIL  sending, held since" in mailrail(home, "doctor").stdout
        assert "sending goes on" in mailrail(home, "release").stdout
        assert mailrail(home, "doctor").returncode == 0
