"""The tenants of a run: they keep launching campaigns by the real API, again and again until it answers, and never share an address."""

import asyncio
import csv
import io
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan
from mailrail.db.pool import DATABASE_ERRORS, connect
from mailrail.errors import DatabaseError
from mailrail.wallet import service as wallet

TENANTS = 3
FUNDS_MICROS = 1_000_000_000
CAMPAIGN_MIN, CAMPAIGN_MAX = 60, 180
ANSWER_TIMEOUT_S = 4.0
PAUSE_S = 0.1
SENT_ALREADY = IN_USE = 409
MAIL_LANES = 4
MAIL_PAUSE_S = 0.4
HTML = '<p>Hi {{ firstName }}</p><a href="https://example.com/{{ firstName }}">Go</a>'


class Refused(Exception):
    """The API said no to something that it should have taken."""


@dataclass(slots=True)
class Campaign:
    """One campaign: who asked for it, its public id, and whom it is for."""

    key: str
    public_id: str
    addresses: list[str]
    status: str = "launched"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An account with a key."""

    account_id: int
    key: str


@dataclass(slots=True)
class Customers:
    """All tenants, and what they launched. `repeats` counts requests that had to be made again, by reason."""

    operator_url: str
    api_url: str
    session: aiohttp.ClientSession
    seed: int
    policy: str
    tenants: list[Tenant] = field(default_factory=list)
    campaigns: list[Campaign] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    is_closing: bool = False
    repeats: Counter[str] = field(default_factory=Counter)

    @property
    def recipients(self) -> int:
        """All those that were asked for."""
        return sum(len(campaign.addresses) for campaign in self.campaigns) + len(self.mails)

    def asked(self) -> dict[str, list[str]]:
        """The addresses of each campaign, and those of all transactional mail, for the judge."""
        return {campaign.public_id: campaign.addresses for campaign in self.campaigns} | {"mails": self.mails}

    async def open_accounts(self) -> None:
        """Funded accounts with a verified domain; before anything goes wrong."""
        conn = await connect(self.operator_url, application_name="chaos")
        try:
            for number in range(TENANTS):
                async with conn.transaction():
                    account = await accounts.create(conn, f"Tenant {number}", plan=Plan.UNLIMITED)
                    await wallet.open_wallet(conn, account.id)
                    await wallet.deposit(conn, account.id, FUNDS_MICROS, f"opening:{account.id}")
                    _, key = await accounts.create_key(conn, account.id, "chaos")
                    await conn.execute(
                        "INSERT INTO domains (account_id, domain, status, verified_at) VALUES ($1, 'acme.com', 'verified', now())",
                        account.id,
                    )
                    await conn.execute("UPDATE accounts SET unknown_policy = $2 WHERE id = $1", account.id, self.policy)
                self.tenants.append(Tenant(account.id, key))
        finally:
            await conn.close()

    async def launch_one(self) -> Campaign:
        """One more campaign, to contacts of its own."""
        number = len(self.campaigns)
        tenant = self.tenants[number % len(self.tenants)]
        size = random.Random(f"size:{self.seed}:{number}").randint(CAMPAIGN_MIN, CAMPAIGN_MAX)
        addresses = [f"c{number}-{seq}@example.net" for seq in range(size)]
        # Before the launch, so that whatever happens the judge knows whom it was for.
        campaign = Campaign(tenant.key, "", addresses)
        await self._add_contacts(tenant, f"c{number}", addresses)
        draft = {
            "name": f"Campaign {number}",
            "subject": "Hi {{ firstName }}",
            "from": {"name": "Acme", "email": "news@acme.com"},
            "audience": {"tags": [f"c{number}"]},
            "content": {"html": HTML},
        }
        made = await self._ask(tenant.key, "POST", "/v1/mail/campaigns", draft)
        campaign.public_id = made["id"]
        self.campaigns.append(campaign)
        await self._ask(tenant.key, "POST", f"/v1/mail/campaigns/{campaign.public_id}/send", None, SENT_ALREADY)
        return campaign

    async def send_mails(self) -> None:
        """Transactional mail until `is_closing`, a few at a time: each with a key of its own, asked for until it is answered."""
        async with asyncio.TaskGroup() as tasks:
            for lane in range(MAIL_LANES):
                tasks.create_task(self._send_mails(lane))

    async def _send_mails(self, lane: int) -> None:
        for number in itertools.count():
            if self.is_closing:
                return
            name = f"m{lane}-{number}"
            tenant = self.tenants[number % len(self.tenants)]
            addresses = [f"{name}-{n}@example.net" for n in range(number % 3 + 1)]
            mail = {"to": addresses[:1], "cc": addresses[1:], "from": "you@acme.com", "subject": name, "html": HTML}
            await self._ask(tenant.key, "POST", "/api/v1/emails", mail, key=name)
            self.mails += addresses
            await asyncio.sleep(MAIL_PAUSE_S)

    async def count_queued_mails(self) -> int:
        """Transactional mails that have no outcome yet."""
        path = "/api/v1/emails?status=queued&limit=1"
        return sum([(await self._ask(tenant.key, "GET", path, None))["total"] for tenant in self.tenants])

    async def listed_mails(self, status: str) -> list[str]:
        """Addresses of transactional mails that the API shows in a status."""
        found: list[str] = []
        for tenant in self.tenants:
            after = ""
            while True:
                path = f"/api/v1/emails?status={status}&limit=100{after}"
                page = await self._ask(tenant.key, "GET", path, None)
                for mail in page["emails"]:
                    told = await self._ask(tenant.key, "GET", f"/api/v1/emails/{mail['id']}", None)
                    found += [one["email"] for one in told["email"]["recipients"] if one["status"] == status]
                if page["after"] is None:
                    break
                after = f"&after={page['after']}"
        return found

    async def look(self, campaign: Campaign) -> dict[str, Any]:
        """How far the campaign is; one that was paused is resumed."""
        shown: dict[str, Any] = await self._ask(campaign.key, "GET", f"/api/v1/campaigns/{campaign.public_id}", None)
        campaign.status = shown["status"]
        if campaign.status == "paused":
            self.repeats[f"resumed: {shown['reason']}"] += 1
            await self._ask(campaign.key, "POST", f"/api/v1/campaigns/{campaign.public_id}/resume", None, SENT_ALREADY)
        return shown

    async def count(self, campaign: Campaign, states: tuple[str, ...]) -> int:
        """How many recipients the API counts in these states."""
        query = "&".join(f"state={state}" for state in states)
        path = f"/api/v1/campaigns/{campaign.public_id}/recipients?{query}&limit=1"
        return int((await self._ask(campaign.key, "GET", path, None))["total"])

    async def listed(self, campaign: Campaign, state: str) -> list[str]:
        """The addresses that the API's export lists in a state."""
        path = f"/api/v1/campaigns/{campaign.public_id}/recipients?state={state}&format=csv"
        text = await self._ask(campaign.key, "GET", path, None)
        return [row["email"] for row in csv.DictReader(io.StringIO(text))]

    async def _add_contacts(self, tenant: Tenant, tag: str, addresses: list[str]) -> None:
        """Straight into the table, as an import would; what is there already stays."""
        while True:
            try:
                conn = await connect(self.operator_url, application_name="chaos")
                try:
                    await conn.execute(
                        """INSERT INTO contacts (account_id, email, first_name, tags)
                           SELECT $1, email, 'Ann', $3 FROM unnest($2::text[]) AS email ON CONFLICT DO NOTHING""",
                        tenant.account_id,
                        addresses,
                        [tag],
                    )
                finally:
                    await conn.close()
                return
            except (*DATABASE_ERRORS, DatabaseError):
                self.repeats["contacts"] += 1
                await asyncio.sleep(PAUSE_S)

    async def _ask(
        self, api_key: str, method: str, path: str, body: Any, fine: int = 200, key: str | None = None
    ) -> Any:
        """The answer's body, asked for until there is one; `fine` is a status that is as good as success, `key` makes the
        repetitions one request.
        """
        headers = {"Authorization": f"Bearer {api_key}"} | ({"Idempotency-Key": key} if key else {})
        options = {} if body is None else {"json": body}
        while True:
            try:
                async with (
                    asyncio.timeout(ANSWER_TIMEOUT_S),
                    self.session.request(method, self.api_url + path, headers=headers, **options) as answer,
                ):
                    is_json = answer.content_type == "application/json"
                    told = await (answer.json() if is_json else answer.text())
                    if answer.status < 300 or answer.status == fine:
                        return told
                    # The one before may have been cut off, and its process may still be at it.
                    if answer.status < 500 and not (key and answer.status == IN_USE):
                        raise Refused(f"{method} {path.partition('?')[0]} was answered {answer.status}: {told}")
                    self.repeats[f"status {answer.status}"] += 1
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.repeats[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)
