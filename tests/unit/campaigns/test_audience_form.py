"""Audiences as they are read: what is refused, and with which words."""

from typing import Any

import pytest

from mailrail.campaigns.form import read_any_audience, read_audience
from mailrail.campaigns.model import Audience, Condition, Op
from mailrail.ids import Ids, Kind
from mailrail.web.fields import Fields, FieldsInvalid


class PlainIds(Ids):
    """Numbers as text, for tests without a secret."""

    def __init__(self) -> None: ...

    def find(self, kind: Kind, text: str) -> int:
        """The number that the text is."""
        return int(text)


IDS = PlainIds()


def errors(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(param, code, message) of all that is wrong."""
    fields = Fields(values)
    read_audience(fields, IDS)
    with pytest.raises(FieldsInvalid) as refused:
        fields.finish()
    return [(item.param, item.code, item.message) for item in refused.value.errors]


def test_every_part_is_read() -> None:
    fields = Fields(
        {
            "tags": ["a", "a", "b"],
            "lists": ["1", "2"],
            "where": [
                ["email", "contains", "@x"],
                ["customFields.age", ">=", 18],
                ["createdAt", "after", "2026-01-01"],
            ],
            "exclude": {"listId": "3", "where": [["customFields.vip", "=", True]]},
        }
    )
    read = read_audience(fields, IDS)
    fields.finish()
    assert read == Audience(
        ["a", "b"],
        [1, 2],
        [
            Condition("email", Op.CONTAINS, "@x"),
            Condition("customFields.age", Op.GREATER_OR_EQUAL, 18),
            Condition("createdAt", Op.AFTER, "2026-01-01"),
        ],
        Audience([], [3], [Condition("customFields.vip", Op.EQUAL, True)]),
    )


def test_the_seeds_words_are_the_same_audience() -> None:
    for values in ({"listId": "1", "tags": ["a"]}, {"audience": {"listId": "1", "tags": ["a"]}}, {}):
        fields = Fields(values)
        read = read_any_audience(fields, IDS)
        fields.finish()
        assert read == (Audience(["a"], [1]) if values else Audience())


@pytest.mark.parametrize(
    ("where", "code", "words"),
    [
        ("email", "condition_invalid", "[field, operator, value]"),
        (["email", "="], "condition_invalid", "[field, operator, value]"),
        (["email", "=", "a", "b"], "condition_invalid", "[field, operator, value]"),
        ([1, "=", "a"], "condition_invalid", "[field, operator, value]"),
        (["status", "=", "subscribed"], "condition_field_unknown", "only subscribed contacts"),
        (["firstname", "=", "x"], "condition_field_unknown", "Did you mean firstName?"),
        (["customFields.a b", "=", "x"], "condition_field_unknown", "customFields.<name>"),
        (["customFields.", "=", "x"], "condition_field_unknown", "customFields.<name>"),
        (["customFields.a\n", "=", "x"], "condition_field_unknown", "customFields.<name>"),
        (["email", "like", "x"], "condition_operator_unknown", "contains, startsWith"),
        (["email", "=", 1], "condition_value_invalid", "email is text"),
        (["name", ">", True], "condition_value_invalid", "name is text"),
        (["email", "before", "2026-01-01"], "condition_value_invalid", "compares times"),
        (["createdAt", "=", "2026-01-01"], "condition_value_invalid", "before, after"),
        (["createdAt", "<", 5], "condition_value_invalid", "2027-04-08"),
        (["createdAt", "after", "last week"], "condition_value_invalid", "2027-04-08"),
        (["createdAt", "after", "2026-02-30"], "condition_value_invalid", "2027-04-08"),
        (["createdAt", "before", "0001-01-01T00:00:00+14:00"], "condition_value_invalid", "2027-04-08"),
        (["customFields.a", "contains", 1], "condition_value_invalid", "wants a string"),
        (["customFields.a", "<", False], "condition_value_invalid", "= and != only"),
        (["customFields.a", "=", None], "condition_value_invalid", "a string, a number"),
        (["customFields.a", "=", {"x": 1}], "condition_value_invalid", "a string, a number"),
        (["customFields.a", "=", ""], "condition_value_invalid", "exists asks for none"),
        (["customFields.a", "=", "a\x00b"], "condition_value_invalid", "without NUL"),
        (["customFields.a", "=", "x" * 501], "condition_value_invalid", "500"),
        (["customFields.a", "in", "x"], "condition_value_invalid", "a list of 1 to 100"),
        (["customFields.a", "in", []], "condition_value_invalid", "a list of 1 to 100"),
        (["customFields.a", "in", ["x"] * 101], "condition_value_invalid", "a list of 1 to 100"),
        (["customFields.a", "in", [True]], "condition_value_invalid", "strings and numbers"),
        (["email", "in", ["a", 1]], "condition_value_invalid", "email is text"),
        (["email", "exists", "yes"], "condition_value_invalid", "true or false"),
    ],
)
def test_a_wrong_condition_is_told_with_its_place_and_the_remedy(where: Any, code: str, words: str) -> None:
    [(param, found, message)] = errors({"exclude": {"where": [["email", "=", "a@b.c"], where]}})
    assert (param, found) == ("exclude.where[1]", code)
    assert words in message


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({"lists": []}, "lists", "field_empty"),
        ({"lists": ["1"], "listId": "2"}, "lists", "audience_ambiguous"),
        ({"lists": [str(n) for n in range(1, 22)]}, "lists", "list_too_long"),
        ({"where": "email"}, "where", "type_wrong"),
        ({"where": [["email", "exists", True]] * 21}, "where", "list_too_long"),
        ({"exclude": {}}, "exclude", "field_empty"),
        ({"exclude": {"tags": []}}, "exclude", "field_empty"),
        ({"exclude": {"tags": ["a"], "exclude": {"tags": ["b"]}}}, "exclude.exclude", "field_unknown"),
        ({"tag": ["a"]}, "tag", "field_unknown"),
    ],
)
def test_what_could_mean_everybody_by_mistake_is_refused(values: dict[str, Any], param: str, code: str) -> None:
    assert [(item[0], item[1]) for item in errors(values)][:1] == [(param, code)]
