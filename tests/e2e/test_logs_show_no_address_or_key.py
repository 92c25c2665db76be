"""Addresses and keys go through everything that can fail, in real processes; no log of any of them has one."""

import os
import re
import signal
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.support import fleet
from tests.support.processes import descendants, processes_with, wait_until
from tests.support.up import mailrail, started

CANARY = "canary"
RECIPIENTS = 40


@pytest.mark.long
async def test_logs_are_clean(home: Path) -> None:
    with started(home, MAILRAIL_LOG_FORMAT="json", MAILRAIL_LOG_LEVEL="debug") as up:
        base = f"http://127.0.0.1:{up.port}"
        mailrail(home, "account", "create", "Acme")
        mailrail(home, "wallet", "deposit", "Acme", "10")
        key = mailrail(home, "key", "create", "Acme").stdout.strip()
        password, port = ((home / name).read_text().strip() for name in ("postgres-password", "postgres-port"))
        superuser = await asyncpg.connect(f"postgresql://postgres:{password}@127.0.0.1:{port}/mailrail")
        await superuser.execute(
            "SET search_path = mailrail; INSERT INTO domains (account_id, domain, status, verified_at) VALUES (1, 'acme.com', 'verified', now())"
        )
        for number in range(RECIPIENTS):
            fleet.post_to(
                base,
                key,
                "/api/v1/contacts",
                {"email": f"{CANARY}{number}@example.net", "name": f"{CANARY}@example.org"},
            )
        refused(base, key)
        status, made = fleet.post_to(base, key, "/v1/mail/campaigns", fleet.CAMPAIGN)
        assert status == 201, made
        assert fleet.post_to(base, key, f"/v1/mail/campaigns/{made['id']}/send")[0] == 200
        wait_until(lambda: "shard sent" in log(home, "worker"), "the campaign")
        await break_things(superuser, base, key)
        wait_until(lambda: "is paused" in log(home, "worker"), "the campaign that the core cannot read")
        (worker,) = {pid for pid in processes_with("mailrail worker") if pid in descendants(up.process.pid)}
        os.kill(worker, signal.SIGABRT)
        wait_until(lambda: "the worker ended" in up.text(), "the crash")
        await superuser.close()
        assert up.end(signal.SIGINT) == 0
    logs = {file.name: file.read_text(errors="replace") for file in (home / "logs").iterdir()}
    assert {"api.log", "worker.log", "postgres.log", "migrate.log", "simulator.log"} <= set(logs)
    logs["up"] = up.text()
    secrets = [CANARY, key, key[:20], (home / "secret").read_text().strip(), password]
    found = [(name, secret) for name, text in logs.items() for secret in secrets if secret in text]
    assert found == []
    assert "Error" in logs["api.log"]  # something did go wrong
    assert "ERROR" in logs["postgres.log"]
    for name in ("api.log", "worker.log"):
        for line in logs[name].splitlines():
            if not re.fullmatch(r"ready( \d+)?", line):
                assert orjson.loads(line)["process"] == name.removesuffix(".log")


def log(home: Path, name: str) -> str:
    """What a process has logged so far."""
    return (home / "logs" / f"{name}.log").read_text()


def refused(base: str, key: str) -> None:
    """Everything that a customer can get wrong."""
    calls = [
        (key, "/api/v1/contacts", {"email": f"{CANARY}1@example.net"}, 409),
        (key, "/api/v1/contacts", {"email": f"{CANARY}@@example.net"}, 422),
        (f"sk_live_{CANARY}", "/api/v1/contacts", {}, 401),
        (key, f"/{CANARY}@example.net", {}, 404),
        (key, "/v1/mail/campaigns", {**fleet.CAMPAIGN, "subject": "{{ " + f"{CANARY}@example.net"}, 422),
        (key, "/v1/mail/campaigns", {**fleet.CAMPAIGN, "from": {"name": "x", "email": f"{CANARY}@other.example"}}, 403),
        (key, "/events/sns", {"Type": "Notification", "Message": f"{CANARY}@example.net"}, 403),
    ]
    for bearer, path, body, status in calls:
        assert fleet.post_to(base, bearer, path, body)[0] == status, path


async def break_things(superuser: "asyncpg.Connection[asyncpg.Record]", base: str, key: str) -> None:
    """Our own errors, each with an address in reach: in a statement, in a constraint, in a frozen template."""
    await superuser.execute("ALTER TABLE contacts ADD CONSTRAINT broken CHECK (email NOT LIKE '%broken%')")
    assert fleet.post_to(base, key, "/api/v1/contacts", {"email": f"{CANARY}.broken@example.net"})[0] == 500
    await superuser.execute("ALTER TABLE contacts RENAME COLUMN tags TO tags_gone")
    assert fleet.post_to(base, key, "/api/v1/contacts", {"email": f"{CANARY}.gone@example.net"})[0] == 500
    await superuser.execute("ALTER TABLE contacts RENAME COLUMN tags_gone TO tags")
    _, made = fleet.post_to(base, key, "/v1/mail/campaigns", fleet.CAMPAIGN)
    # Frozen content that no core reads: its launch is stopped at the shards, spoilt, and let go.
    await superuser.execute(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN NEW.content = '{{\"subject\": {CANARY}@example.net'; RETURN NEW; END$$; "
        "GRANT EXECUTE ON FUNCTION spoil() TO PUBLIC; "
        "CREATE TRIGGER spoil BEFORE INSERT ON streams FOR EACH ROW EXECUTE FUNCTION spoil()"
    )
    assert fleet.post_to(base, key, f"/v1/mail/campaigns/{made['id']}/send")[0] == 200
