"""What a tenant sees of another, and row level security as the second wall. Every route of the document: tests/contract/test_tenants.py."""

import pytest

from mailrail.accounts import store as accounts
from mailrail.accounts.model import KeyNotFound
from mailrail.campaigns import service as campaigns
from mailrail.campaigns.model import CampaignNotFound
from mailrail.contacts import service as contacts
from mailrail.contacts.model import ContactFilter, ContactNotFound, ListNotFound
from mailrail.db.pool import Pool, transaction
from mailrail.domains import store as domains
from mailrail.domains.model import DomainNotFound
from mailrail.ids import Kind
from mailrail.privacy import service as privacy
from mailrail.privacy.model import ErasureNotFound
from mailrail.suppressions import service as suppressions
from mailrail.suppressions.model import SuppressionNotFound
from mailrail.templates import service as templates
from mailrail.templates.model import Ref, TemplateNotFound
from mailrail.wallet import service as wallet
from mailrail.wallet.model import HoldNotFound
from mailrail.webhooks import service as webhooks
from mailrail.webhooks.model import WebhookNotFound
from tests.support.api import Api, Tenant


async def objects_of(tenant: Tenant) -> dict[Kind, int]:
    """One object of each kind, as row numbers."""
    async with tenant.api.operator.acquire() as conn:
        made = {}
        for kind, sql in {
            Kind.CONTACT: "INSERT INTO contacts (account_id, email) VALUES ($1, 'secret@example.com') RETURNING id",
            Kind.LIST: "INSERT INTO lists (account_id, name) VALUES ($1, 'Secret') RETURNING id",
            Kind.DOMAIN: "INSERT INTO domains (account_id, domain) VALUES ($1, 'secret.com') RETURNING id",
            Kind.CAMPAIGN: """INSERT INTO campaigns (account_id, name, subject, html)
                              VALUES ($1, 'Secret', 'Secret', '<p>Secret</p>') RETURNING id""",
            Kind.KEY: """INSERT INTO api_keys (account_id, name, prefix, hash, scopes)
                         VALUES ($1, 'Secret', 'sk_live_' || $1::bigint, decode(repeat('00', 32), 'hex'), '{full}')
                         RETURNING id""",
            Kind.HOLD: """INSERT INTO holds (account_id, stream_id, price_micros, recipients, amount_micros)
                          VALUES ($1, 1, 0, 1, 0) RETURNING id""",
            Kind.SUPPRESSION: """INSERT INTO suppressions (account_id, email_folded, reason)
                                 VALUES ($1, 'secret@example.com', 'manual') RETURNING id""",
            Kind.ERASURE: """INSERT INTO erasures (account_id, contact_id, email_folded, email_hash)
                             VALUES ($1, 1, 'secret@example.org', sha256('')) RETURNING id""",
            Kind.WEBHOOK: """INSERT INTO webhook_endpoints (account_id, url, events, secret)
                             VALUES ($1, 'https://secret.example.com/', '{*}', decode('00', 'hex')) RETURNING id""",
            Kind.TEMPLATE: """WITH made AS (INSERT INTO templates (account_id, name) VALUES ($1, 'Secret') RETURNING id)
                              INSERT INTO template_versions (template_id, version, account_id, text, variables, warnings)
                              SELECT id, 1, $1, 'Secret', '{}', '{}' FROM made RETURNING template_id""",
            Kind.DELIVERY: """WITH m AS (
                                INSERT INTO webhook_messages (account_id, type, at, facts)
                                VALUES ($1, 'webhook.test', now(), '{"name": "Secret"}') RETURNING id)
                              INSERT INTO webhook_deliveries (account_id, endpoint_id, message_id, type, status)
                              SELECT $1, 0, id, 'webhook.test', 'failed' FROM m RETURNING id""",
        }.items():
            made[kind] = await conn.fetchval(sql, tenant.account_id)
    return made


async def test_anothers_list_cannot_be_named_in_a_body_or_query(api: Api, tenant: Tenant, stranger: Tenant) -> None:
    await tenant.verify_domain()
    list_id = api.ids.encode(Kind.LIST, (await objects_of(stranger))[Kind.LIST])
    template = {"name": "N", "subject": "S"}
    for answer in (
        await tenant.post("/api/v1/contacts", {"email": "a@example.com", "listId": list_id}),
        await tenant.get(f"/api/v1/contacts?listId={list_id}"),
        await tenant.post("/api/v1/campaigns", {**template, "content": "<p>x</p>", "listId": list_id}),
        await tenant.post(
            "/v1/mail/campaigns", {**template, "content": {"html": "<p>x</p>"}, "audience": {"listId": list_id}}
        ),
    ):
        assert (answer.status, answer.code) == (404, "list_not_found")


