"""Where webhooks may go: which URLs an endpoint may have, and which addresses a connection may reach."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from mailrail.addresses import DomainInvalid, parse_domain
from mailrail.config import Settings, is_loopback, split_url
from mailrail.errors import MailrailError
from mailrail.outgoing import HTTPS_PORT, PORT_MIN, PRIVATE_NAMES, AddressPolicy, is_public

URL_MAX_CHARS = 2048

# RFC 3986, section 2: what may stand in a URL. Two parsers that see a blank, a backslash or a bracket may see two hosts.
URL_CHARS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)


class WebhookUrlInvalid(MailrailError):
    """This is not a URL that webhooks can be sent to."""

    code = "webhook_url_invalid"
    param = "url"


@dataclass(frozen=True, slots=True)
class Destinations(AddressPolicy):
    """What webhooks may reach, and what their URLs may say."""

    def checked_url(self, text: str) -> str:
        """The URL with its host in lower case and ASCII. Raises WebhookUrlInvalid.

        This looks at the text alone; delivery resolves the name and looks at every address once more.
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
        if self._is_at_home(parts.hostname):
            return _rebuilt(parts, parts.hostname)
        if parts.scheme != "https":
            raise WebhookUrlInvalid("A webhook's URL begins with https://.")
        if parts.port is not None and parts.port != HTTPS_PORT and parts.port < PORT_MIN:
            raise WebhookUrlInvalid(f"A webhook's port is {HTTPS_PORT}, or {PORT_MIN} and above.")
        return _rebuilt(parts, _public_host(parts.hostname))

    def _is_at_home(self, host: str) -> bool:
        """Whether the host is of the operator's own networks, where http and every port are fine, or may be by its name."""
        if self.is_development and is_loopback(host):
            return True
        try:
            return self.is_listed(ipaddress.ip_address(host))
        except ValueError:
            return bool(self.networks) and _is_name(host) and host.endswith(PRIVATE_NAMES)


def destinations(settings: Settings) -> Destinations:
    """As the operator set them."""
    return Destinations(
        networks=tuple(map(ipaddress.ip_network, settings.webhook_networks)),
        is_development=is_loopback(urlsplit(settings.public_url).hostname or ""),
    )


def _public_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _public_name(host)
    if not is_public(address):
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


def _is_name(host: str) -> bool:
    try:
        return parse_domain(host) == host
    except DomainInvalid:
        return False


def _rebuilt(parts: SplitResult, host: str) -> str:
    """From the parts that were looked at, so that nobody reads another host out of the same text."""
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    url = urlunsplit((parts.scheme, shown + port, parts.path, parts.query, ""))
    if not URL_CHARS.fullmatch(url):
        raise WebhookUrlInvalid("A webhook's URL has only characters that URLs may have; write others as %XX.")
    return url
