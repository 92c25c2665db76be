"""Addresses and domains as SES takes them."""

import pytest

from mailrail.addresses import AddressInvalid, DomainInvalid, domain_of, parse_address, parse_domain


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("new@example.com", "new@example.com"),
        ("New.User+tag@EXAMPLE.com", "New.User+tag@example.com"),
        ("x@bücher.example", "x@xn--bcher-kva.example"),
        ("x@xn--bcher-kva.example", "x@xn--bcher-kva.example"),
        ("x@Bu\u0308cher.example", "x@xn--bcher-kva.example"),
        ("o'hara@example.co.uk", "o'hara@example.co.uk"),
        ("bounce+demo@simulator.amazonses.com", "bounce+demo@simulator.amazonses.com"),
        ("x@demo.test", "x@demo.test"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_addresses_keep_the_local_part_and_normalise_the_domain(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "x",
        "x@",
        "@example.com",
        "x@localhost",
        "x@test",
        "x@example",
        "x@.com",
        "x@example..com",
        "x@-example.com",
        "x@exa_mple.com",
        "x@[127.0.0.1]",
        "x@127.0.0.1",
        ".x@example.com",
        "x.@example.com",
        "a..b@example.com",
        "a b@example.com",
        '"a b"@example.com',
        "a@b@example.com",
        "jäne@example.com",
        "x@example.com\r\nBcc: y@evil.org",
        "x\x00@example.com",
        " x@example.com",
        "x@example.com ",
        "Jane <x@example.com>",
        "x@example.com,y@example.com",
        "a" * 65 + "@example.com",
        "x@" + "a" * 64 + ".com",
        "x@" + ".".join(["a" * 60] * 5) + ".com",
        "x" * 100_000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressInvalid):
        parse_address(text)


def test_domains_are_normalised_or_refused() -> None:
    assert parse_domain("YourDomain.COM.") == "yourdomain.com"
    assert parse_domain("bücher.example") == "xn--bcher-kva.example"
    for text in ("", "com", "a@b.com", "a b.com", "http://a.com", "a.com/x", "*.a.com", "a.com:25"):
        with pytest.raises(DomainInvalid):
            parse_domain(text)


def test_the_domain_of_an_address() -> None:
    assert domain_of("a@B.com") == "b.com"
