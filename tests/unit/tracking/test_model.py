"""Addresses that a click may lead to."""

import pytest

from mailrail.tracking.model import clicked, opened, safe_location


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://example.com/a?b=c&d=%20e#f", "https://example.com/a?b=c&d=%20e#f"),
        (" HTTP://Example.com ", "HTTP://Example.com"),
        ("http://[::1]/x", "http://[::1]/x"),
        ("https://example.com/a b\r\nSet-Cookie: x", "https://example.com/a%20b%0D%0ASet-Cookie:%20x"),
        ("https://example.com/ü\u2028", "https://example.com/%C3%BC"),
        ('https://example.com/"<>\\^`{|}', "https://example.com/%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ],
)
def test_a_stored_address_cannot_break_the_header(url: str, location: str) -> None:
    assert safe_location(url) == location


@pytest.mark.parametrize(
    "url",
    ["", "javascript:alert(1)", "data:text/html,x", "//evil.org", "/x", "http://", "http:x", "https:///x", "http://["],
)
def test_only_web_addresses_are_followed(url: str) -> None:
    assert safe_location(url) is None


def test_acts_differ_by_second_and_link() -> None:
    dedupes = {clicked(1, 1, link, at).dedupe for link in (1, 2, 2**31 - 1) for at in (1_800_000_000, 1_800_000_001)}
    assert len(dedupes) == 6
    assert max(dedupes) < 2**63
    assert opened(1, 1, 5) == opened(1, 1, 5) != opened(1, 1, 6)
