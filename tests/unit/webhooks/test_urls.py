"""Which URLs a webhook may have, by their text alone."""

import base64

import pytest

from mailrail.webhooks.destinations import Destinations, WebhookUrlInvalid
from mailrail.webhooks.model import EventType, chosen_events, new_secret

GOOD = [
    ("https://your-app.com/webhook", None),
    ("https://your-app.com", None),
    ("https://EXAMPLE.com/Path?q=1&r=%20", "https://example.com/Path?q=1&r=%20"),
    ("https://example.com:443/", None),
    ("https://example.com:8443/", None),
    ("https://münchen.de/x", "https://xn--mnchen-3ya.de/x"),
    ("https://example。com/x", "https://example.com/x"),
    ("https://example.com./x", "https://example.com/x"),
    ("https://93.184.216.34/x", None),
    ("https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/x", None),
]
BAD = [
    "http://example.com/",
    "ftp://example.com/",
    "//example.com/",
    "example.com/hook",
    "https://",
    "https:///x",
    "https://?x",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "gopher://example.com/",
    # This machine and private networks, in all spellings.
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://a.localhost/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://0/",
    "https://0.0.0.0/",
    "https://１２７.０.０.１/",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::]/",
    "https://[::1]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[2001:db8::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://[fec0::1]/",
    "https://intranet/",
    "https://printer.local/",
    "https://metadata.google.internal/",
    "https://db.corp/",
    "https://router.lan/",
    "https://x.home.arpa/",
    "https://a..b.com/",
    "https://foo_bar.com/",
    # Two readers, two hosts.
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://@example.com/",
    "https://example.com\\@evil.com/",
    "https://example.com\\.evil.com/",
    "https://evil.com#@example.com/",
    "https://example.com/#part",
    "https://example.com /x",
    "https://exa mple.com/",
    "https://example.com/a b",
    "https://example.com/ä",
    "https://example.com/\x7f",
    "https://example.com/\u2028",
    'https://example.com/"',
    "https://example.com/<x>",
    "https://example.com%2f@evil.com/",
    "https://example%2ecom/",
    "https://[::1/",
    "https://::1/",
    # Ports.
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:-1/",
    "https://example.com:x/",
    f"https://example.com/{'a' * 2048}",
]


@pytest.mark.parametrize(("text", "stored"), GOOD)
@pytest.mark.parametrize("is_development", [True, False])
def test_urls_that_may_be_called(text: str, stored: str | None, is_development: bool) -> None:
    assert Destinations(is_development=is_development).checked_url(text) == (stored or text)


@pytest.mark.parametrize("text", BAD)
def test_urls_that_may_not(text: str) -> None:
    with pytest.raises(WebhookUrlInvalid):
        Destinations().checked_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9000/x",
        "http://localhost:9000/x",
        "https://[::1]:9000/x",
        "http://127.0.0.1/x",
        "http://127.1.2.3/",
    ],
)
def test_this_machine_is_fine_in_development(text: str) -> None:
    assert Destinations(is_development=True).checked_url(text) == text


@pytest.mark.parametrize("text", ["http://10.0.0.1/", "https://10.0.0.1/", "http://example.com/", "http://0.0.0.0/"])
def test_but_nothing_else_is(text: str) -> None:
    with pytest.raises(WebhookUrlInvalid):
        Destinations(is_development=True).checked_url(text)


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) >= 24 for secret in made)


def test_everything_is_everything() -> None:
    assert chosen_events(["email.sent", "*"]) == ["*"]
    assert chosen_events(["email.sent", "email.opened"]) == ["email.sent", "email.opened"]


def test_the_events_of_both_dialects_are_there() -> None:
    seeds = """email.sent email.opened email.clicked email.bounced campaign.sent campaign.completed email.delivered
    email.complained contact.unsubscribed"""
    assert set(seeds.split()) <= set(map(str, EventType))
