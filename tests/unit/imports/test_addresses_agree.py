"""The core judges addresses exactly as `mailrail.addresses` does, and leaves to it what takes Unicode's tables."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrail._core import check_address
from mailrail.addresses import AddressInvalid, parse_address

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "addresses.json").read_text())

PLAIN = st.text(alphabet="abzAZ019.-_+'\"<>@ ,[]()\\/%\t", max_size=12)
LABEL = st.text(alphabet="abXN019-", max_size=8)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ROLE = st.sampled_from(["info", "Sales", "POSTMASTER", "infos"])
TOP = st.sampled_from([".com", ".test", ".local", ".ARPA", ".onion", ".invalid", ".localhost", ".c0", ".x--y", ""])


def stored(text: str) -> str | None:
    try:
        return parse_address(text)
    except AddressInvalid:
        return None


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: ascii(vector["text"])[:40])
def test_the_vectors_hold_for_both(vector: dict[str, Any]) -> None:
    assert stored(vector["text"]) == vector["stored"]
    valid, refused = check_address(vector["text"])
    if vector["core_judges"]:
        assert (valid, refused is None) == (vector["stored"], vector["stored"] is not None)
    else:
        assert (valid, refused) == (None, None)


@given(st.one_of(st.builds("{}@{}{}".format, st.one_of(PLAIN, ROLE), DOMAIN, TOP), PLAIN, st.text(max_size=20)))
@example("a" * 64 + "@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 57 + ".de")
@example("a@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 63 + "." + "e" * 57 + ".de")
def test_whatever_the_core_judges_python_judges_alike(text: str) -> None:
    valid, refused = check_address(text)
    if (valid, refused) != (None, None):
        assert stored(text) == valid
    else:
        domain = text.partition("@")[2]
        assert not domain.isascii() or "xn--" in domain.lower()
