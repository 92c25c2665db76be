"""Whether a request for a picture or a link is a person's, from what the request itself shows. What shows only beside other events
of its mail is `emails/engagement.py`.

In doubt it was a person: nothing is guessed from addresses. Gmail and Yahoo fetch pictures by proxies of theirs when a person
opens the mail; Apple's privacy protection fetches all of them, read or not, and says no more of itself than `Mozilla/5.0`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from mailrail.emails.model import EventKind

# A person opened the mail, and the provider fetches in their name.
_PROXY = re.compile(r"GoogleImageProxy|YahooMailProxy", re.IGNORECASE)
# Apple's Mail Privacy Protection, and programs that say as little.
_NOTHING_SAID = ("", "Mozilla/5.0", "Mozilla/4.0 (compatible;)")
_SCANNER = re.compile(
    r"barracuda|mimecast|proofpoint|symantec|messagelabs|trend ?micro|sophos|fireeye|trellix|ironport|forcepoint|websense"
    r"|zscaler|fortinet|checkpoint|safelinks|mailguard|hornetsecurity|cyren|vade ?secure|urldefense|phish|virustotal",
    re.IGNORECASE,
)
# Cubot makes telephones.
_PROGRAM = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|preview|externalhit|linkexpand|headless|phantomjs|puppeteer|playwright|selenium"
    r"|^(?:curl|wget|python|aiohttp|httpx|go-http-client|java|apache-httpclient|libwww|lwp|ruby|faraday|node|axios|got"
    r"|undici|deno|php|guzzle|scrapy|postman|insomnia|httpie|dart|reqwest|hyper|powershell)\b"
    r"|microsoft office (?:existence|protocol) discovery",
    re.IGNORECASE,
)
# Outlook shows pictures itself; a link it only tries, and then hands it to the browser, which asks again.
_OFFICE = re.compile(r"^(?:microsoft office|ms-?office)|\bms-?office\b", re.IGNORECASE)
_ANNOUNCING = ("purpose", "sec-purpose", "x-purpose", "x-moz")
_AHEAD = ("prefetch", "preview", "prerender")


def machine_of(kind: EventKind, headers: Mapping[str, str]) -> str | None:
    """How the request shows that no person made it: `announced`, `privacy`, `scanner` or `program`; None where it does not."""
    if not headers.keys().isdisjoint(_ANNOUNCING) and any(
        (headers.get(name) or "").lower().startswith(_AHEAD) for name in _ANNOUNCING
    ):
        return "announced"
    return _told_by_agent(kind, headers.get("user-agent") or "")


@lru_cache(maxsize=4096)
def _told_by_agent(kind: EventKind, agent: str) -> str | None:
    agent = agent.strip()
    if _PROXY.search(agent):
        return None
    if agent in _NOTHING_SAID:
        return "privacy" if kind is EventKind.OPEN and agent == "Mozilla/5.0" else "program"
    if _SCANNER.search(agent):
        return "scanner"
    if _PROGRAM.search(agent) or (kind is EventKind.CLICK and _OFFICE.search(agent)):
        return "program"
    return None
