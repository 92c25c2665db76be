"""How the parts of a name follow from each other."""

import pytest

from mailrail.contacts.model import Names


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        (Names(), Names()),
        (Names("John Doe"), Names("John Doe", "John", "Doe")),
        (Names("Madonna"), Names("Madonna", "Madonna", None)),
        (Names("  Ana  María  Ruiz "), Names("  Ana  María  Ruiz ", "Ana", "María Ruiz")),
        (Names(None, "Sarah", "Chen"), Names("Sarah Chen", "Sarah", "Chen")),
        (Names(None, "Sarah"), Names("Sarah", "Sarah", None)),
        (Names(None, None, "Chen"), Names("Chen", None, "Chen")),
        (Names("Dr. Sarah Chen", "Sarah", "Chen"), Names("Dr. Sarah Chen", "Sarah", "Chen")),
        (Names("Sarah Chen", "Sally"), Names("Sarah Chen", "Sally", "Chen")),
        (Names("", ""), Names("", "", None)),
    ],
)
def test_missing_parts_are_derived(given: Names, completed: Names) -> None:
    assert given.completed() == completed


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        (Names(), Names("Sarah Chen", "Sarah", "Chen")),
        (Names(None, None, "Lee"), Names("Sarah Lee", "Sarah", "Lee")),
        (Names("Ann Lee"), Names("Ann Lee", "Ann", "Lee")),
        (Names("Ann"), Names("Ann", "Ann", None)),
    ],
)
def test_what_is_given_later_wins_and_the_rest_follows(given: Names, changed: Names) -> None:
    assert Names("Sarah Chen", "Sarah", "Chen").changed(given) == changed
