"""Contacts, lists and consent as both dialects write them: their fields are the same, only what they print differs."""

import ipaddress
from datetime import UTC, datetime
from typing import Any

import orjson

from mailrail.contacts.consent import AHEAD_MAX, Consent
from mailrail.contacts.model import (
    CONSENT,
    FIELD_NAME,
    RESERVED_FIELDS,
    Confirmation,
    ContactChanges,
    ContactDraft,
    ContactStatus,
    ListDraft,
    Members,
    Names,
)
from mailrail.ids import Ids, Kind
from mailrail.web.fields import Fields

NAME_MAX_CHARS = 200
TAGS_MAX = 100
TAG_MAX_CHARS = 100
FIELDS_MAX = 100
FIELDS_MAX_BYTES = 16 * 1024
WORDING_MAX_CHARS = 2000
SUBJECT_MAX_CHARS = 200
IP_MAX_CHARS = 64
ID_MAX_CHARS = 64
MEMBERS_MAX = 1000


def read_contact(fields: Fields, ids: Ids) -> tuple[ContactDraft, int | None]:
    """The contact and the list to put it on, if one is named. The caller finishes the fields."""
    draft = ContactDraft(
        fields.required_address("email"),
        _read_names(fields),
        _read_status(fields),
        fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS),
        read_custom_fields(fields),
        read_consent(fields),
        fields.boolean("tracking"),
    )
    return draft, read_list_id(fields, ids)


def read_changes(fields: Fields) -> ContactChanges:
    """What of a contact is to change; null clears a part of the name. The caller finishes the fields."""
    parts = {"name": "name", "firstName": "first_name", "lastName": "last_name"}
    cleared = frozenset(part for name, part in parts.items() if fields.is_null(name))
    return ContactChanges(
        fields.address("email"),
        _read_names(fields),
        cleared,
        _read_status(fields),
        fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS),
        read_custom_fields(fields),
        read_consent(fields),
        fields.boolean("tracking"),
    )


def read_consent(fields: Fields) -> Consent:
    """`consent`: where, when and to which words a person agreed, or said that he does not want mail any more."""
    given = fields.nested("consent")
    source = given.text("source", NAME_MAX_CHARS)
    if source is not None and not source.strip():
        given.error("source", "field_empty", "consent.source must not be empty.")
    ip = given.text("ip", IP_MAX_CHARS)
    try:
        ip = None if ip is None else str(ipaddress.ip_address(ip))
    except ValueError:
        given.error("ip", "ip_invalid", "consent.ip must be an IPv4 or IPv6 address.")
    at = given.moment("at")
    if at is not None and at > datetime.now(UTC) + AHEAD_MAX:
        given.error("at", "time_in_future", "consent.at must not be in the future: it is when the person agreed.")
    return Consent(source, ip, given.text("wording", WORDING_MAX_CHARS, lines=True), at)


# —— lists ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


def read_list(fields: Fields) -> ListDraft:
    """`name`, `public`, and `doubleOptIn` with its `confirmation` of `subject`, `wording` and `from`. The caller finishes the
    fields.
    """
    return ListDraft(
        fields.required_text("name", NAME_MAX_CHARS),
        fields.boolean("doubleOptIn") is True,
        Confirmation(**_confirmation_of(fields.nested("confirmation"))),
        fields.boolean("public") is True,
    )


def read_list_changes(fields: Fields) -> dict[str, Any]:
    """What of a list is to change, by the names of its columns; null clears a part of `confirmation`, or all of it."""
    changes: dict[str, Any] = {}
    if fields.has("name"):
        changes["name"] = fields.required_text("name", NAME_MAX_CHARS)
    else:
        fields.text("name", NAME_MAX_CHARS)
    if (double_opt_in := fields.boolean("doubleOptIn")) is not None:
        changes["double_opt_in"] = double_opt_in
    if (is_public := fields.boolean("public")) is not None:
        changes["is_public"] = is_public
    columns = {"subject": "confirmation_subject", "wording": "confirmation_wording"}
    columns |= {"sender_name": "confirmation_name", "sender_email": "confirmation_email"}
    if fields.is_null("confirmation"):
        return changes | dict.fromkeys(columns.values())
    given = fields.nested("confirmation")
    said = _confirmation_of(given)
    cleared = {name for name in ("subject", "wording") if given.is_null(name)}
    if given.is_null("from") or given.has("from"):
        cleared |= {"sender_name", "sender_email"}
    return changes | {
        column: said[name] for name, column in columns.items() if said[name] is not None or name in cleared
    }


def read_members(fields: Fields, ids: Ids) -> Members:
    """`contacts` (ids) and `emails`, and the `consent` that they gave together. The caller finishes the fields."""
    texts = fields.texts("contacts", MEMBERS_MAX, ID_MAX_CHARS) or []
    emails = fields.addresses("emails", MEMBERS_MAX)
    if not texts and not fields.has("emails"):
        fields.error(
            "contacts", "field_missing", "contacts is required: a list of ids; or emails, a list of addresses."
        )
    if len(texts) + len(emails) > MEMBERS_MAX:
        fields.error("contacts", "list_too_long", f"contacts and emails have at most {MEMBERS_MAX} items together.")
    return Members([ids.find(Kind.CONTACT, text) for text in texts], emails, read_consent(fields))


def _confirmation_of(given: Fields) -> dict[str, str | None]:
    name, email = given.mailbox("from")
    return {
        "subject": given.text("subject", SUBJECT_MAX_CHARS),
        "wording": given.text("wording", WORDING_MAX_CHARS, lines=True),
        "sender_name": name,
        "sender_email": email,
    }


# —— parts of a contact ——————————————————————————————————————————————————————————————————————————————————————————————————


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


def _read_names(fields: Fields) -> Names:
    return Names(*(fields.text(name, NAME_MAX_CHARS) for name in ("name", "firstName", "lastName")))


def _read_status(fields: Fields) -> ContactStatus | None:
    word = fields.word("status", [str(word) for word in CONSENT])
    return ContactStatus(word) if word in CONSENT else None