async def test_lists_show_the_tenants_own_rows_only(api: Api, tenant: Tenant, stranger: Tenant) -> None:
    await objects_of(stranger)
    for path, name in (
        ("/api/v1/contacts", "contacts"),
        ("/api/v1/lists", "lists"),
        ("/api/v1/domains", "domains"),
        ("/api/v1/campaigns", "campaigns"),
        ("/v1/mail/contacts", "contacts"),
        ("/api/v1/suppressions", "suppressions"),
        ("/api/v1/webhooks", "webhooks"),
        ("/api/v1/templates", "templates"),
        ("/v1/mail/wallet/holds", "holds"),
    ):
        body = (await tenant.get(path)).body
        assert (body[name], body["total"]) == ([], 0)
    assert (await tenant.get("/api/v1/stats")).body["contacts"] == 0


async def test_the_database_hides_rows_even_where_the_code_names_the_wrong_tenant(
    api_pool: Pool, tenant: Tenant, stranger: Tenant
) -> None:
    theirs = await objects_of(stranger)
    account_id = stranger.account_id
    async with transaction(api_pool, tenant.account_id) as conn:
        for call, error in (
            (contacts.get(conn, account_id, theirs[Kind.CONTACT]), ContactNotFound),
            (contacts.get_list(conn, account_id, theirs[Kind.LIST]), ListNotFound),
            (contacts.remove(conn, account_id, theirs[Kind.CONTACT]), ContactNotFound),
            (contacts.delete_list(conn, account_id, theirs[Kind.LIST]), ListNotFound),
            (suppressions.lift(conn, account_id, row_id=theirs[Kind.SUPPRESSION]), SuppressionNotFound),
            (privacy.get_erasure(conn, account_id, theirs[Kind.ERASURE]), ErasureNotFound),
            (domains.read_domain(conn, account_id, theirs[Kind.DOMAIN]), DomainNotFound),
            (campaigns.get(conn, account_id, theirs[Kind.CAMPAIGN]), CampaignNotFound),
            (wallet.get_hold(conn, account_id, theirs[Kind.HOLD]), HoldNotFound),
            (webhooks.get(conn, account_id, theirs[Kind.WEBHOOK]), WebhookNotFound),
            (webhooks.delete(conn, account_id, theirs[Kind.WEBHOOK]), WebhookNotFound),
            (templates.get(conn, account_id, theirs[Kind.TEMPLATE]), TemplateNotFound),
            (templates.delete(conn, account_id, theirs[Kind.TEMPLATE]), TemplateNotFound),
            (accounts.revoke_key(conn, theirs[Kind.KEY], account_id), KeyNotFound),
        ):
            with pytest.raises(error):
                await call
        assert await templates.find(conn, account_id, [Ref(theirs[Kind.TEMPLATE], None, None)]) == {}
        assert await contacts.page(conn, account_id, ContactFilter(), 10) == []
        assert await contacts.count(conn, account_id) == 0
        assert not await contacts.unsubscribe(conn, account_id, theirs[Kind.CONTACT], None)


async def test_without_a_tenant_the_api_role_sees_and_writes_nothing(
    api_pool: Pool, superuser_pool: Pool, stranger: Tenant
) -> None:
    await objects_of(stranger)
    async with superuser_pool.acquire() as conn:
        tables = await conn.fetch(
            """SELECT c.relname, c.relforcerowsecurity AND c.relrowsecurity AS guarded
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'account_id'
               WHERE c.relnamespace = 'mailrail'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                 AND has_table_privilege('mailrail_api', c.oid, 'SELECT')"""
        )
    assert {"contacts", "campaigns", "audience", "results", "holds"} <= {row["relname"] for row in tables}
    async with api_pool.acquire() as conn:
        for row in tables:
            assert row["guarded"], row["relname"]
            assert await conn.fetchval(f"SELECT count(*) FROM {row['relname']}") == 0
