"""A start that cannot work says why in one sentence."""

import re
import socket
from pathlib import Path

import pytest

from tests.support.up import finish, mailrail, started


@pytest.mark.long
def test_the_operators_commands_find_a_running_up(home: Path) -> None:
    with started(home):
        assert mailrail(home, "doctor").returncode == 0, mailrail(home, "doctor").stdout
        made = mailrail(home, "account", "create", "Acme")
        assert made.stdout.startswith("acc_")
        assert mailrail(home, "key", "create", "Acme").stdout.startswith("sk_live_")
        assert "$12.50" in mailrail(home, "wallet", "deposit", made.stdout.strip(), "12.50").stdout
        again = finish(home)
        assert again.returncode == 2
        assert re.fullmatch(r"mailrail: another `mailrail up` \(process \d+\) runs on .*\n", again.stderr)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (
            ["--database", "postgresql://me@127.0.0.1:1/mail"],
            {},
            "cannot connect to PostgreSQL at postgresql://me@127.0.0.1:1/mail",
        ),
        (["--database", "mysql://h/d"], {}, "MAILRAIL_DATABASE_URL must look like"),
        (["--ses", "https://email.us-east-1.amazonaws.com"], {}, "which no reader of a mail can reach"),
        (["--ses", "https://127.0.0.1:1"], {}, "SES at https://127.0.0.1:1 cannot be used: SES did not answer"),
        ([], {"MAILRAIL_LEASE_S": "never"}, "MAILRAIL_LEASE_S must be a number"),
        ([], {"MAILRAIL_LEASES": "1"}, "MAILRAIL_LEASES is not a setting"),
        (["--recipients", "none"], {}, "--recipients must be a whole number"),
    ],
)
def test_a_wrong_start_is_one_sentence(home: Path, arguments: list[str], variables: dict[str, str], words: str) -> None:
    done = finish(home, *arguments, **variables)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout


def test_a_port_in_use_is_one_sentence(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = finish(home, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"mailrail: port {port} on 127.0.0.1 is in use or not ours to use; choose another one with --port\n"
    )
