"""The operator's commands on a real database, as typed."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from mailrail import commands
from mailrail.__main__ import main
from mailrail.commands import read_dollars
from mailrail.db.pool import connect
from mailrail.errors import ConfigError
from mailrail.ses import control
from mailrail.ses.control import ControlError, Listed
from mailrail.suppressions.handlers import copy_list
from tests.support.postgres import Database


@pytest.fixture(autouse=True)
def environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator has in the shell."""
    monkeypatch.setenv("MAILRAIL_DATABASE_URL", database.superuser_url)
    monkeypatch.setenv("MAILRAIL_SECRET_KEY", database.secret_key)


@pytest.fixture(autouse=True)
def no_loop_left() -> None:
    """Commands bring their own event loop, so these tests have none."""
    asyncio.set_event_loop(None)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints; it must succeed."""
    assert main(arguments) == 0
    return capsys.readouterr().out.strip()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence of a command that fails."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("mailrail: ")
    assert error.count("\n") == 1
    return error


def test_parked_notifications_are_shown_without_addresses_and_replayed(
    capsys: pytest.CaptureFixture[str], database: Database
) -> None:
    assert run(capsys, "events", "parked") == "nothing is parked"

    async def park() -> None:
        conn = await connect(database.worker_url, application_name="tests")
        try:
            await conn.execute(
                """INSERT INTO parked_notifications (notification_id, day, message_id, reason, parked_at, topic_arn, body)
                   SELECT n, '2026-11-20', 'm' || n, 'odd', '2026-11-20T12:00Z', 'arn', '{"to":"ann@example.net"}'
                   FROM generate_series(1, 3) n"""
            )
        finally:
            await conn.close()

    asyncio.run(park())
    shown = run(capsys, "events", "parked")
    assert "3  since 2026-11-20 12:00 UTC  odd" in shown
    assert '{"to":"[address]"}' in shown.replace("\\", "")
    assert "ann@" not in shown
    assert run(capsys, "events", "replay", "--reason", "other") == "0 notifications are read again"
    assert run(capsys, "events", "replay", "--since", "2026-11-21") == "0 notifications are read again"
    assert (
        run(capsys, "events", "replay", "--limit", "2") == "2 notifications are read again; 1 are left, so run it again"
    )
    assert run(capsys, "events", "replay", "--reason", "odd") == "1 notifications are read again"
    assert "no moment" in refused(capsys, "events", "replay", "--since", "yesterday")
    assert "--limit" in refused(capsys, "events", "replay", "--limit", "0")


def test_accounts_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    account = run(capsys, "account", "create", "Acme", "--plan", "professional")
    assert account.startswith("acc_")
    assert f"{account}  professional  Acme" in run(capsys, "account", "list")
    text = run(capsys, "key", "create", "Acme", "--name", "site", "--scopes", "contacts:read,contacts:write")
    assert text.startswith("sk_live_")
    assert run(capsys, "key", "create", "Acme", "--name", "trial", "--test").startswith("sk_test_")
    assert "plan            unlimited" in run(capsys, "account", "change", account, "--plan", "unlimited")
    changed = run(capsys, "account", "change", account, "--unknown-policy", "never_resend", "--plan", "enterprise")
    assert "unknown policy  never_resend" in changed
    assert "plan            enterprise" in changed
    assert "sender          -" in run(capsys, "account", "change", account)
    listed = run(capsys, "key", "list", account)
    assert "active" in listed
    assert "contacts:read,contacts:write  site" in listed
    assert text not in listed
    run(capsys, "key", "create", "Acme", "--name", "office", "--operator")
    assert "full,operator  office" in run(capsys, "key", "list", "Acme")
    assert "(site)" in run(capsys, "key", "revoke", listed.split()[0])
    assert "revoked" in run(capsys, "key", "list", "Acme")


def test_money(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "account", "create", "Rich")
    assert run(capsys, "wallet", "show", "Rich") == "available $0.00\nheld      $0.00"
    assert run(capsys, "wallet", "deposit", "Rich", "12.50", "--key", "invoice 1").startswith("available $12.50")
    again = run(capsys, "wallet", "deposit", "Rich", "12.50", "--key", "invoice 1")
    assert again.startswith("nothing was added: a deposit named invoice 1 exists\navailable $12.50")
    assert run(capsys, "wallet", "deposit", "Rich", "$0.000001").startswith("available $12.500001")


def test_what_cannot_be_done_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "account", "create", "Twin")
    run(capsys, "account", "create", "Twin")
    assert "there is no account 'Nobody'" in refused(capsys, "key", "create", "Nobody")
    assert "2 accounts are named 'Twin'" in refused(capsys, "wallet", "show", "Twin")
    account = run(capsys, "account", "create", "Single")
    assert "--scopes names 'root'" in refused(capsys, "key", "create", account, "--scopes", "root")
    assert "there is no key key_x" in refused(capsys, "key", "revoke", "key_x")


def test_a_command_without_a_database_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAILRAIL_DATABASE_URL")
    monkeypatch.setenv("MAILRAIL_UP_DATA", "/nowhere")
    assert "MAILRAIL_DATABASE_URL is not set" in refused(capsys, "account", "list")


def test_processes_refuse_what_they_cannot_start_with(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "which no reader of a mail can reach" in refused(capsys, "api")
    monkeypatch.setenv("MAILRAIL_SES_ENDPOINT", "https://127.0.0.1:1")
    assert "--roles names 'cook'" in refused(capsys, "worker", "--roles", "cook")
    monkeypatch.setenv("MAILRAIL_SECRET_KEY", "y" * 32)
    assert "PostgreSQL refused the user or password" in refused(capsys, "worker")


def test_migrate_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "migrate") == "the database is up to date"
    assert "MAILRAIL_PORT" in run(capsys, "settings")
    assert run(capsys, "version").count(".") == 2


@pytest.mark.parametrize("text", ["0", "-1", "abc", "0.0000001", "NaN", "inf", "", "1e30", "1_000,5"])
def test_an_amount_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an amount of US dollars"):
        read_dollars(text)


def test_amounts_are_exact() -> None:
    assert read_dollars("12.50") == 12_500_000
    assert read_dollars("$0.000001") == 1


def test_a_reputation_is_shown_and_released(capsys: pytest.CaptureFixture[str]) -> None:
    account = run(capsys, "account", "create", "Spotless")
    assert "level       good" in run(capsys, "reputation", "show", account)
    assert run(capsys, "reputation", "release", "Spotless").startswith("Spotless was good; its mail counts from now on")
    assert "there is no account" in refused(capsys, "reputation", "release", "Nobody")


def test_the_list_of_ses_is_copied_and_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[str] = []

    async def pages(settings: Any, since: datetime | None, token: str | None) -> tuple[list[Listed], str | None]:
        conn = await connect(database.superuser_url, application_name="tests")
        try:
            states.append(
                await conn.fetchval("SELECT state FROM pg_stat_activity WHERE application_name = 'mailrail command'")
            )
        finally:
            await conn.close()
        if token == "broken":
            raise ControlError("SES answered TooManyRequestsException.")
        if since:
            return [], None
        return [Listed(f"p{token or 0}@example.com", "bounce", datetime.now(UTC))], None if token else following

    following = "1"
    monkeypatch.setattr(control, "list_suppressed", pages)
    monkeypatch.setattr(commands, "copy_list", partial(copy_list, call_interval_s=0.0))
    monkeypatch.setattr(commands, "PROGRESS_INTERVAL_S", 0.0)
    assert main(["suppressions", "sync"]) == 0
    told = capsys.readouterr()
    assert told.out == "SES keeps mail from 2 addresses; the copy is of now\n"
    assert told.err.splitlines() == ["1 addresses so far", "2 addresses so far"]
    assert set(states) == {"idle"}, "no transaction waits for SES"
    following = "broken"
    assert main(["suppressions", "sync"]) == 2
    assert "TooManyRequestsException" in capsys.readouterr().err
    assert "addresses    2" in run(capsys, "suppressions", "status")
