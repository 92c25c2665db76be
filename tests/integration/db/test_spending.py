"""Migration 0008 on a database with holds: the months are right at once, and stay so while older processes hold and settle."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailrail.config import role_url
from mailrail.db import migrate
from mailrail.db.pool import connect
from mailrail.up.postgres import Cluster, ensure_database
from mailrail.wallet import service as wallet
from tests.support.postgres import SECRET

# As the version before wrote it.
OLD_HOLD = """INSERT INTO mailrail.holds (account_id, stream_id, price_micros, recipients, amount_micros, created_at)
              VALUES ($1, 1, 300, $2::integer, 300 * $2::integer, $3::timestamptz) RETURNING id"""
OLD_SETTLE = """UPDATE mailrail.holds SET captured_micros = captured_micros + $2 * price_micros,
                  released_micros = released_micros + $3 * price_micros WHERE id = $1"""


@pytest.fixture
async def url(cluster: Cluster) -> AsyncIterator[str]:
    """The superuser's URL of an empty database."""
    await ensure_database(cluster, "spending")
    yield cluster.url("spending")
    connection = await connect(cluster.url("postgres"), application_name="tests")
    await connection.execute("DROP DATABASE spending WITH (FORCE)")
    await connection.close()


async def test_months_are_counted_from_the_first_hold_on(url: str, tmp_path: Path) -> None:
    for file in sorted(migrate.MIGRATIONS.glob("000[1-7]*.sql")):
        shutil.copy(file, tmp_path)
    await migrate.migrate(url, SECRET, report=lambda line: None, directory=tmp_path)
    conn = await connect(url, application_name="tests")
    account_id = await conn.fetchval("INSERT INTO mailrail.accounts (name) VALUES ('Old') RETURNING id")
    # Half an hour before midnight of the last day, in a zone where it is the next month already.
    moments = ("2026-03-31T23:30:00Z", "2026-04-01T00:30:00+02:00", "2026-04-01T00:00:00Z")
    holds = [
        await conn.fetchval(OLD_HOLD.replace("$3::timestamptz", f"'{moment}'"), account_id, 10) for moment in moments
    ]
    await conn.execute(OLD_SETTLE, holds[0], 4, 6)
    await migrate.migrate(url, SECRET, report=lambda line: None)
    months = "SELECT month::text, spent_micros FROM mailrail.spending WHERE account_id = $1 ORDER BY month"
    assert [tuple(row) for row in await conn.fetch(months, account_id)] == [
        ("2026-03-01", 4_200),
        ("2026-04-01", 3_000),
    ]
    await conn.execute(OLD_SETTLE, holds[2], 1, 9)
    await conn.fetchval(OLD_HOLD.replace("$3::timestamptz", "'2026-05-01T00:00:00Z'"), account_id, 2)
    assert [tuple(row) for row in await conn.fetch(months, account_id)] == [
        ("2026-03-01", 4_200), ("2026-04-01", 300), ("2026-05-01", 600),
    ]  # fmt: skip
    await conn.close()
    worker = await connect(role_url(url, "mailrail_worker", SECRET), application_name="tests")
    assert not [line for line in await wallet.audit(worker) if "spending" in line]
    await worker.execute("UPDATE spending SET spent_micros = spent_micros + 1 WHERE month = '2026-05-01'")
    assert "spending of a month differs from its holds (id None)" in await wallet.audit(worker)
    await worker.close()
