"""What a canary carries: values as hard as they get, and nobody's own."""

import orjson

from mailrail.campaigns.worst_case import HARD, LONG, bare, candidates
from mailrail.contacts.form import NAME_MAX_CHARS

FROZEN = {"subject": "Hi {{ city }}", "variables": ["firstName", "city", "items", "price", "unsubscribeUrl"]}
SAMPLE = {"city": "Secret", "items": [{"name": "Secret", "price": 3}], "price": 4.5, "unused": "Secret"}


def test_a_value_has_what_html_templates_json_and_headers_have_a_meaning_for() -> None:
    for piece in (
        "<",
        ">",
        "&",
        '"',
        "'",
        "`",
        "\\",
        "{{x}}",
        "{{#if",
        "}}",
        "{%",
        "\r\n",
        "\t",
        "😀",
        "漢",
        "ש",
        "م",
        "ï",
    ):
        assert piece in HARD
    assert HARD[0] == "}"
    assert HARD[-1] == "{"
    assert len(LONG) >= NAME_MAX_CHARS
    assert orjson.loads(orjson.dumps(LONG)) == LONG
    assert "\0" not in LONG


def test_the_hardest_contact_has_text_in_every_field_that_the_template_knows() -> None:
    hardest, _ = candidates(FROZEN, SAMPLE)
    assert hardest["custom_fields"] == {"city": LONG, "items": LONG, "price": LONG}
    assert hardest["name"] == hardest["first_name"] == hardest["last_name"] == LONG


def test_the_second_has_a_recipients_fields_in_their_shape_and_none_of_their_words() -> None:
    _, shaped = candidates(FROZEN, SAMPLE)
    assert shaped["custom_fields"] == {"city": LONG, "items": [{"name": LONG, "price": 3}], "price": 4.5}
    assert "Secret" not in orjson.dumps([*candidates(FROZEN, SAMPLE), bare()]).decode()


def test_a_template_without_fields_needs_none() -> None:
    hardest, shaped = candidates({"subject": "Hi", "variables": ["email"]}, {})
    assert hardest == shaped
    assert hardest["custom_fields"] == {}
