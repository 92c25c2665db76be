"""Readers of a mail that went out: its links, and what their clicks left in the tables."""

import asyncio
from dataclasses import dataclass
from typing import Any

from mailrail.ids import Kind
from tests.oracle.tokens import Tokens
from tests.support.api import Answer, Tenant
from tests.support.postgres import SECRET

# What a reader's word may change, and what tells of it.
_TABLES = ("contacts", "list_members", "consents", "suppressions", "events", "webhook_messages", "webhook_deliveries")


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail of a campaign that was sent to a list."""

    tenant: Tenant
    stream_id: int
    contact_id: int
    list_id: int

    @property
    def track(self) -> str:
        """The token of its pixel and links."""
        return Tokens(SECRET.encode()).track_token(self.stream_id, 1)

    @property
    def public_list_id(self) -> str:
        """The list as the API names it."""
        return self.tenant.api.ids.encode(Kind.LIST, self.list_id)

    @property
    def public_contact_id(self) -> str:
        """The contact as the API names it."""
        return self.tenant.api.ids.encode(Kind.CONTACT, self.contact_id)

    def unsubscribe(self, *, to_list: bool = True) -> str:
        """The token of its unsubscribe link."""
        list_id = self.list_id if to_list else 0
        return Tokens(SECRET.encode()).unsubscribe_token(
            self.tenant.account_id, self.contact_id, list_id, self.stream_id, 1
        )

    async def look(self, *, to_list: bool = True) -> str:
        """The page behind its unsubscribe link."""
        answer = await self.tenant.api.call("GET", f"/u/{self.unsubscribe(to_list=to_list)}")
        assert answer.status == 200, answer
        return str(answer.body.decode())

    async def press(self, **form: str) -> str:
        """What a form of that page leads to."""
        answer = await self.post(form)
        assert answer.status == 200, answer
        return str(answer.body.decode())

    async def post(self, form: Any, *, to_list: bool = True, headers: dict[str, str] | None = None) -> Answer:
        """A POST to that page."""
        path = f"/u/{self.unsubscribe(to_list=to_list)}"
        return await self.tenant.api.call("POST", path, data=form, headers=headers or {})

    async def events(self) -> list[tuple[int, str | None]]:
        """What was recorded of it, once all has been written."""
        await asyncio.sleep(0.4)
        async with self.tenant.api.operator.acquire() as conn:
            rows = await conn.fetch(
                "SELECT kind, detail FROM events WHERE stream_id = $1 ORDER BY kind, dedupe", self.stream_id
            )
        return [(row["kind"], row["detail"]) for row in rows]

    async def statuses(self) -> tuple[str, str]:
        """(the contact's, its membership's)."""
        async with self.tenant.api.operator.acquire() as conn:
            return (
                await conn.fetchval("SELECT status FROM contacts WHERE id = $1", self.contact_id),
                await conn.fetchval(
                    "SELECT status FROM list_members WHERE contact_id = $1 AND list_id = $2",
                    self.contact_id,
                    self.list_id,
                ),
            )

    async def told(self) -> list[tuple[str, int | None]]:
        """(type, list) of the messages to webhooks about people, oldest first."""
        async with self.tenant.api.operator.acquire() as conn:
            rows = await conn.fetch(
                "SELECT type, list_id FROM webhook_messages WHERE account_id = $1 AND type ^@ 'contact.' ORDER BY id",
                self.tenant.account_id,
            )
        return [(row["type"], row["list_id"]) for row in rows]

    async def tables(self) -> dict[str, list[Any]]:
        """All rows of the account that a reader's word could touch."""
        async with self.tenant.api.operator.acquire() as conn:
            return {
                name: await conn.fetch(
                    f"SELECT * FROM {name} x WHERE account_id = $1 ORDER BY x::text", self.tenant.account_id
                )
                for name in _TABLES
            }


async def sent_mail(tenant: Tenant, links: list[str] | None = None) -> Mail:
    """A mail to a@example.com, who is on its list; its campaign has these links."""
    await tenant.verify_domain()
    list_id = (await tenant.post("/api/v1/lists", {"name": "Tips & <Tricks>"})).body["id"]
    await tenant.post("/api/v1/contacts", {"email": "a@example.com", "listId": list_id})
    body = {"name": "N", "subject": "S", "content": "<p>x</p>", "listId": list_id}
    campaign = (await tenant.post("/api/v1/campaigns", body)).body["id"]
    assert (await tenant.post(f"/api/v1/campaigns/{campaign}/launch")).status == 200
    async with tenant.api.operator.acquire() as conn:
        row = await conn.fetchrow("SELECT stream_id, list_id FROM campaigns WHERE account_id = $1", tenant.account_id)
        contact_id = await conn.fetchval("SELECT id FROM contacts WHERE account_id = $1", tenant.account_id)
        assert row is not None
        await conn.executemany(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, $2, $3, $4)",
            [(row["stream_id"], n, tenant.account_id, url) for n, url in enumerate(links or [], 1)],
        )
    return Mail(tenant, row["stream_id"], contact_id, row["list_id"])
