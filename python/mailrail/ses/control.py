"""SES control calls: few, slow and rare, so Amazon's own SDK makes them, each in a thread. Its credential chain serves
installations on AWS; for any other endpoint the keys are those of the settings.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mailrail.config import Settings, sends_to_aws
from mailrail.errors import MailrailError
from mailrail.ses.clients import NO_CREDENTIALS, Answer, AwsError, ask, session

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
class DkimRecord:
    """A CNAME that the owner of a domain has to publish."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Identity:
    """GetEmailIdentity: whether SES sends from it, the state of its DKIM and what DNS has to say for it (nothing that SES could
    tell, where it signs with a key of the operator's own), the state of its MAIL FROM, and what stopped SES last.
    """

    name: str
    verified: bool
    dkim_status: str
    dkim_records: tuple[DkimRecord, ...]
    mail_from: str | None = None
    mail_from_status: str | None = None
    error: str | None = None


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


async def keys(settings: Settings) -> Keys:
    """The keys that hold now: the settings' own for an endpoint that they name, else what the SDK's chain finds (environment,
    files, role of the container or the machine). Raises ControlError.
    """
    if not sends_to_aws(settings):
        return Keys(settings.ses_access_key, settings.ses_secret_key, None)
    try:
        found = await asyncio.to_thread(lambda: session(settings).get_credentials())
        frozen = await asyncio.to_thread(found.get_frozen_credentials) if found else None
    except NO_CREDENTIALS as error:
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


async def set_mail_from(settings: Settings, name: str, mail_from: str | None) -> None:
    """Whose name stands in MAIL FROM; None is Amazon's. While its records are not there SES uses Amazon's, and mail goes on.

    Raises IdentityUnknown, ControlError.
    """
    asked = {"BehaviorOnMxFailure": "USE_DEFAULT_VALUE", **({"MailFromDomain": mail_from} if mail_from else {})}
    await _call(settings, lambda ses: ses.put_email_identity_mail_from_attributes(EmailIdentity=name, **asked))


async def look_again(settings: Settings, name: str) -> None:
    """Sets Easy DKIM up once more, so that SES looks for the records again after it gave up. Raises IdentityUnknown,
    ControlError.
    """
    asked = {"SigningAttributesOrigin": "AWS_SES"}
    await _call(settings, lambda ses: ses.put_email_identity_dkim_signing_attributes(EmailIdentity=name, **asked))


def read_identity(name: str, answer: dict[str, Any]) -> Identity:
    """An answer about an identity. The zone of the DKIM records is SES's to say: it differs by region."""
    dkim, mail_from = answer.get("DkimAttributes", {}), answer.get("MailFromAttributes", {})
    zone = dkim.get("SigningHostedZone", "dkim.amazonses.com")
    tokens = () if dkim.get("SigningAttributesOrigin") == "EXTERNAL" else dkim.get("Tokens", ())
    return Identity(
        name=name,
        verified=bool(answer.get("VerifiedForSendingStatus", False)),
        dkim_status=str(dkim.get("Status", "NOT_STARTED")),
        dkim_records=tuple(DkimRecord(f"{token}._domainkey.{name}", f"{token}.{zone}") for token in tokens),
        mail_from=mail_from.get("MailFromDomain") or None,
        mail_from_status=mail_from.get("MailFromDomainStatus"),
        error=answer.get("VerificationInfo", {}).get("ErrorType"),
    )


async def _call(settings: Settings, call: Callable[[Any], Answer]) -> Answer:
    """One call to SES; what may go wrong in the words of this module."""
    try:
        return await ask(settings, "sesv2", call)
    except AwsError as error:
        if error.reason == "NotFoundException":
            raise IdentityUnknown from error
        raise ControlError(str(error)) from error
