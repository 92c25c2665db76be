"""The next migration runs while processes of this version send: nobody notices but by a short pause."""

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailrail.db import migrate
from mailrail.db.pool import Pool, connect
from mailrail.emails import fold, store
from mailrail.up.postgres import Cluster, ensure_database
from tests.support import fleet
from tests.support.postgres import SECRET, Database
from tests.support.processes import wait_until

RECIPIENTS = 6000
HOT = ("shards", "claims", "results", "result_batches", "permits", "folds", "events", "recipient_state", "audience")
NEXT = "\n".join(
    [
        *(
            f"ALTER TABLE {table} ADD COLUMN next_release text;"
            for table in (*HOT, "contacts", "campaigns", "streams", "accounts")
        ),
        "CREATE TABLE next_table (id bigint PRIMARY KEY);",
        "CREATE INDEX next_index ON claims (account_id);",
        "GRANT SELECT ON next_table TO mailrail_api;",
    ]
)


class Client(threading.Thread):
    """Writes and reads contacts all the while; keeps the statuses."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.stopping = threading.Event()
        self._url, self._key = url, key

    def run(self) -> None:
        """Until `stopping`."""
        headers = {"Authorization": f"Bearer {self._key}"}
        number = 0
        while not self.stopping.is_set():
            number += 1
            status, _ = fleet.post_to(
                self._url, self._key, "/api/v1/contacts", {"email": f"new{number}@example.net", "tags": ["x"]}
            )
            self.statuses[status] += 1
            for path in ("/api/v1/contacts?tags=x", "/api/v1/campaigns", "/api/v1/stats"):
                self.statuses[fleet.fetch(self._url + path, headers)[0]] += 1
            time.sleep(0.01)


@pytest.mark.long
async def test_a_campaign_goes_on_while_the_next_release_migrates(
    database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    files = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, files)
    number = len(list(files.glob("*.sql"))) + 1
    (files / f"{number:04}_next.sql").write_text(NEXT)
    with fleet.simulated(database, tmp_path, {"max_send_rate": 400.0}) as (settings, simulator):
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        with fleet.starting("api", settings, tmp_path) as api, fleet.starting("worker", settings, tmp_path) as worker:
            client = Client(f"http://127.0.0.1:{settings.port}", key)
            fleet.send_campaign(settings, key)
            client.start()
            try:
                wait_until(lambda: fleet.accepted_count(simulator) > RECIPIENTS // 5, "a fifth")
                done = await migrate.migrate(database.superuser_url, SECRET, directory=files)
                assert [migration.name for migration in done] == ["next"]
                assert fleet.accepted_count(simulator) < RECIPIENTS
                before = client.statuses.total()
                await until_completed(worker_pool)
                wait_until(lambda: client.statuses.total() > before + 20, "twenty more requests")
            finally:
                client.stopping.set()
                client.join()
            assert (api.end(signal.SIGTERM), worker.end(signal.SIGTERM)) == (0, 0)
        fleet.assert_each_got_one(simulator, RECIPIENTS)
    for process in (api, worker):
        assert "ERROR" not in process.text(), process.text()
        assert "Traceback" not in process.text()
    # A request that crossed the migration's locks may have been told to come again.
    assert set(client.statuses) <= {200, 201, 503}, client.statuses
    assert client.statuses[503] <= client.statuses.total() // 20


async def until_completed(pool: Pool) -> None:
    """The campaign has come to its end."""
    deadline = time.monotonic() + 60
    while await pool.fetchval("SELECT status FROM campaigns") != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.1)  # noqa: ASYNC251


@pytest.fixture
async def first_release(cluster: Cluster, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a database at the first migration, with rows in it."""
    files = tmp_path / "first"
    files.mkdir()
    shutil.copy(migrate.MIGRATIONS / "0001_foundation.sql", files)
    await ensure_database(cluster, "first_release")
    url = cluster.url("first_release")
    await migrate.migrate(url, SECRET, report=lambda line: None, directory=files)
    connection = await connect(url, application_name="tests")
    await connection.execute("SET search_path = mailrail")
    await connection.execute(OLD_ROWS)
    await connection.close()
    yield url
    connection = await connect(cluster.url("postgres"), application_name="tests")
    await connection.execute("DROP DATABASE first_release WITH (FORCE)")
    await connection.close()


