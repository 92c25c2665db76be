"""The options of an import, which come as query, as fields of a form or beside the contacts in JSON: one form for all."""

from collections.abc import Mapping, Sequence
from typing import Any

from mailrail.contacts.form import NAME_MAX_CHARS, TAG_MAX_CHARS, TAGS_MAX, read_list_id
from mailrail.contacts.model import CONSENT, ContactStatus
from mailrail.ids import Ids
from mailrail.imports.model import COLUMNS_MAX, ImportOptions, is_target
from mailrail.web.body import BodyUnreadable, decode
from mailrail.web.fields import Fields

WORDING_MAX_CHARS = 2000
WORDS = {"true": True, "1": True, "false": False, "0": False}
# What a query or a form may say; all of it text.
TEXTS = ("listId", "tags", "mapping", "upsert", "status", "consent.source", "consent.wording")


def read_options(fields: Fields, ids: Ids) -> ImportOptions:
    """The options. The caller finishes the fields."""
    consent = fields.nested("consent")
    status = fields.word("status", [str(word) for word in CONSENT])
    upsert = fields.boolean("upsert")
    return ImportOptions(
        list_id=read_list_id(fields, ids),
        tags=fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS) or [],
        contact_status=ContactStatus(status) if status in CONSENT else None,
        upsert=upsert is not False,
        consent_source=consent.text("source", NAME_MAX_CHARS),
        consent_wording=consent.text("wording", WORDING_MAX_CHARS, lines=True),
        mapping=read_mapping(fields),
    )


def read_body(fields: Fields, ids: Ids) -> ImportOptions:
    """The JSON object around `contacts`, for the documentation: its contacts are read elsewhere, as they come."""
    fields.objects("contacts", None)
    return read_options(fields, ids)


def read_mapping(fields: Fields) -> dict[str, str | None]:
    """`mapping`: column or key → field of a contact, null to leave it out."""
    mapping = fields.mapping("mapping") or {}
    if len(mapping) > COLUMNS_MAX:
        fields.error("mapping", "list_too_long", f"mapping has at most {COLUMNS_MAX} items.")
        return {}
    for name, target in mapping.items():
        if target is not None and not (isinstance(target, str) and is_target(target)):
            fields.error(
                f"mapping.{name[:80]}",
                "value_unknown",
                "A column is mapped to email, name, firstName, lastName, status, tags, tracking, customFields, customFields.x "
                "or null.",
            )
    return mapping


def values_of_texts(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A query or a form as the JSON object that `read_options` reads. `tags` may come several times or with commas.

    Of what cannot be read, the text itself stays, for the form to tell. Names that are no option stay too.
    """
    values: dict[str, Any] = {name: found[-1] for name, found in texts.items() if found and name not in TEXTS}
    given = {name: found for name in TEXTS if (found := [text for text in texts.get(name, ()) if text])}
    for name, found in given.items():
        if name == "tags":
            values[name] = [tag for text in found for part in text.split(",") if (tag := part.strip())]
        elif name == "upsert":
            values[name] = WORDS.get(found[-1].lower(), found[-1])
        elif name == "mapping":
            values[name] = _mapping(found[-1])
        elif name.startswith("consent."):
            values.setdefault("consent", {})[name.removeprefix("consent.")] = found[-1]
        else:
            values[name] = found[-1]
    return values


def _mapping(text: str) -> Any:
    try:
        return decode(text.encode())
    except (BodyUnreadable, UnicodeEncodeError):
        return text
