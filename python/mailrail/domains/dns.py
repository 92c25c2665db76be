"""Questions to DNS, each bounded in time. Whoever asks gets an answer or the word that there is none; nothing is raised."""

import asyncio
import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from mailrail.config import Settings, dns_servers, sends_to_aws

Answered = TypeVar("Answered")

# One question, with all its tries; and all of a domain together, so that a request for it ends within seconds.
QUESTION_TIMEOUT_S = 3.0
TRY_TIMEOUT_S = 1.5
AT_ONCE_MAX = 16
# Of what a stranger's server says, no more is kept.
VALUES_MAX = 20
VALUE_MAX_CHARS = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Reply:
    """The values under a name, none where there are none. Not known is what no server said in time."""

    values: tuple[str, ...] = ()
    is_known: bool = True


SILENCE = Reply(is_known=False)


class Dns:
    """The resolvers of the settings, else those of the system."""

    def __init__(self, servers: Iterable[tuple[str, int]]) -> None:
        chosen = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._resolver = dns.asyncresolver.Resolver(configure=not chosen)
        if chosen:
            self._resolver.nameservers = chosen
        self._resolver.timeout = TRY_TIMEOUT_S
        self._resolver.lifetime = QUESTION_TIMEOUT_S
        self._room = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(self, name: str, kind: str) -> Reply:
        """The records of one kind (`TXT`, `MX`, `CNAME`, `A`) under a name, which is taken as it is: no search list."""
        try:
            asked = dns.name.from_text(name.rstrip(".") + ".")
            async with self._room:
                answer = await self._resolver.resolve(asked, kind, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return Reply()
        # Names with labels that are empty or too long do not exist; servers that are silent or fail say nothing.
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape):
            return Reply()
        except (dns.exception.DNSException, UnicodeError, OSError, ValueError):
            return SILENCE
        found = sorted(text_of(record)[:VALUE_MAX_CHARS] for record in answer.rrset or ())
        return Reply(tuple(found[:VALUES_MAX]))


def asks_dns(settings: Settings) -> bool:
    """Not with a stand-in for SES, unless a resolver is named: it verifies domains that nobody publishes anything for."""
    return bool(settings.dns) or sends_to_aws(settings)


def open_dns(settings: Settings) -> Dns | None:
    """None where DNS is not asked."""
    try:
        return Dns(dns_servers(settings)) if asks_dns(settings) else None
    except dns.resolver.NoResolverConfiguration:
        return Dns([("127.0.0.1", 53)])


async def side_by_side(*asked: Awaitable[Answered]) -> list[Answered]:
    """All at once, in their order; one that fails ends the others."""
    async with asyncio.TaskGroup() as tasks:
        begun = [tasks.create_task(_as_coroutine(one)) for one in asked]
    return [task.result() for task in begun]


async def _as_coroutine(one: Awaitable[Answered]) -> Answered:
    return await one


def text_of(record: Any) -> str:
    """A record as its owner types it: names without the period at the end and in lower case, texts in one piece and without
    characters that nobody types and no database keeps.
    """
    match record.rdtype.name:
        case "TXT":
            return _CONTROL.sub("\ufffd", b"".join(record.strings).decode("utf-8", "replace"))
        case "MX":
            return f"{record.preference} {same_name(record.exchange.to_text())}"
        case "CNAME":
            return same_name(record.target.to_text())
    return str(record.to_text())


def same_name(name: str) -> str:
    """A domain name in the form in which equal ones are equal."""
    return name.rstrip(".").lower()
