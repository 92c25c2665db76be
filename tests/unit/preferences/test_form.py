"""What a POST to the page says, and how little of an address a page tells."""

import pytest

from mailrail import _core
from mailrail.ids import NO_ROW, Ids, Kind
from mailrail.preferences.form import read_answer
from mailrail.preferences.model import Answer, Wish, masked

IDS = Ids(_core.Codec(b"k" * 40))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"List-Unsubscribe": ["One-Click"]}, Answer(Wish.LEAVE_LIST, is_one_click=True)),
        ({"unsubscribe": ["list"]}, Answer(Wish.LEAVE_LIST)),
        ({"unsubscribe": ["all"]}, Answer(Wish.LEAVE_ALL)),
        ({"subscribe": ["list"]}, Answer(Wish.JOIN_LIST)),
        ({"subscribe": ["all"]}, Answer(Wish.RETURN)),
        ({"choose": ["lists"]}, Answer(Wish.CHOOSE)),
        (
            {"choose": ["lists"], "list": ["x"], "seen": ["x"]},
            Answer(Wish.CHOOSE, False, frozenset({0}), frozenset({0})),
        ),
        ({}, None),
        ({"list": ["x"]}, None),
        ({"List-Unsubscribe": ["one-click"]}, None),
        ({"List-Unsubscribe": []}, None),
        ({"unsubscribe": ["all", "list"]}, None),
        ({"choose": ["x"]}, None),
    ],
)
def test_answers(said: dict[str, list[str]], answer: Answer | None) -> None:
    assert read_answer(said, IDS) == answer


def test_lists_are_read_by_their_public_ids() -> None:
    one, two = (IDS.encode(Kind.LIST, number) for number in (1, 2))
    said = {"choose": ["lists"], "seen": [one, two, IDS.encode(Kind.CONTACT, 3)], "list": [two]}
    assert read_answer(said, IDS) == Answer(Wish.CHOOSE, False, frozenset({1, 2, NO_ROW}), frozenset({2}))


@pytest.mark.parametrize(
    ("email", "shown"),
    [("ann@example.com", "a…@example.com"), ("a@b.co", "a…@b.co"), ('"a@b"@c.de', '"…@c.de'), ("é@x.org", "é…@x.org")],
)
def test_masked(email: str, shown: str) -> None:
    assert masked(email) == shown
