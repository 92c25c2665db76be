"""Custom fields: names that a template can say, values that PostgreSQL can hold, a size that stays small."""

from typing import Any

import pytest

from mailrail.contacts.form import FIELDS_MAX, FIELDS_MAX_BYTES, read_custom_fields
from mailrail.web.fields import Fields, FieldsInvalid


def read(values: Any) -> dict[str, Any] | None:
    """As a request would be read."""
    fields = Fields({"customFields": values})
    found = read_custom_fields(fields)
    fields.finish()
    return found


@pytest.mark.parametrize(
    "values", [{}, {"_a1": 1, "B": None, "c": [1, {"d": "é"}]}, {"a" * 64: 1}, {"firstName": "wins nothing"}]
)
def test_good_fields_pass_as_they_are(values: dict[str, Any]) -> None:
    assert read(values) == values


@pytest.mark.parametrize(
    "values",
    [
        [],
        "text",
        {"": 1},
        {"1a": 1},
        {"a-b": 1},
        {"a b": 1},
        {"é": 1},
        {"a" * 65: 1},
        {"a\n": 1},
        {"mailrail": 1},
        {"a": "\x00"},
        {"a": [{"b": "\x00"}]},
        {"a": {"\x00": 1}},
        {"a": "x" * FIELDS_MAX_BYTES},
        {f"a{n}": 1 for n in range(FIELDS_MAX + 1)},
    ],
)
def test_bad_fields_are_refused(values: Any) -> None:
    with pytest.raises(FieldsInvalid):
        read(values)
