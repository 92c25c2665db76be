"""Facts of webhook endpoints, and which URLs may be one."""

import base64
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, urlunsplit

from mailrail.addresses import DomainInvalid, parse_domain
from mailrail.config import is_loopback, split_url
from mailrail.errors import MailrailError

URL_MAX_CHARS = 2048
ENDPOINTS_MAX = 20
EVERY_EVENT = "*"
SECRET_PREFIX = "whsec_"  # noqa: S105  the part that everybody knows
# Standard Webhooks asks for 24 to 64 bytes.
SECRET_BYTES = 32
PREVIOUS_VALID = timedelta(hours=24)


class EventType(StrEnum):
    """What an endpoint may ask for: the words of both dialects."""

    EMAIL_SENT = "email.sent"
    EMAIL_DELIVERED = "email.delivered"
    EMAIL_DELAYED = "email.delayed"
    EMAIL_OPENED = "email.opened"
    EMAIL_CLICKED = "email.clicked"
    EMAIL_BOUNCED = "email.bounced"
    EMAIL_COMPLAINED = "email.complained"
    EMAIL_FAILED = "email.failed"
    CAMPAIGN_SENT = "campaign.sent"
    CAMPAIGN_COMPLETED = "campaign.completed"
    CONTACT_UNSUBSCRIBED = "contact.unsubscribed"


EVENT_WORDS = (*map(str, EventType), EVERY_EVENT)


class WebhookNotFound(MailrailError):
    """There is no such webhook endpoint."""

    code = "webhook_not_found"


class WebhookLimitReached(MailrailError):
    """The account has as many webhook endpoints as it may. Delete one that is not needed."""

    code = "webhook_limit_reached"


class WebhookUrlInvalid(MailrailError):
    """This is not a URL that webhooks can be sent to."""

    code = "webhook_url_invalid"
    param = "url"


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """An endpoint to be made."""

    url: str
    events: list[str]
    description: str | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint; its secrets are sealed for account and id, the one before signs beside the new one until then."""

    id: int
    account_id: int
    url: str
    events: list[str]
    description: str | None
    is_active: bool
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs an endpoint's messages at the moment."""

    current: str
    previous: str | None
    previous_until: datetime | None


def new_secret() -> str:
    """`whsec_` and base64 of random bytes, as Standard Webhooks writes it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def chosen_events(words: Sequence[str]) -> list[str]:
    """What an endpoint asks for: everything is everything, whatever else is named."""
    return [EVERY_EVENT] if EVERY_EVENT in words else list(words)


# —— URLs ——————————————————————————————————————————————————————————————————————————————————————————————————————————————

# RFC 3986, section 2: what may stand in a URL. Two parsers that see a blank, a backslash or a bracket may see two hosts.
URL_CHARS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
PRIVATE_NAMES = (".internal", ".intranet", ".lan", ".corp", ".home", ".private", ".localdomain")
HTTPS_PORT = 443
# Below are the ports of other services, which an HTTP request may harm.
PORT_MIN = 1024
# Global unicast (RFC 4291) without what hides another address: Teredo and the like (2001::/23), documentation, 6to4.
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
NOT_GLOBAL_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


def checked_url(text: str, *, is_development: bool) -> str:
    """The URL with its host in lower case and ASCII. Raises WebhookUrlInvalid.

    This looks at the text alone; delivery resolves the name and looks at every address once more. In development, where
    the installation itself is reachable from this machine only, http and this machine are fine.
    """
    if len(text) > URL_MAX_CHARS:
        raise WebhookUrlInvalid(f"A webhook's URL has at most {URL_MAX_CHARS} characters.")
    parts = split_url(text)
    if parts is None or not parts.hostname or parts.scheme not in ("https", "http"):
        raise WebhookUrlInvalid("A webhook's URL looks like https://example.com/webhook.")
    if parts.username is not None or parts.password is not None:
        raise WebhookUrlInvalid("A webhook's URL has no user name or password: its requests are signed instead.")
    if "#" in text:
        raise WebhookUrlInvalid("A webhook's URL has no fragment, the part after #: it would never be sent.")
    if is_development and is_loopback(parts.hostname):
        return _rebuilt(parts, parts.hostname)
    if parts.scheme != "https":
        raise WebhookUrlInvalid("A webhook's URL begins with https://.")
    if parts.port is not None and parts.port != HTTPS_PORT and parts.port < PORT_MIN:
        raise WebhookUrlInvalid(f"A webhook's port is {HTTPS_PORT}, or {PORT_MIN} and above.")
    return _rebuilt(parts, _public_host(parts.hostname))


def _public_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _public_name(host)
    if not _is_public(address):
        raise WebhookUrlInvalid("A webhook's host must be reachable from everywhere, and this address is not.")
    return str(address)


def _public_name(host: str) -> str:
    # Refuses `localhost`, names without a period, and numbers in all the spellings that some resolvers take for addresses.
    try:
        name = parse_domain(host)
    except DomainInvalid as error:
        raise WebhookUrlInvalid(f"{host[:80]!r} is not the name of a host on the internet.") from error
    if name.endswith(PRIVATE_NAMES):
        raise WebhookUrlInvalid("A webhook's host must be reachable from everywhere, and this name is not.")
    return name


def _is_public(address: Any) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    # An interface's scope is of one machine.
    is_listed = any(address in network for network in NOT_GLOBAL_V6)
    return address in GLOBAL_V6 and not is_listed and address.scope_id is None


def _rebuilt(parts: SplitResult, host: str) -> str:
    """From the parts that were looked at, so that nobody reads another host out of the same text."""
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    url = urlunsplit((parts.scheme, shown + port, parts.path, parts.query, ""))
    if not URL_CHARS.fullmatch(url):
        raise WebhookUrlInvalid("A webhook's URL has only characters that URLs may have; write others as %XX.")
    return url
