"""Which addresses a webhook may reach, as the guard sees them: just before a connection is made."""

import ipaddress

import pytest

from mailrail.webhooks.destinations import Destinations, destinations
from tests.support.postgres import SECRET, Database

ALLOWED = ["93.184.216.34", "1.1.1.1", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450:4001:81b::200e"]
FORBIDDEN = [
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::169.254.169.254",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:93.184.216.34",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::5db8:d822",
    "64:ff9b:1::1",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:5db8:d822::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fd12:3456:789a::1",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::a9fe:a9fe%1",
    "fec0::1",
    "ff02::1",
    "ff05::2",
    "ff0e::1",
    "2606:2800:21f:cb07:6820:80da:af6b:8b2c%1",
    "0",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "localhost",
    "127.0.0.1/8",
    "[::1]",
]


@pytest.mark.parametrize("address", ALLOWED)
def test_the_public_internet_is_allowed(address: str) -> None:
    assert Destinations().is_allowed(address)


@pytest.mark.parametrize("address", [*FORBIDDEN, "", " 1.1.1.1", "1.1.1.1 ", "1.1.1.1\n"])
def test_everything_else_is_not(address: str) -> None:
    assert not Destinations().is_allowed(address)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_development_allows_this_machine_and_nothing_more(address: str) -> None:
    is_this_machine = address.startswith("127.") and address.count(".") == 3 and address.replace(".", "").isdigit()
    assert Destinations(is_development=True).is_allowed(address) == (is_this_machine or address == "::1")


def test_an_operator_lists_networks() -> None:
    mine = Destinations(networks=(ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00:1::/64")))
    for address, is_allowed in {
        "10.20.255.1": True,
        "10.21.0.1": False,
        "::ffff:10.20.0.1": False,
        "fd00:1::7": True,
        "fd00:1:0:1::7": False,
        "127.0.0.1": False,
        "1.1.1.1": True,
    }.items():
        assert mine.is_allowed(address) is is_allowed, address
    assert mine.checked_url("http://10.20.0.7:80/hook") == "http://10.20.0.7:80/hook"
    assert mine.checked_url("http://hooks.internal/hook") == "http://hooks.internal/hook"


def test_the_settings_say_what_is_allowed() -> None:
    database = Database("", "", "", SECRET)
    here = destinations(database.settings(webhook_networks=("10.0.0.0/8",)))
    assert here.is_development
    assert here.is_allowed("10.1.2.3")
    abroad = destinations(database.settings(public_url="https://mail.example.com"))
    assert not abroad.is_development
    assert not abroad.is_allowed("127.0.0.1")
