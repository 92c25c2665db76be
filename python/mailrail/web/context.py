"""What a handler finds on the app and on its request."""

import ipaddress
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import sanic
from sanic.config import Config
from sanic.response import HTTPResponse

from mailrail import logs
from mailrail.accounts.auth import ProvenKeys
from mailrail.accounts.model import Account, Caller
from mailrail.config import Settings
from mailrail.db.pool import Connection, Pool, transaction
from mailrail.ids import Ids
from mailrail.ops.metrics import Metrics
from mailrail.sealing import Seal
from mailrail.web.limits import Allowance, Limits

if TYPE_CHECKING:
    from mailrail._core import Codec
    from mailrail.emails.mailroom import Mailroom
    from mailrail.events.service import Intake
    from mailrail.rehearsals.link_checker import LinkChecker
    from mailrail.web.routes import Reference


@dataclass
class Context:
    """`app.ctx`. What needs an event loop (pool, intake, mailroom, link checker) is there from the start of the server on."""

    settings: Settings
    codec: "Codec"
    ids: Ids
    draining: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    proven_keys: ProvenKeys = field(default_factory=ProvenKeys)
    limits: Limits = field(default_factory=Limits)
    answers_seal: Seal = field(init=False)
    # There once the routes are.
    reference: "Reference" = field(init=False)
    pool: Pool = field(init=False)
    intake: "Intake" = field(init=False)
    mailroom: "Mailroom" = field(init=False)
    link_checker: "LinkChecker" = field(init=False)

    def __post_init__(self) -> None:
        """What derives from the settings."""
        self.answers_seal = Seal(self.settings.secret_key, "kept answers")


@dataclass
class RequestContext(SimpleNamespace):
    """`request.ctx`. Routes with a scope have the caller whose key came with the request."""

    # Is to be told from others, and no secret.
    request_id: str = field(default_factory=lambda: f"req_{random.getrandbits(96):024x}")
    # Whether admission has judged the request; Sanic would ask it again before it answers an error.
    is_judged: bool = False
    caller: Caller | None = None
    # Where the caller's account stands with its requests; None without a limit.
    allowance: Allowance | None = None
    # The open transaction in which effect and answer are kept together, where the request has an Idempotency-Key.
    connection: "Connection | None" = None

    @property
    def account(self) -> Account:
        """The account that asks."""
        assert self.caller is not None, "this route declares no scope"
        return self.caller.account


App: TypeAlias = "sanic.Sanic[Config, Context]"


class Request(sanic.Request[App, RequestContext]):
    """A request of this app."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction of the account that asks; a part of the one that keeps the answer, if the request has such a one."""
        if self.ctx.connection is not None:
            async with self.ctx.connection.transaction():
                yield self.ctx.connection
        else:
            async with transaction(self.app.ctx.pool, self.ctx.account.id) as connection:
                yield connection

    @property
    def path(self) -> str:
        """Where it goes. An absolute address may end with its host, which means the root (RFC 9110, 4.2.3)."""
        return (self._parsed_url.path or b"/").decode()

    @property
    def client_ip(self) -> str:
        """Where the request came from, as far as our own proxies know; what they do not tell as an address is no word of
        theirs.
        """
        try:
            return str(ipaddress.ip_address(self.remote_addr.strip("[]")))
        except ValueError:
            return self.ip

    @staticmethod
    def make_context() -> RequestContext:
        """Sanic calls this at the first use of `request.ctx`; what is logged from then on carries the request's id."""
        context = RequestContext()
        logs.request_id.set(context.request_id)
        return context


Handler: TypeAlias = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]
