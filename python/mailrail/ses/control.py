"""SES control calls: few, slow and rare, so Amazon's own SDK makes them, each in a thread. Its credential chain serves
installations on AWS; for any other endpoint the keys are those of the settings.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from mailrail.config import Settings, sends_to_aws
from mailrail.errors import MailrailError
from mailrail.ses.clients import client, session

Answer = TypeVar("Answer")

# Entries of SES's suppression list in one answer.
SUPPRESSED_PAGE = 1000


class ControlError(MailrailError):
    """SES did not answer, or refused the request."""

    code = "ses_unavailable"


class IdentityUnknown(MailrailError):
    """SES does not know this identity."""

    code = "ses_identity_unknown"


@dataclass(frozen=True, slots=True)
class SesAccount:
    """GetAccount: rates in recipients per second, volumes in recipients."""

    max_send_rate: float
    max_24_hour_send: float
    sent_last_24_hours: float
    sending_enabled: bool
    production_access: bool


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record that the owner of a domain has to publish."""

    type: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Identity:
    """GetEmailIdentity: whether SES sends from it, the state of its DKIM, and what DNS has to say."""

    name: str
    verified: bool
    dkim_status: str
    records: tuple[DnsRecord, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of SES's suppression list: `bounce` or `complaint`, and since when."""

    email: str
    reason: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Keys:
    """What signs a request; those of a role have a token and end within hours."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)


# What a refresh of credentials raises beside botocore's own errors: STS refuses, or gives what has expired already.
_NO_CREDENTIALS = (BotoCoreError, ClientError, RuntimeError)


async def keys(settings: Settings) -> Keys:
    """The keys that hold now: the settings' own for an endpoint that they name, else what the SDK's chain finds (environment,
    files, role of the container or the machine). Raises ControlError.
    """
    if not sends_to_aws(settings):
        return Keys(settings.ses_access_key, settings.ses_secret_key, None)
    try:
        found = await asyncio.to_thread(lambda: session(settings).get_credentials())
        frozen = await asyncio.to_thread(found.get_frozen_credentials) if found else None
    except _NO_CREDENTIALS as error:
        raise ControlError(f"the AWS credentials cannot be had ({type(error).__name__})") from error
    if frozen is None:
        raise ControlError(
            "there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
        )
    return Keys(frozen.access_key, frozen.secret_key, frozen.token)


async def get_account(settings: Settings) -> SesAccount:
    """The account's quotas. Raises ControlError."""
    answer = await _call(settings, lambda ses: ses.get_account())
    quota = answer.get("SendQuota", {})
    return SesAccount(
        max_send_rate=float(quota.get("MaxSendRate", 0)),
        max_24_hour_send=float(quota.get("Max24HourSend", 0)),
        sent_last_24_hours=float(quota.get("SentLast24Hours", 0)),
        sending_enabled=bool(answer.get("SendingEnabled", False)),
        production_access=bool(answer.get("ProductionAccessEnabled", False)),
    )


async def get_identity(settings: Settings, name: str) -> Identity:
    """What SES knows of a domain or address. Raises IdentityUnknown, ControlError."""
    return read_identity(name, await _call(settings, lambda ses: ses.get_email_identity(EmailIdentity=name)))


async def create_identity(settings: Settings, name: str) -> Identity:
    """Tells SES of a domain, with Easy DKIM. Raises ControlError."""
    return read_identity(name, await _call(settings, lambda ses: ses.create_email_identity(EmailIdentity=name)))


async def list_suppressed(
    settings: Settings, since: datetime | None, token: str | None
) -> tuple[list[Listed], str | None]:
    """A page of SES's suppression list, and what asks for the next one; `since` leaves out what is older. Raises ControlError."""
    asked: dict[str, Any] = {"PageSize": SUPPRESSED_PAGE}
    asked |= {"StartDate": since} if since else {}
    asked |= {"NextToken": token} if token else {}
    answer = await _call(settings, lambda ses: ses.list_suppressed_destinations(**asked))
    return [
        Listed(one["EmailAddress"], one["Reason"].lower(), one["LastUpdateTime"])
        for one in answer.get("SuppressedDestinationSummaries", ())
    ], answer.get("NextToken")


async def lift_suppressed(settings: Settings, email: str) -> None:
    """Takes an address off SES's suppression list, in this very spelling; one that is not there is fine. Raises ControlError."""
    with contextlib.suppress(IdentityUnknown):
        await _call(settings, lambda ses: ses.delete_suppressed_destination(EmailAddress=email))


def read_identity(name: str, answer: dict[str, Any]) -> Identity:
    """An answer about an identity. The zone of the DKIM records is SES's to say: it differs by region."""
    dkim = answer.get("DkimAttributes", {})
    zone = dkim.get("SigningHostedZone", "dkim.amazonses.com")
    records = tuple(
        DnsRecord("CNAME", f"{token}._domainkey.{name}", f"{token}.{zone}") for token in dkim.get("Tokens", ())
    )
    return Identity(
        name, bool(answer.get("VerifiedForSendingStatus", False)), str(dkim.get("Status", "NOT_STARTED")), records
    )


async def _call(settings: Settings, call: Callable[[Any], Answer]) -> Answer:
    """One call in a thread; the SDK's errors as ours."""
    try:
        return await asyncio.to_thread(lambda: call(client(settings, "sesv2")))
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an unnamed error")
        if code == "NotFoundException":
            raise IdentityUnknown from error
        raise ControlError(f"SES answered {code}.") from error
    except (*_NO_CREDENTIALS, OSError) as error:
        raise ControlError(f"SES did not answer ({type(error).__name__}).") from error
