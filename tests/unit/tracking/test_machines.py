"""Agents as they are seen in the wild, and what they say of themselves."""

import pytest

from mailrail.emails.model import EventKind
from mailrail.tracking.machines import machine_of

OPEN, CLICK = EventKind.OPEN, EventKind.CLICK
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)


@pytest.mark.parametrize(
    "agent",
    [
        CHROME,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
        "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
        "Mozilla/5.0 (Linux; Android 10; CUBOT_X20) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.5.0",
        "Dalvik/2.1.0 (Linux; U; Android 15; Pixel 9 Build/AP4A)",
    ],
)
@pytest.mark.parametrize("kind", [OPEN, CLICK])
def test_people_are_taken_for_people(kind: EventKind, agent: str) -> None:
    assert machine_of(kind, {"user-agent": agent}) is None


@pytest.mark.parametrize(
    ("agent", "machine"),
    [
        ("", "program"),
        ("  ", "program"),
        ("curl/8.5.0", "program"),
        ("python-requests/2.32.3", "program"),
        ("Python/3.12 aiohttp/3.12.15", "program"),
        ("Go-http-client/2.0", "program"),
        ("Java/17.0.2", "program"),
        ("Wget/1.21.4", "program"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "program"),
        ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "program"),
        ("facebookexternalhit/1.1", "program"),
        (f"{CHROME[:-6]} HeadlessChrome/142.0.0.0", "program"),
        ("Microsoft Office Existence Discovery", "program"),
        ("BarracudaCentral/1.0", "scanner"),
        ("Mozilla/5.0 (Proofpoint URL Defense)", "scanner"),
        ("mimecast-link-check", "scanner"),
        ("Mozilla/4.0 (compatible;)", "program"),
    ],
)
@pytest.mark.parametrize("kind", [OPEN, CLICK])
def test_machines_say_what_they_are(kind: EventKind, agent: str, machine: str) -> None:
    assert machine_of(kind, {"user-agent": agent}) == machine


def test_apple_fetches_all_pictures_and_follows_no_link() -> None:
    assert machine_of(OPEN, {"user-agent": "Mozilla/5.0"}) == "privacy"
    assert machine_of(CLICK, {"user-agent": "Mozilla/5.0"}) == "program"


@pytest.mark.parametrize(
    "agent",
    [
        "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
        "Mozilla/4.0 (compatible; ms-office; MSOffice 16)",
    ],
)
def test_outlook_shows_pictures_and_only_tries_links(agent: str) -> None:
    assert machine_of(OPEN, {"user-agent": agent}) is None
    assert machine_of(CLICK, {"user-agent": agent}) == "program"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("x-purpose", "preview"),
        ("x-moz", "Prefetch"),
    ],
)
def test_a_look_ahead_says_so(name: str, value: str) -> None:
    assert machine_of(CLICK, {"user-agent": CHROME, name: value}) == "announced"
    assert machine_of(CLICK, {"user-agent": CHROME, name: "x"}) is None
