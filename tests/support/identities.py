"""A stand-in for the identities of SES: answers GetEmailIdentity and CreateEmailIdentity on a loopback port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Identities:
    """What SES knows: name → (verified, DKIM status). Names that are not there do not exist; `away` answers 500."""

    known: dict[str, tuple[bool, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    port: int = 0

    @property
    def endpoint(self) -> str:
        """For MAILRAIL_SES_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    async def get(self, request: web.Request) -> web.Response:
        """GetEmailIdentity."""
        name = request.match_info["name"]
        self.asked.append(name)
        if self.away:
            return error(500, "InternalServiceErrorException")
        if name not in self.known:
            return error(404, "NotFoundException")
        return self.describe(name)

    async def create(self, request: web.Request) -> web.Response:
        """CreateEmailIdentity: unverified until its DNS is there."""
        name = (await request.json())["EmailIdentity"]
        self.known[name] = (False, "PENDING")
        return self.describe(name)

    def describe(self, name: str) -> web.Response:
        """An identity as SES prints it."""
        verified, dkim = self.known[name]
        answer: dict[str, Any] = {
            "IdentityType": "DOMAIN",
            "VerifiedForSendingStatus": verified,
            "DkimAttributes": {"Status": dkim, "Tokens": ["aaa", "bbb"], "SigningHostedZone": "dkim.amazonses.com"},
        }
        return web.json_response(answer)


def error(status: int, code: str) -> web.Response:
    """An error of the REST-JSON protocol."""
    return web.json_response({"message": code}, status=status, headers={"x-amzn-ErrorType": code})


@asynccontextmanager
async def running_identities() -> AsyncIterator[Identities]:
    """The stand-in, listening."""
    identities = Identities()
    app = web.Application()
    app.router.add_get("/v2/email/identities/{name}", identities.get)
    app.router.add_post("/v2/email/identities", identities.create)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    identities.port = runner.addresses[0][1]
    yield identities
    await runner.cleanup()
