"""The data directory: one supervisor, one secret, and the environment of the children."""

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailrail import config
from mailrail.errors import ConfigError, StartError
from mailrail.up.installation import attach, check_port, complete_environment, locked, reachable
from mailrail.up.options import UpOptions


def test_a_second_supervisor_is_refused(home: Path) -> None:
    hold = "import sys; from pathlib import Path; from mailrail.up.installation import locked\nwith locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StartError, match=rf"another `mailrail up` \(process {other.pid}\) runs on"), locked(home):
        pass
    other.stdin.close()
    other.stdout.close()
    other.wait()
    with locked(home):
        pass


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data .* cannot be used"), locked(tmp_path / "file" / "data"):
        pass


def test_the_secret_is_kept_private(home: Path) -> None:
    home.mkdir()
    first = complete_environment(UpOptions(data=home), {})
    second = complete_environment(UpOptions(data=home), {})
    assert first["MAILRAIL_SECRET_KEY"] == second["MAILRAIL_SECRET_KEY"]
    assert len(first["MAILRAIL_SECRET_KEY"]) >= config.SECRET_KEY_MIN_CHARS
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600


def test_what_up_decides(home: Path) -> None:
    home.mkdir()
    settings = config.load(complete_environment(UpOptions(data=home, demo=True, port=9000), {"MAILRAIL_PORT": "1"}))
    assert settings.port == 9000
    assert settings.public_url == "http://127.0.0.1:9000"
    assert settings.bounce_grace_s == 2
    assert settings.ses_endpoint.startswith("https://127.0.0.1:")
    assert settings.ses_ca_file == settings.sns_ca_file == str(home / "simulator" / "ca.pem")
    assert settings.sns_cert_hosts == (settings.ses_endpoint.removeprefix("https://"),)
    assert settings.sns_topics == (config.SIMULATOR_TOPIC_ARN,)
    config.require_sending(settings)


def test_what_the_caller_says_stays(home: Path) -> None:
    home.mkdir()
    given = {
        "MAILRAIL_PUBLIC_URL": "https://mail.example.com",
        "MAILRAIL_BOUNCE_GRACE_S": "10",
        "MAILRAIL_SECRET_KEY": "s" * 40,
        "MAILRAIL_LOG_LEVEL": "debug",
    }
    options = UpOptions(data=home, demo=True, ses="http://127.0.0.1:5000", database="postgresql://me@h/d")
    environment = complete_environment(options, given)
    assert given.items() <= environment.items()
    settings = config.load(environment)
    assert settings.ses_endpoint == "http://127.0.0.1:5000"
    assert settings.database_url == "postgresql://me@h/d"
    assert settings.sns_topics == ()
    assert not (home / "secret").exists()


def test_an_empty_variable_does_not_hide_a_decision(home: Path) -> None:
    home.mkdir()
    environment = complete_environment(UpOptions(data=home), {"MAILRAIL_SES_ENDPOINT": "", "MAILRAIL_SECRET_KEY": ""})
    assert config.load(environment).ses_endpoint.startswith("https://127.0.0.1:")


def test_a_port_in_use_is_one_sentence() -> None:

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} on 127.0.0.1 is in use"):
            check_port(config.Settings(port=port))


def test_addresses_to_listen_on_and_to_reach() -> None:
    assert reachable("0.0.0.0") == "127.0.0.1"
    assert reachable("::") == "[::1]"
    assert reachable("mail.local") == "mail.local"


def test_commands_find_the_data_directory(home: Path) -> None:
    home.mkdir()
    environment = {"MAILRAIL_UP_DATA": str(home)}
    assert attach(environment) == {}
    for name, text in (("postgres-password", "pw"), ("postgres-port", "5433"), ("secret", "s" * 40)):
        (home / name).write_text(text + "\n")
    assert attach(environment) == {
        "MAILRAIL_SECRET_KEY": "s" * 40,
        "MAILRAIL_DATABASE_URL": "postgresql://postgres:pw@127.0.0.1:5433/mailrail",
        "MAILRAIL_ACCEPTED_LOG": str(home / "accepted" / "log"),
    }
    named = {"MAILRAIL_DATABASE_URL": "postgresql://h/d"}
    assert attach(environment | named) == named
