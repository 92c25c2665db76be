"""What the API reads of templates, and how mail and campaigns name one."""

from typing import Any

from mailrail.ids import Ids, Kind
from mailrail.templates.model import ID_PREFIX, Content, Ref
from mailrail.web.fields import Fields

NAME_MAX_CHARS = 200
SUBJECT_MAX_CHARS = 2_000
PREHEADER_MAX_CHARS = 2_000
# The core's limit is in bytes of UTF-8; a text within it never has more characters.
PART_MAX_CHARS = 256 * 1024
VERSION_MAX = 2**31 - 1


def read_template(fields: Fields) -> tuple[str, Content]:
    """`name` and the content."""
    return _checked_name(fields, fields.required_text("name", NAME_MAX_CHARS)), _read_whole(fields)


def read_changes(fields: Fields) -> tuple[str | None, dict[str, Any], int | None]:
    """`name` if it is to change, the parts that are, null for those that go, and `ifVersion`: the version that the change was
    made from.
    """
    name = fields.required_text("name", NAME_MAX_CHARS) if fields.has("name") else fields.text("name", NAME_MAX_CHARS)
    parts = {part: text for part, text in _read_parts(fields).items() if text is not None or fields.is_null(part)}
    expected = fields.integer("ifVersion", 1, VERSION_MAX)
    return None if name is None else _checked_name(fields, name), parts, expected


def read_trial(fields: Fields) -> tuple[Content, dict[str, Any] | None]:
    """A content that is not stored, and the `variables` to try it with."""
    return _read_whole(fields), fields.mapping("variables")


def read_preview(fields: Fields) -> tuple[int | None, dict[str, Any]]:
    """`version`, the newest without it, and `variables`."""
    return fields.integer("version", 1, VERSION_MAX), fields.mapping("variables") or {}


def read_ref(fields: Fields, ids: Ids) -> Ref | None:
    """`template`, an id or a name, and `templateVersion`; None without the former."""
    text, version = fields.text("template", NAME_MAX_CHARS), fields.integer("templateVersion", 1, VERSION_MAX)
    if text is None:
        if version is not None:
            fields.error("templateVersion", "field_unwanted", "templateVersion needs template beside it.")
        return None
    if not text.strip():
        fields.error("template", "field_empty", "template must not be empty: give an id or a name.")
    return Ref(ids.find(Kind.TEMPLATE, text), None, version) if text.startswith(ID_PREFIX) else Ref(None, text, version)


def refuse_beside_template(fields: Fields, names: tuple[str, ...]) -> None:
    """Notes fields that a template brings itself."""
    for name in filter(fields.has, names):
        fields.error(name, "field_unwanted", f"{name} comes from the template: give either the one or the other.")


def version_of(text: str) -> int | None:
    """The number in a path; None for what is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(VERSION_MAX))
    return int(text) if is_number and int(text) <= VERSION_MAX else None


def _read_whole(fields: Fields) -> Content:
    parts = _read_parts(fields)
    fields.require_any("html", "text")
    return Content(**parts)


def _read_parts(fields: Fields) -> dict[str, str | None]:
    parts = {
        "subject": fields.text("subject", SUBJECT_MAX_CHARS),
        "preheader": fields.text("preheader", PREHEADER_MAX_CHARS),
        "html": fields.text("html", PART_MAX_CHARS, lines=True),
        "text": fields.text("text", PART_MAX_CHARS, lines=True),
    }
    for part, text in parts.items():
        if text is not None and not text.strip():
            fields.error(part, "field_empty", f"{part} must not be empty; leave it out, or give null.")
    return parts


def _checked_name(fields: Fields, name: str) -> str:
    if name.startswith(ID_PREFIX):
        fields.error("name", "name_reserved", f"A name must not begin with {ID_PREFIX}: ids do.")
    return name
