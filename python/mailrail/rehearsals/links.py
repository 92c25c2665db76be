"""What can be wrong with a link: by what it says, and by what came of a look at it."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, parse_qsl, unquote

from mailrail.addresses import AddressInvalid, parse_address
from mailrail.config import is_loopback, split_url
from mailrail.outgoing import HTTPS_PORT, PORT_MIN, PRIVATE_NAMES, AddressPolicy, is_public
from mailrail.rehearsals.markup import Href

HTTP_PORT = 80
# What is longer, some mail programs and servers cut off.
URL_MAX_CHARS = 2048
# Links to unsubscribe by; mailrail fills them in.
_OWN = re.compile(r"\{\{-?\s*unsubscribeUrl\s*-?\}\}")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_SCRIPT = ("javascript", "vbscript", "data")
_PHONE = re.compile(r"\+?[0-9().\- ]{3,30}(;.*)?")
# Parameters by which analytics tell where a visitor came from; twice in one address, nobody knows which counts.
_TRACKING = re.compile(r"utm_\w+|gclid|fbclid|mc_[ce]id|msclkid")
# What sites answer to programs, though a reader's browser may get the page.
_TO_PROGRAMS = (401, 403, 405, 406, 407, 429, 451, 999)


class Trouble(StrEnum):
    """What is the matter with a link. `is_note` ones are told and warn of nothing."""

    EMPTY = "empty"
    SCRIPT = "script"
    RELATIVE = "relative"
    MALFORMED = "malformed"
    ADDRESS = "address_invalid"
    PHONE = "phone_invalid"
    PRIVATE = "private"
    INSECURE = "insecure"
    REPEATED = "parameter_repeated"
    DEAD = "dead"
    MOVED = "moved"
    UNCLEAR = "unclear"
    DYNAMIC = "dynamic"
    NOT_VISITED = "not_visited"

    @property
    def is_note(self) -> bool:
        """Whether nobody has to do anything about it."""
        return self in (Trouble.MOVED, Trouble.UNCLEAR, Trouble.DYNAMIC, Trouble.NOT_VISITED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One link and what is the matter with it, in one sentence."""

    url: str
    trouble: Trouble
    message: str


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of a look at an address: the last answer's status, or why there was none. `moved_to` is where a permanent
    redirect leads; `is_private` is set where the guard stopped it.
    """

    status: int | None = None
    error: str | None = None
    moved_to: str | None = None
    is_private: bool = False


def literal(hrefs: Iterable[Href], policy: AddressPolicy) -> list[str]:
    """The addresses that can be visited, each once."""
    return list(dict.fromkeys(one.value for one in hrefs if not one.is_dynamic and is_visitable(one.value, policy)))


def is_visitable(url: str, policy: AddressPolicy) -> bool:
    """Whether a request may be sent there, by its text alone; the guard looks at the address itself."""
    parts = split_url(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return False
    if len(url) > URL_MAX_CHARS or _is_private(parts.hostname, policy):
        return False
    return parts.port is None or parts.port in (HTTP_PORT, HTTPS_PORT) or parts.port >= PORT_MIN


def leads_inside(url: str, policy: AddressPolicy) -> bool:
    """Whether its host is one of some private network, by its text alone."""
    parts = split_url(url)
    return parts is not None and bool(parts.hostname) and _is_private(parts.hostname or "", policy)


def judge(href: Href, policy: AddressPolicy) -> list[Finding]:
    """What its text tells."""
    url = href.value
    if href.is_dynamic:
        return [] if _OWN.fullmatch(url) else [Finding(url, Trouble.DYNAMIC, "It is different for each reader.")]
    if url in ("", "#"):
        return [Finding(url, Trouble.EMPTY, "It leads nowhere.")]
    if url.startswith("#"):
        return []
    scheme = _SCHEME.match(url)
    if scheme is None:
        return [
            Finding(url, Trouble.RELATIVE, "It has no https://, and a mail is no page that it could be relative to.")
        ]
    match scheme[1].lower():
        case "http" | "https":
            return _judge_web(url, policy)
        case "mailto":
            return _judge_mailto(url)
        case "tel" | "sms":
            is_phone = _PHONE.fullmatch(unquote(url.partition(":")[2]).split("?")[0])
            return [] if is_phone else [Finding(url, Trouble.PHONE, "This is not a telephone number.")]
        case word if word in _SCRIPT:
            return [Finding(url, Trouble.SCRIPT, f"Mail programs do not follow {word}: links.")]
    return []


def judge_visit(url: str, visit: Visit) -> Finding | None:
    """What the look at it tells; None where all is well."""
    if visit.is_private:
        return Finding(url, Trouble.PRIVATE, "It leads to an address that is not on the public internet.")
    if visit.error is not None:
        return Finding(url, Trouble.DEAD, f"It does not open: {visit.error}.")
    if visit.status in _TO_PROGRAMS:
        return Finding(url, Trouble.UNCLEAR, f"It answers {visit.status}, perhaps to programs only.")
    if visit.status is None or visit.status >= 400:
        return Finding(url, Trouble.DEAD, f"It answers {visit.status}.")
    if visit.moved_to is not None:
        return Finding(url, Trouble.MOVED, f"It has moved for good to {visit.moved_to}.")
    return None


def judge_all(hrefs: Iterable[Href], visits: Mapping[str, Visit] | None, policy: AddressPolicy) -> list[Finding]:
    """All findings, each link once in the order of the mail; without `visits` by their text alone."""
    found = []
    for href in dict.fromkeys(hrefs):
        found += judge(href, policy)
        if visits is None or href.is_dynamic or not is_visitable(href.value, policy):
            continue
        visit = visits.get(href.value)
        seen = judge_visit(href.value, visit) if visit else _not_visited(href.value)
        found += [seen] if seen else []
    return found


def _not_visited(url: str) -> Finding:
    return Finding(url, Trouble.NOT_VISITED, "There was no time to look at it.")


def _judge_web(url: str, policy: AddressPolicy) -> list[Finding]:
    parts = split_url(url)
    if parts is None or not parts.hostname:
        return [Finding(url, Trouble.MALFORMED, "This is not a web address.")]
    if _is_private(parts.hostname, policy):
        return [Finding(url, Trouble.PRIVATE, "Its host is not on the public internet: readers cannot open it.")]
    found = []
    if len(url) > URL_MAX_CHARS:
        found.append(Finding(url, Trouble.MALFORMED, f"It is longer than {URL_MAX_CHARS} characters."))
    if parts.username is not None:
        found.append(
            Finding(url, Trouble.MALFORMED, "It has a user name in front of its host, as addresses of phishers.")
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        found.append(Finding(url, Trouble.INSECURE, "It is http: browsers warn of it. Write https."))
    return found + _judge_query(url, parts)


def _judge_query(url: str, parts: SplitResult) -> list[Finding]:
    names = Counter(name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _TRACKING.fullmatch(name))
    repeated = [name for name, times in names.items() if times > 1]
    return [Finding(url, Trouble.REPEATED, f"It has {repeated[0]} more than once.")] if repeated else []


def _judge_mailto(url: str) -> list[Finding]:
    for address in unquote(url.partition(":")[2].partition("?")[0]).split(","):
        try:
            parse_address(address.strip())
        except AddressInvalid:
            # RFC 6068 lets the address stand behind: mailto:?to=…
            if address or "to=" not in url:
                return [Finding(url, Trouble.ADDRESS, f"{address.strip()[:80]!r} is not an email address.")]
    return []


def _is_private(host: str, policy: AddressPolicy) -> bool:
    if policy.is_development and is_loopback(host):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host.rstrip(".") or host.rstrip(".").endswith((*PRIVATE_NAMES, ".localhost", ".local"))
    return not (is_public(address) or policy.is_listed(address))
