"""Which variables leave a gap, and what a misspelt one may mean."""

import pytest

from mailrail.rehearsals.variables import nearest, printed_bare

NAMES = ["firstName", "lastName", "city", "company", "plan"]


@pytest.mark.parametrize(
    ("part", "bare"),
    [
        ("Hi {{ firstName }} of {{- city|upper -}}", ["city", "firstName"]),
        ("{{ firstName or 'you' }} {{ city|default('town') }} {{ city | d('x') }}", []),
        ("{{ firstName if firstName else 'you' }}", []),
        ("{% if city %}in {{ city }}{% endif %}{%- elif plan %}", []),
        ("{% if city %}{{ firstName }}{% endif %}", ["firstName"]),
        ("{{ 'firstName' }} {{ \"city or\" ~ plan }} {{ x.city }}", ["plan"]),
        ("{{ company.name }} {{ upper(lastName) }}", ["company", "lastName"]),
        ("{% for one in city %}{{ one }}{% endfor %}{% set x = plan %}", []),
        ("{{ firstName", []),
    ],
)
def test_a_bare_variable_leaves_a_gap(part: str, bare: list[str]) -> None:
    assert printed_bare([part], NAMES) == bare


def test_a_condition_counts_in_its_own_part() -> None:
    assert printed_bare(["{{ city }}", "{% if city %}{{ city }}{% endif %}"], NAMES) == ["city"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fristName", "firstName"),
        ("first_name", "firstName"),
        ("FIRSTNAME", "firstName"),
        ("compnay", "company"),
        ("weather", None),
    ],
)
def test_a_misspelt_name_is_recognized(name: str, meant: str | None) -> None:
    assert nearest(name, NAMES) == meant
