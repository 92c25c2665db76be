"""Fields of a JSON object and what can be wrong with them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mailrail.web.fields import Fields, FieldsInvalid


def errors_of(fields: Fields) -> dict[str, str]:
    """param → code."""
    with pytest.raises(FieldsInvalid) as raised:
        fields.finish()
    return {item.param: item.code for item in raised.value.errors}


def test_every_kind_of_field_is_read() -> None:
    values: dict[str, Any] = {
        "text": "one line",
        "lines": "two\r\nlines\t",
        "texts": ["a", "b", "a"],
        "word": "yes",
        "email": "A@Example.com",
        "many": ["a@b.com", "c@d.com"],
        "inner": {"text": "deep"},
        "map": {"any": [1]},
        "nothing": None,
        "unasked": None,
    }
    fields = Fields(values)
    assert fields.text("text", 8) == "one line"
    assert fields.text("lines", 20, lines=True) == "two\r\nlines\t"
    assert fields.texts("texts", 3, 1) == ["a", "b"]
    assert fields.word("word", ["yes"]) == "yes"
    assert fields.required_address("email") == "A@example.com"
    assert fields.addresses("many", 2) == ["a@b.com", "c@d.com"]
    assert fields.nested("inner").required_text("text", 9) == "deep"
    assert fields.mapping("map") == {"any": [1]}
    assert fields.text("nothing", 1) is None
    assert fields.texts("missing", 1, 1) is None
    fields.finish()


def test_everything_wrong_is_told_at_once() -> None:
    fields = Fields(
        {
            "long": "xx",
            "number": 7,
            "blank": " ",
            "word": "maybe",
            "email": "nobody",
            "texts": ["", 1, "a\nb"],
            "inner": {"wrong": 1, "line": "a\nb"},
            "typo": 1,
        }
    )
    fields.text("long", 1)
    fields.text("number", 1)
    fields.required_text("blank", 9)
    fields.required_text("gone", 9)
    fields.word("word", ["yes", "no"])
    fields.required_address("email")
    fields.required_address("sender")
    fields.texts("texts", 9, 9)
    fields.nested("inner").text("line", 9)
    fields.text("type", 9)
    assert errors_of(fields) == {
        "long": "text_too_long",
        "number": "type_wrong",
        "blank": "field_empty",
        "gone": "field_missing",
        "word": "value_unknown",
        "email": "email_invalid",
        "sender": "field_missing",
        "texts[0]": "field_empty",
        "texts[1]": "type_wrong",
        "texts[2]": "text_control_character",
        "inner.line": "text_control_character",
        "inner.wrong": "field_unknown",
        "typo": "field_unknown",
    }


def test_a_misspelt_field_is_met_with_a_suggestion() -> None:
    fields = Fields({"listID": "x"})
    fields.text("listId", 9)
    with pytest.raises(FieldsInvalid, match=r"Did you mean listId\?"):
        fields.finish()


def test_too_many_items_and_control_characters_of_every_kind() -> None:
    fields = Fields({"items": ["a"] * 4} | {f"c{code}": chr(code) for code in (0, 9, 31, 127, 133, 0x2028)})
    fields.texts("items", 3, 1)
    for code in (0, 9, 31, 127, 133, 0x2028):
        fields.text(f"c{code}", 1)
    assert len(errors_of(fields)) == 7
    nul = Fields({"text": "\x00"})
    nul.text("text", 1, lines=True)
    assert errors_of(nul) == {"text": "text_control_character"}


def test_a_wrong_address_in_a_list_is_told_by_its_place() -> None:
    fields = Fields({"list": ["a@example.com", "nobody", "", 7], "alone": "nobody", "many": ["a@example.com"] * 4})
    fields.addresses("list", 9)
    fields.addresses("alone", 9)
    fields.addresses("many", 3)
    assert errors_of(fields) == {
        "list[1]": "email_invalid",
        "list[2]": "field_empty",
        "list[3]": "type_wrong",
        "alone": "email_invalid",
        "many": "list_too_long",
    }


def test_addresses_that_differ_in_spelling_only_are_one() -> None:
    fields = Fields({"list": ["a@example.com", "a@EXAMPLE.com", "b@example.com"], "alone": "a@EXAMPLE.com"})
    assert fields.addresses("list", 9) == ["a@example.com", "b@example.com"]
    assert fields.addresses("alone", 9) == ["a@example.com"]
    assert fields.addresses("gone", 9) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-04-08T10:15:00Z", datetime(2027, 4, 8, 10, 15, tzinfo=UTC)),
        ("2027-04-08t12:15:00.5+02:00", datetime(2027, 4, 8, 10, 15, 0, 500_000, tzinfo=UTC)),
        ("2027-04-08 10:15:00-00:00", datetime(2027, 4, 8, 10, 15, tzinfo=UTC)),
        ("2028-02-29T23:59:59z", datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_moment_has_a_zone(text: str, moment: datetime) -> None:
    fields = Fields({"at": text})
    assert fields.moment("at") == moment
    fields.finish()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2027-04-08",
        "2027-04-08T10:15:00",
        "2027-04-08T10:15Z",
        "2027-02-29T10:15:00Z",
        "2027-04-08T24:00:00Z",
        "2027-04-08T10:15:60Z",
        "20270408T101500Z",
        "2027-04-08T10:15:00+0200",
        "2027-04-08T10:15:00+25:00",
        " 2027-04-08T10:15:00Z",
        "٢٠٢٧-04-08T10:15:00Z",
    ],
)
def test_what_names_no_moment_is_refused(text: str) -> None:
    fields = Fields({"at": text})
    assert fields.moment("at") is None
    assert errors_of(fields) == {"at": "time_invalid"}


def test_null_is_told_from_what_is_not_given() -> None:
    fields = Fields({"a": None, "b": "x"})
    assert (fields.is_null("a"), fields.is_null("b"), fields.is_null("c")) == (True, False, False)
    fields.text("b", 5)
    fields.finish()


def test_words_come_from_a_closed_list() -> None:
    fields = Fields({"a": ["x", "x", "y"], "b": ["x", "", 5, "z"], "c": "x", "d": ["x"] * 9})
    assert fields.choices("a", ("x", "y", "w")) == ["x", "y"]
    assert fields.choices("missing", ("x",)) is None
    for name in "bcd":
        fields.choices(name, ("x", "y", "w", "v"))
    assert set(errors_of(fields)) == {"b[1]", "b[2]", "b[3]", "c", "d"}
