"""Amounts and prices: exact, in and out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail.wallet.model import AmountInvalid, dollars, parse_usd
from mailrail.wallet.pricing import Priced, price_list
from mailrail.web.values import shown_price


@given(st.integers(0, 10**15 - 1))
def test_an_amount_that_is_printed_is_read_back_exactly(micros: int) -> None:
    assert parse_usd(dollars(micros).removeprefix("$")) == micros


@pytest.mark.parametrize(
    ("text", "micros"), [("12.34", 12_340_000), ("0.000001", 1), ("7", 7_000_000), ("007.5", 7_500_000)]
)
def test_dollars_are_read(text: str, micros: int) -> None:
    assert parse_usd(text) == micros


@pytest.mark.parametrize(
    "text", ["", ".5", "5.", "1,000", "1_000", "$1", "+1", "-1", "1e2", "0x1", "1.0000001", "１", " 1", "1\n"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(AmountInvalid):
        parse_usd(text)


@pytest.mark.parametrize(("micros", "shown"), [(0, "Free"), (300, "$0.0003"), (1_250_000, "$1.25"), (100_000, "$0.10")])
def test_prices_are_shown(micros: int, shown: str) -> None:
    assert shown_price(micros) == shown


OPERATIONS = [
    ("GET", "v1/mail/contacts", "Free"),
    ("POST", "v1/mail/campaigns/<campaign_id:str>/send", "$0.0003/recipient"),
    ("HEAD", "v1/mail/contacts", "Free"),
    ("DELETE", "v1/mail/lists/<list_id:str>/members/<contact_id:str>", "Free"),
]


def test_paid_operations_come_first_at_the_accounts_own_price() -> None:
    assert price_list(OPERATIONS, 450) == [
        Priced("POST", "/v1/mail/campaigns/:id/send", "$0.00045/recipient", 450, "recipient"),
        Priced("GET", "/v1/mail/contacts", "Free", 0, None),
        Priced("DELETE", "/v1/mail/lists/:list_id/members/:contact_id", "Free", 0, None),
    ]


def test_without_billing_everything_is_free() -> None:
    assert {one.price for one in price_list(OPERATIONS, 0)} == {"Free"}