OLD_ROWS = """
CREATE VIEW the_stream AS SELECT (week_of(now()) * 8) << 32 | 1 AS id;
INSERT INTO accounts (name) VALUES ('Old');
INSERT INTO ledger_accounts (account_id, kind) SELECT 1, unnest(ARRAY['available', 'held', 'cash', 'revenue']);
INSERT INTO holds (account_id, stream_id, price_micros, recipients, amount_micros, closed_at) SELECT 1, id, 0, 20, 0, now() FROM the_stream;
INSERT INTO campaigns (account_id, name, subject, html, status, stream_id) SELECT 1, 'N', 'S', 'H', 'queued', id FROM the_stream;
INSERT INTO campaigns (account_id, name, subject, html) VALUES (1, 'N', 'S', 'H');
INSERT INTO streams (stream_id, account_id, campaign_id, content, identity, shard_size, bounce_grace)
  SELECT id, 1, 1, '{}', '{}', 20, '0' FROM the_stream;
INSERT INTO contacts (account_id, email) SELECT 1, 'p' || n || '@example.net' FROM generate_series(1, 20) n;
INSERT INTO audience (stream_id, seq, account_id, contact_id, email) SELECT s.id, c.id, 1, c.id, c.email FROM contacts c, the_stream s;
INSERT INTO shards (stream_id, shard, account_id, state, first_seq, last_seq, next_seq, wake_at, epoch, lease_id, lease_until)
  SELECT id, 0, 1, 'sending', 1, 20, 6, now(), 1, 1, now() - interval '1 second' FROM the_stream;
INSERT INTO folds (stream_id, shard, account_id, open) SELECT id, 0, 1, 20 FROM the_stream;
INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, epoch, attempt, first_seq, last_seq) SELECT id, 0, nextval('claim_ids'), 1, 1, 1, 1, 1, 5 FROM the_stream;
"""

# What workers and API processes of the first release say, as far as the second one changed those tables.
OLD_STATEMENTS = (
    "INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, epoch, attempt, first_seq, last_seq) "
    "SELECT id, 0, nextval('claim_ids'), 1, 1, 1, 1, 6, 10 FROM the_stream",
    "INSERT INTO folds (stream_id, shard, account_id, open) SELECT id, 1, 1, 1 FROM the_stream",
    "DELETE FROM folds WHERE shard = 1",
    "UPDATE folds SET due_at = now()",
    "INSERT INTO notification_queue (day, message_id) VALUES (current_date, 'old')",
    "UPDATE campaigns SET status = 'sending' WHERE status = 'queued'",
    "UPDATE campaigns SET status = 'paused', reason = 'old' WHERE status = 'sending'",
    "INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at) SELECT id, 1, 2, 1, 0, now() FROM the_stream ON CONFLICT DO NOTHING",
    "INSERT INTO outbox (topic, message) VALUES ('shards_ready', '{}')",
    "UPDATE ledger_accounts SET balance_micros = balance_micros WHERE kind = 'available'",
    "UPDATE shards SET lease_until = NULL, lease_id = NULL, epoch = epoch + 1",
)


async def test_the_second_release_reads_what_the_first_one_wrote(first_release: str) -> None:
    done = await migrate.migrate(first_release, SECRET, report=lambda line: None)
    assert done[0].version == 2
    connection = await connect(first_release, application_name="tests")
    await connection.execute("SET search_path = mailrail")
    for statement in OLD_STATEMENTS:
        await connection.execute(statement)
    async with connection.transaction():
        folded = await fold.fold_next(connection)
    assert folded is not None
    states = await connection.fetch("SELECT state, count(*) FROM recipient_state GROUP BY 1")
    assert sum(row["count"] for row in states) == 10
    await connection.execute("UPDATE shards SET wake_at = now(); UPDATE permits SET due_at = now() + interval '1 hour'")
    lease = await store.take_shard(connection, 30.0)
    assert lease is not None
    claimed = await store.claim_round(connection, lease, 100, 30.0)
    assert claimed is not None
    assert (claimed.first_seq, claimed.last_seq) == (6, 20)
    await connection.close()
