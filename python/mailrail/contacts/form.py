"""A contact as both dialects write it: their fields are the same, only what they print differs."""

from typing import Any

import orjson

from mailrail.contacts.model import CONSENT, FIELD_NAME, RESERVED_FIELDS, ContactDraft, ContactStatus, Names
from mailrail.ids import Ids, Kind
from mailrail.web.fields import Fields

NAME_MAX_CHARS = 200
TAGS_MAX = 100
TAG_MAX_CHARS = 100
FIELDS_MAX = 100
FIELDS_MAX_BYTES = 16 * 1024


def read_contact(fields: Fields, ids: Ids) -> tuple[ContactDraft, int | None]:
    """The contact and the list to put it on, if one is named. The caller finishes the fields."""
    email = fields.required_address("email")
    names = Names(*(fields.text(name, NAME_MAX_CHARS) for name in ("name", "firstName", "lastName")))
    status = fields.word("status", [str(word) for word in CONSENT])
    tags = fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS)
    draft = ContactDraft(email, names, _status(status), tags, read_custom_fields(fields))
    return draft, read_list_id(fields, ids)


def read_list(fields: Fields) -> str:
    """The `name` of a list."""
    return fields.required_text("name", NAME_MAX_CHARS)


def read_list_id(fields: Fields, ids: Ids) -> int | None:
    """The list named by `listId`; a malformed id ends where an unknown one does."""
    text = fields.text("listId", NAME_MAX_CHARS)
    return None if text is None else ids.find(Kind.LIST, text)


def read_custom_fields(fields: Fields) -> dict[str, Any] | None:
    """`customFields`: any JSON under names that a template can say, of limited size."""
    values = fields.mapping("customFields")
    if values is None:
        return None
    if len(values) > FIELDS_MAX or len(orjson.dumps(values)) > FIELDS_MAX_BYTES:
        fields.error(
            "customFields",
            "custom_fields_too_large",
            f"customFields has at most {FIELDS_MAX} fields and {FIELDS_MAX_BYTES} bytes of JSON.",
        )
        return {}
    for name, value in values.items():
        if not FIELD_NAME.fullmatch(name) or name in RESERVED_FIELDS:
            fields.error(
                f"customFields.{name[:80]}",
                "custom_field_name_invalid",
                "The name of a custom field has up to 64 letters, digits and underscores, does not begin with a digit, "
                "and is not `mailrail`.",
            )
        elif _has_nul(value):
            fields.error(
                f"customFields.{name}", "text_control_character", f"customFields.{name} must not have NUL characters."
            )
    return values


def _has_nul(value: Any) -> bool:
    """PostgreSQL's jsonb holds every character but this one."""
    match value:
        case str():
            return "\x00" in value
        case dict():
            return any("\x00" in key or _has_nul(item) for key, item in value.items())
        case list():
            return any(map(_has_nul, value))
        case _:
            return False


def _status(word: str | None) -> ContactStatus | None:
    return ContactStatus(word) if word in CONSENT else None
