"""Which sender a mail may have."""

import pytest

from mailrail.accounts import service as accounts
from mailrail.db.pool import Pool, transaction
from mailrail.domains import service
from mailrail.domains.model import NoDefaultSender, SenderNotVerified
from tests.support.api import Tenant


async def test_only_verified_domains_and_those_under_them_may_send(api_pool: Pool, tenant: Tenant) -> None:
    await tenant.verify_domain("acme.com")
    async with transaction(api_pool, tenant.account_id) as conn:
        await service.require_verified_sender(conn, tenant.account_id, "sarah@ACME.com")
        await service.require_verified_sender(conn, tenant.account_id, "sarah@mail.acme.com")
        for address in ("sarah@notacme.com", "sarah@com", "sarah@acme.com.evil.org"):
            with pytest.raises(SenderNotVerified):
                await service.require_verified_sender(conn, tenant.account_id, address)


async def test_anothers_verified_domain_is_no_sender(api_pool: Pool, tenant: Tenant, stranger: Tenant) -> None:
    await stranger.verify_domain("theirs.com")
    async with transaction(api_pool, tenant.account_id) as conn:
        with pytest.raises(SenderNotVerified):
            await service.require_verified_sender(conn, tenant.account_id, "a@theirs.com")


async def test_the_default_sender_is_the_setting_or_hello_at_the_first_domain(
    api_pool: Pool, worker_pool: Pool, tenant: Tenant
) -> None:
    async with transaction(api_pool, tenant.account_id) as conn:
        account = await accounts.get(conn, tenant.account_id)
        with pytest.raises(NoDefaultSender):
            await service.default_sender(conn, account)
    await tenant.verify_domain("first.com")
    await tenant.verify_domain("second.com")
    async with transaction(api_pool, tenant.account_id) as conn:
        assert await service.default_sender(conn, account) == (None, "hello@first.com")
    async with worker_pool.acquire() as conn:
        changed = await accounts.change(conn, account.id, sender_name="Sarah", sender_email="sarah@Second.com")
    async with transaction(api_pool, tenant.account_id) as conn:
        assert await service.default_sender(conn, changed) == ("Sarah", "sarah@second.com")
