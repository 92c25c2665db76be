"""A stand-in for the identities of SES on a loopback port, whose states a test sets as it likes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Identities:
    """What SES knows: name → (verified, DKIM status), and name → MAIL FROM and its status. Names that are not there do not exist;
    `away` answers 500. `errors` are why SES gave up, `looked_again` whom it was asked to look for once more.
    """

    known: dict[str, tuple[bool, str]] = field(default_factory=dict)
    mail_from: dict[str, tuple[str, str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    looked_again: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    port: int = 0

    @property
    def endpoint(self) -> str:
        """For MAILRAIL_SES_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """As new; the port stays."""
        self.__dict__.update(Identities(port=self.port).__dict__)

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

    async def set_mail_from(self, request: web.Request) -> web.Response:
        """PutEmailIdentityMailFromAttributes: pending until its DNS is there; without a domain there is none."""
        name, asked = request.match_info["name"], await request.json()
        assert asked["BehaviorOnMxFailure"] == "USE_DEFAULT_VALUE"
        if name not in self.known:
            return error(404, "NotFoundException")
        self.mail_from.pop(name, None)
        if "MailFromDomain" in asked:
            self.mail_from[name] = (asked["MailFromDomain"], "PENDING")
        return web.json_response({})

    async def look_again(self, request: web.Request) -> web.Response:
        """PutEmailIdentityDkimSigningAttributes: Easy DKIM anew."""
        assert await request.json() == {"SigningAttributesOrigin": "AWS_SES"}
        name = request.match_info["name"]
        self.looked_again.append(name)
        self.known[name] = (self.known[name][0], "PENDING")
        return web.json_response({"DkimStatus": "PENDING"})

    def describe(self, name: str) -> web.Response:
        """An identity as SES prints it."""
        verified, dkim = self.known[name]
        answer: dict[str, Any] = {
            "IdentityType": "DOMAIN",
            "VerifiedForSendingStatus": verified,
            "DkimAttributes": {"Status": dkim, "Tokens": ["aaa", "bbb"], "SigningHostedZone": "dkim.amazonses.com"},
            "MailFromAttributes": {"BehaviorOnMxFailure": "USE_DEFAULT_VALUE"},
            "VerificationInfo": {"ErrorType": self.errors[name]} if name in self.errors else {},
        }
        if name in self.mail_from:
            mail_from, status = self.mail_from[name]
            answer["MailFromAttributes"] |= {"MailFromDomain": mail_from, "MailFromDomainStatus": status}
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
    app.router.add_put("/v2/email/identities/{name}/mail-from", identities.set_mail_from)
    app.router.add_put("/v2/email/identities/{name}/dkim/signing", identities.look_again)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    identities.port = runner.addresses[0][1]
    yield identities
    await runner.cleanup()
