"""The demo's readers: distinct, awkward, and the right number of them bouncing."""

import itertools

from mailrail.up.demo_contacts import BOUNCE_HOST, READER_HOST, Stock, contact, custom_fields, mixed, names, roman


def test_names_and_companies_are_distinct() -> None:
    assert len({names(n) for n in range(20_000)}) == 20_000
    assert len({custom_fields(n)["company"] for n in range(20_000)}) == 20_000


def test_names_have_what_breaks_templates() -> None:
    everything = "".join(" ".join(names(n)) + custom_fields(n)["company"] for n in range(1600))
    for awkward in ('"', "'", "<", "&", "{{", "\\", "🌱", "ש", "%", "株"):
        assert awkward in everything


def test_two_in_a_hundred_bounce_and_are_spread() -> None:
    none = {BOUNCE_HOST: Stock(0, 0), READER_HOST: Stock(0, 0)}
    people = list(mixed(none, {BOUNCE_HOST: 20, READER_HOST: 980}))
    assert len(set(people)) == 1000
    places = [place for place, (host, _) in enumerate(people) if host == BOUNCE_HOST]
    assert len(places) == 20
    assert max(after - before for before, after in itertools.pairwise(places)) <= 51


def test_numbers_go_on_where_they_stopped() -> None:
    stocks = {BOUNCE_HOST: Stock(400, 0), READER_HOST: Stock(19_600, 19_600)}
    people = list(mixed(stocks, {BOUNCE_HOST: 3, READER_HOST: 0}))
    assert people == [(BOUNCE_HOST, 400), (BOUNCE_HOST, 401), (BOUNCE_HOST, 402)]
    assert contact(1, BOUNCE_HOST, 400)[1] == "bounce+400@simulator.amazonses.com"


def test_roman_numerals() -> None:
    assert [roman(n) for n in (1, 4, 9, 14, 40, 90, 1990)] == ["I", "IV", "IX", "XIV", "XL", "XC", "MCMXC"]
