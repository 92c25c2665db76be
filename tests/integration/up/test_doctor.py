"""`mailrail doctor`: each fault is one line with its remedy."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from mailrail.config import Settings
from mailrail.doctor import examine
from mailrail.ses import control
from mailrail.ses.control import ControlError, SesAccount
from mailrail.up.postgres import Cluster, ensure_database
from tests.support.postgres import SECRET, Database


def variables(url: str, **changes: str) -> dict[str, str]:
    """A complete environment on a database."""
    return {
        "MAILRAIL_DATABASE_URL": url,
        "MAILRAIL_SECRET_KEY": SECRET,
        "MAILRAIL_SES_ENDPOINT": "https://127.0.0.1:1",
        **changes,
    }


@pytest.fixture(autouse=True)
def ses_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is well."""

    async def answer(settings: Settings) -> SesAccount:
        return SesAccount(14, 50_000, 0, sending_enabled=True, production_access=True)

    monkeypatch.setattr(control, "get_account", answer)


@pytest.fixture
async def stranger(cluster: Cluster) -> AsyncIterator[str]:
    """An empty database, as a user without rights."""
    await ensure_database(cluster, "strange")
    connection = await asyncpg.connect(cluster.url("postgres"))
    await connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    yield f"postgresql://stranger:stranger@127.0.0.1:{urlsplit(cluster.url('x')).port}/strange"
    await connection.execute("DROP DATABASE strange WITH (FORCE)")
    await connection.execute("DROP ROLE stranger")
    await connection.close()


async def test_a_sound_installation(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert await examine(variables(database.superuser_url)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok") for line in lines)
    assert "grants 14 recipients a second" in lines[-1]


async def test_bad_settings_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert await examine({"MAILRAIL_PORT": "x"}) == 1
    assert capsys.readouterr().out == "FAIL  settings: MAILRAIL_PORT must be a whole number (it is 'x')\n"
    assert await examine({}) == 1
    assert "MAILRAIL_SECRET_KEY is not set" in capsys.readouterr().out


async def test_an_unreachable_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert await examine(variables("postgresql://me@127.0.0.1:1/mail")) == 1
    assert "FAIL  database postgresql://me@127.0.0.1:1/mail: cannot connect" in capsys.readouterr().out


async def test_a_wrong_secret(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    environment = variables(
        database.superuser_url,
        MAILRAIL_SECRET_KEY="x" * 32,
        MAILRAIL_API_DATABASE_URL=database.api_url,
        MAILRAIL_WORKER_DATABASE_URL=database.worker_url,
    )
    assert await examine(environment) == 1
    assert capsys.readouterr().out.count("MAILRAIL_SECRET_KEY is not the secret") == 2


async def test_a_user_without_rights_gets_the_sql(stranger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await examine(variables(stranger)) == 1
    printed = capsys.readouterr().out
    assert 'GRANT mailrail_owner TO "stranger" WITH INHERIT FALSE, SET TRUE;' in printed
    assert 'GRANT CREATE ON DATABASE "strange" TO mailrail_owner;' in printed
    assert "`mailrail migrate`" in printed


async def test_an_endpoint_that_is_not_there(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(settings: Settings) -> SesAccount:
        raise ControlError("SES did not answer.")

    monkeypatch.setattr(control, "get_account", refuse)
    assert await examine(variables(database.superuser_url)) == 1
    assert "FAIL  SES at https://127.0.0.1:1: SES did not answer; check" in capsys.readouterr().out


async def test_amazon_is_a_target_once_links_lead_somewhere(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(settings: Settings) -> SesAccount:
        raise ControlError("there are no AWS credentials.")

    monkeypatch.setattr(control, "get_account", refuse)
    endpoint = {"MAILRAIL_SES_ENDPOINT": "https://email.us-east-1.amazonaws.com"}
    assert await examine(variables(database.superuser_url, **endpoint)) == 1
    assert "FAIL  sending: MAILRAIL_PUBLIC_URL is http://127.0.0.1:8025, which no reader" in capsys.readouterr().out
    endpoint["MAILRAIL_PUBLIC_URL"] = "https://mail.example.com"
    assert await examine(variables(database.superuser_url, **endpoint)) == 1
    printed = capsys.readouterr().out
    assert "ok    sending" in printed
    assert "FAIL  SES at https://email.us-east-1.amazonaws.com: there are no AWS credentials" in printed
