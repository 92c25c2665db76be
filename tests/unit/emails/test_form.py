"""How a mail names a stored template, and what it must then not bring itself."""

from typing import Any

import pytest

from mailrail._core import Codec
from mailrail.emails.form import MailDraft, read_mail
from mailrail.ids import NO_ROW, Ids, Kind
from mailrail.templates.model import Ref
from mailrail.web.fields import Fields, FieldsInvalid

IDS = Ids(Codec(b"k" * 40))


def read(**values: Any) -> MailDraft:
    fields = Fields({"to": "ann@example.com", **values})
    draft = read_mail(fields, IDS)
    fields.finish()
    return draft


def codes(**values: Any) -> set[tuple[str, str]]:
    with pytest.raises(FieldsInvalid) as caught:
        read(**values)
    return {(error.param, error.code) for error in caught.value.errors}


@pytest.mark.parametrize(
    ("given", "ref"),
    [
        ({"template": "Welcome"}, Ref(None, "Welcome", None)),
        ({"template": "Welcome", "templateVersion": 3}, Ref(None, "Welcome", 3)),
        ({"template": IDS.encode(Kind.TEMPLATE, 7)}, Ref(7, None, None)),
        # What looks like an id is one, and names nothing where it is none.
        ({"template": "tpl_welcome", "templateVersion": 1}, Ref(NO_ROW, None, 1)),
        ({"template": IDS.encode(Kind.CONTACT, 7)}, Ref(None, IDS.encode(Kind.CONTACT, 7), None)),
    ],
)
def test_a_template_is_named_by_id_or_name(given: dict[str, Any], ref: Ref) -> None:
    draft = read(**given)
    assert (draft.template, draft.subject, draft.html) == (ref, None, None)


def test_without_one_the_mail_brings_everything() -> None:
    assert read(subject="S", text="T").template is None
    assert codes() == {("subject", "field_missing"), ("html", "field_missing")}
    assert codes(subject=" ", html="H") == {("subject", "field_empty")}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"template": "W", "html": "H", "text": "T"}, {("html", "field_unwanted"), ("text", "field_unwanted")}),
        ({"template": "W", "templateVersion": 0}, {("templateVersion", "number_invalid")}),
        ({"template": "W", "templateVersion": "1"}, {("templateVersion", "type_wrong")}),
        ({"template": 7}, {("template", "type_wrong")}),
        ({"subject": "S", "text": "T", "templateVersion": 1}, {("templateVersion", "field_unwanted")}),
        ({"template": "a\nb"}, {("template", "text_control_character")}),
        ({"template": ""}, {("template", "field_empty")}),
    ],
)
def test_what_does_not_go_together_is_told(given: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert codes(**given) == expected
