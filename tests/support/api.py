"""The API as a real server on a loopback socket, and tenants that talk to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from sanic import Sanic
from sanic.router import Router

from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan, Scope
from mailrail.app import create_app, listen, running
from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.ids import Ids
from mailrail.wallet import service as wallet
from mailrail.web.context import App

# Sanic rewrites its classes at the start of a server; in this mode it can do so for several apps in one process.
Sanic.test_mode = True

FUNDS_MICROS = 10_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is parsed JSON, or the bytes of anything else."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The error's code."""
        return str(self.body["error"]["code"])

    @property
    def params(self) -> set[str]:
        """The fields that the error blames."""
        return {item["param"] for item in self.body["errors"]}


def assert_error_form(answer: Answer) -> None:
    """The one form of every error."""
    assert set(answer.body) == {"error", "errors"}, answer
    error = answer.body["error"]
    assert {"type", "code", "message", "param", "doc_url", "request_id"} <= set(error)
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["doc_url"].endswith(f"/docs/errors#{error['code']}")


@dataclass(frozen=True, slots=True)
class Api:
    """A running server, the operator's pool, and a client without a key."""

    app: App
    base_url: str
    operator: Pool
    session: aiohttp.ClientSession

    @property
    def ids(self) -> Ids:
        """The public ids of this installation."""
        return self.app.ctx.ids

    async def call(self, method: str, path: str, key: str | None = None, **options: Any) -> Answer:
        """One request; redirects are not followed."""
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        async with self.session.request(
            method, self.base_url + path, headers=headers, allow_redirects=False, **options
        ) as response:
            is_json = response.content_type == "application/json" and method != "HEAD"
            body = await (response.json() if is_json else response.read())
            return Answer(response.status, body, {name.lower(): value for name, value in response.headers.items()})

    async def add_tenant(
        self, name: str = "Acme", funds_micros: int = FUNDS_MICROS, plan: Plan = Plan.UNLIMITED
    ) -> "Tenant":
        """A funded account with a key that may do everything."""
        async with self.operator.acquire() as conn, conn.transaction():
            account = await accounts.create(conn, name, plan=plan)
            await wallet.open_wallet(conn, account.id)
            if funds_micros:
                await wallet.deposit(conn, account.id, funds_micros, "opening")
            _, key = await accounts.create_key(conn, account.id, "tests")
        return Tenant(self, account.id, key)


@dataclass(frozen=True, slots=True)
class Tenant:
    """An account with a key."""

    api: Api
    account_id: int
    key: str

    async def get(self, path: str) -> Answer:
        """GET with the key."""
        return await self.api.call("GET", path, self.key)

    async def patch(self, path: str, body: Any) -> Answer:
        """PATCH with the key."""
        return await self.api.call("PATCH", path, self.key, json=body)

    async def delete(self, path: str) -> Answer:
        """DELETE with the key."""
        return await self.api.call("DELETE", path, self.key)

    async def post(self, path: str, body: Any = None) -> Answer:
        """POST with the key; None sends no body."""
        return await self.api.call("POST", path, self.key, **({} if body is None else {"json": body}))

    async def new_key(self, scopes: Sequence[Scope] = (Scope.FULL,), *, is_test: bool = False) -> str:
        """Another key of the account."""
        async with self.api.operator.acquire() as conn:
            return (await accounts.create_key(conn, self.account_id, "tests", scopes, is_test=is_test))[1]

    async def revoked_key(self) -> str:
        """A key that was revoked."""
        async with self.api.operator.acquire() as conn:
            key, text = await accounts.create_key(conn, self.account_id, "tests")
            await accounts.revoke_key(conn, key.id)
        return text

    async def verify_domain(self, domain: str = "acme.com") -> None:
        """A domain that the account may send from, without asking SES: no watcher does either."""
        async with self.api.operator.acquire() as conn:
            await conn.execute(
                """INSERT INTO domains (account_id, domain, status, verified_at, next_check_at)
                   VALUES ($1, $2, 'verified', now(), 'infinity')""",
                self.account_id,
                domain,
            )


@asynccontextmanager
async def running_api(settings: Settings, operator: Pool, port: int = 0) -> AsyncIterator[Api]:
    """The API on `port`, or on a free one."""
    listener = listen("127.0.0.1", port)
    app = create_app(settings)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with running(app, listener), aiohttp.ClientSession() as session:
        yield Api(app, base_url, operator, session)
    # Sanic's cache of found routes belongs to the class: it would keep a thousand apps alive, and the collector busy with them.
    Router.get.cache_clear()
