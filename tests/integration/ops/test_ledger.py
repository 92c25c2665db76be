"""The watch over the ledger: whoever's books do not balance starts nothing new, and everybody else goes on."""

from collections.abc import AsyncIterator

import pytest

from mailrail.db.pool import Pool, open_pool
from mailrail.ops import ledger, store
from mailrail.ops.ledger import LedgerWatch
from mailrail.wallet import service as wallet
from mailrail.wallet import store as wallet_store
from mailrail.wallet.model import WalletFrozen
from tests.support.api import Api, Tenant
from tests.support.postgres import Database
from tests.support.streams import make_account, make_stream


@pytest.fixture
async def watch(worker_pool: Pool, superuser_pool: Pool) -> AsyncIterator[LedgerWatch]:
    """A watch whose audit is due, on a ledger that is put right at the end."""
    await superuser_pool.execute("UPDATE mailrail.installation SET audited_at = NULL")
    yield LedgerWatch(worker_pool)
    await superuser_pool.execute("UPDATE mailrail.installation SET audited_at = NULL")
    await LedgerWatch(worker_pool).look()


async def spoil(pool: Pool, account_id: int, micros: int) -> None:
    """Money from nowhere."""
    await pool.execute(
        "UPDATE mailrail.ledger_accounts SET balance_micros = balance_micros + $2 WHERE account_id = $1 AND kind = 'available'",
        account_id,
        micros,
    )
    await pool.execute("UPDATE mailrail.installation SET audited_at = NULL")


async def figure(pool: Pool, name: str) -> float:
    async with pool.acquire() as conn:
        return next(item.value for item in await store.read_figures(conn) if item.name == name)


async def test_books_that_do_not_balance_freeze_their_tenant_alone(
    watch: LedgerWatch, worker_pool: Pool, superuser_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker_pool.acquire() as conn:
        bad, good = await make_account(conn), await make_account(conn, "Good")
        stream = await make_stream(conn, bad, 10)
    await spoil(superuser_pool, bad, 1)
    await watch.look()
    assert "ledger: balance differs from its postings (id" in caplog.text
    assert f"account {bad})" in caplog.text
    assert (await figure(worker_pool, "ledger_violations"), await figure(worker_pool, "wallets_frozen")) == (1, 1)
    async with worker_pool.acquire() as conn:
        async with conn.transaction():
            with pytest.raises(WalletFrozen):
                await wallet.hold(conn, bad, stream.stream_id, 300, 1)
            await wallet.hold(conn, good, stream.stream_id + 1, 300, 1)
        # What runs goes on: it settles.
        assert (await wallet.settle(conn, bad, stream.hold_id, 0, 1, "one")).released_micros == 300
    await spoil(superuser_pool, bad, -1)
    await superuser_pool.execute(
        "INSERT INTO mailrail.settlements (stream_id, seq, hold_id, account_id, kind) VALUES ($1, 1, $2, $3, 'released')",
        stream.stream_id, stream.hold_id, bad,
    )  # fmt: skip
    await watch.look()
    assert (await figure(worker_pool, "ledger_violations"), await figure(worker_pool, "wallets_frozen")) == (0, 0)
    async with worker_pool.acquire() as conn, conn.transaction():
        await wallet.hold(conn, bad, stream.stream_id, 300, 1)


async def test_one_audit_a_minute_whoever_asks(watch: LedgerWatch, worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        assert await store.take_audit(conn, 60)
        async with worker_pool.acquire() as other:
            assert not await store.take_audit(other, 60), "one is under way"
            await store.note_audit(conn, 0)
            assert not await store.take_audit(other, 60)
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE installation SET audited_at = now() - interval '61 seconds'")
        assert await store.take_audit(conn, 60)


async def test_an_audit_that_takes_longer_than_other_statements_comes_to_its_end(
    watch: LedgerWatch, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "SELECT 'a test' AS rule, NULL::bigint AS id, NULL::bigint AS account_id FROM pg_sleep(1)"
    pool = await open_pool(database.worker_url, application_name="test", command_timeout_s=0.5)
    try:
        with pytest.raises(TimeoutError):
            await pool.fetchval("SELECT pg_sleep(1)")
        monkeypatch.setattr(wallet_store, "_AUDIT", slow)
        await LedgerWatch(pool).look()
        assert await pool.fetchval("SELECT ledger_violations FROM mailrail.installation") == 1
    finally:
        await pool.close()


async def test_money_set_aside_too_long_is_told_once(
    watch: LedgerWatch, worker_pool: Pool, superuser_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), 10)
        await conn.execute("UPDATE holds SET created_at = now() - interval '73 hours' WHERE id = $1", stream.hold_id)
    for _ in range(2):
        await superuser_pool.execute("UPDATE mailrail.installation SET audited_at = NULL")
        await watch.look()
    assert caplog.text.count("1 holds are open for more than 72 hours, 3000 micro-dollars") == 1
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE holds SET created_at = now() WHERE id = $1", stream.hold_id)


async def test_audits_of_a_large_ledger_come_less_often(watch: LedgerWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "INTERVAL_S", 0.0)
    monkeypatch.setattr(ledger, "SHARE_MAX", 1e-9)
    await watch.look()
    assert watch._interval_s > 60


async def test_a_frozen_wallet_answers_503(api: Api, tenant: Tenant, worker_pool: Pool, superuser_pool: Pool) -> None:
    await tenant.verify_domain()
    await tenant.post("/api/v1/contacts", {"email": "a@example.net"})
    made = await tenant.post(
        "/v1/mail/campaigns",
        {"name": "N", "subject": "S", "from": {"name": "A", "email": "a@acme.com"}, "audience": {}, "content": {"html": "<p>x</p>"}},
    )  # fmt: skip
    await spoil(superuser_pool, tenant.account_id, 1)
    await LedgerWatch(worker_pool).look()
    refused = await tenant.post(f"/v1/mail/campaigns/{made.body['id']}/send")
    assert (refused.status, refused.code) == (503, "wallet_frozen")
    assert refused.headers["retry-after"]
    await spoil(superuser_pool, tenant.account_id, -1)
    await LedgerWatch(worker_pool).look()
    assert (await tenant.post(f"/v1/mail/campaigns/{made.body['id']}/send")).status == 200
