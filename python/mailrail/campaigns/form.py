"""A campaign as users write it, in parts that both dialects share."""

import difflib
from dataclasses import replace
from datetime import datetime
from typing import Any

from mailrail.accounts.form import read_tracking
from mailrail.campaigns.model import (
    CUSTOM,
    TEXT_FIELDS,
    TIME_FIELDS,
    Audience,
    Campaign,
    CampaignDraft,
    Condition,
    Op,
    moment_of,
)
from mailrail.campaigns.recipients import EVERY_STATE, WORDS
from mailrail.contacts.model import FIELD_NAME, ListNotFound
from mailrail.emails.model import State
from mailrail.ids import Ids, Kind
from mailrail.templates.form import read_ref, refuse_beside_template
from mailrail.templates.model import Content, Ref, TemplateInvalid
from mailrail.web.fields import FieldError, Fields, FieldsInvalid

NAME_MAX_CHARS = 200
SUBJECT_MAX_CHARS = 2_000
PREHEADER_MAX_CHARS = 2_000
# The core's limit is in bytes of UTF-8; a text within it never has more characters.
PART_MAX_CHARS = 256 * 1024
REPLY_TO_MAX = 10
TAGS_MAX = 20
TAG_MAX_CHARS = 100
ID_MAX_CHARS = 200
LISTS_MAX = 20
CONDITIONS_MAX = 20
IN_MAX = 100
VALUE_MAX_CHARS = 500
CONDITION = {
    "type": "array",
    "minItems": 3,
    "maxItems": 3,
    "prefixItems": [{"type": "string"}, {"type": "string", "enum": [str(op) for op in Op]}, {}],
    "description": '`[field, operator, value]`, as `["customFields.plan", "=", "pro"]`.',
}
SHORT_AUDIENCE = ("listId", "tags")
# What a stored template brings.
BY_TEMPLATE = ("subject", "preheader", "content", "text")
TIME_OPS = (Op.LESS, Op.LESS_OR_EQUAL, Op.GREATER, Op.GREATER_OR_EQUAL, Op.BEFORE, Op.AFTER)


def read_draft(fields: Fields, ids: Ids) -> CampaignDraft:
    """The fields of POST /api/v1/campaigns; `content` is the HTML, or `template` brings it. Without `listId`, `tags` and
    `audience` it reaches everybody.
    """
    from_name, from_email = fields.mailbox("from")
    template = read_ref(fields, ids)
    message = read_message(fields, fields, "content", template)
    return CampaignDraft(
        name=fields.required_text("name", NAME_MAX_CHARS),
        subject=message.subject,
        html=message.html,
        preheader=message.preheader,
        text=message.text,
        template=template,
        from_name=from_name,
        from_email=from_email,
        reply_to=fields.addresses("replyTo", REPLY_TO_MAX),
        audience=read_any_audience(fields, ids),
        tracking=read_tracking(fields),
        scheduled_at=fields.moment("scheduledAt"),
    )


def read_audience(fields: Fields, ids: Ids) -> Audience:
    """`tags`, `listId` or `lists`, `where`, and `exclude` with the same. A malformed id ends where an unknown one does."""
    audience, left_out = _read_members(fields, ids), _read_members(fields.nested("exclude"), ids)
    if not fields.has("exclude"):
        return audience
    if left_out.is_everybody:
        fields.error("exclude", "field_empty", "exclude must say who is left out: tags, lists or where.")
    return replace(audience, exclude=left_out)


def read_any_audience(fields: Fields, ids: Ids) -> Audience:
    """`audience`, or `listId` and `tags` in its place."""
    short, full = _read_lists_and_tags(fields, ids), read_audience(fields.nested("audience"), ids)
    if not any(map(fields.has, SHORT_AUDIENCE)):
        return full
    if fields.has("audience"):
        fields.error("audience", "audience_ambiguous", "Say whom once: in audience, or in listId and tags.")
    return short


def _read_members(fields: Fields, ids: Ids) -> Audience:
    found = _read_lists_and_tags(fields, ids)
    lists = fields.texts("lists", LISTS_MAX, ID_MAX_CHARS)
    if lists is not None and found.lists:
        fields.error("lists", "audience_ambiguous", "Give listId or lists, not both.")
    elif lists == []:
        fields.error("lists", "field_empty", "lists must not be empty; leave it out to ask for no list.")
    where = fields.array("where", CONDITIONS_MAX, CONDITION)
    read = [_read_condition(fields, f"where[{n}]", item) for n, item in enumerate(where)]
    return Audience(
        found.tags,
        found.lists or [ids.find(Kind.LIST, text) for text in lists or []],
        [one for one in read if one is not None],
    )


def _read_lists_and_tags(fields: Fields, ids: Ids) -> Audience:
    list_id = fields.text("listId", ID_MAX_CHARS)
    tags = fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS) or []
    return Audience(tags, [] if list_id is None else [ids.find(Kind.LIST, list_id)])


# —— conditions: a field, an operator, and a value whose type they allow ——————————————————————————————————————————————————


def _read_condition(fields: Fields, name: str, item: Any) -> Condition | None:
    """None where something is wrong with it, which is noted."""
    match item:
        case [str(field), str(word), value]:
            pass
        case _:
            fields.error(
                name, "condition_invalid", f'{name} must be [field, operator, value], as ["email", "=", "a@b.c"].'
            )
            return None
    if (fault := _fault_of_field(field)) is not None:
        fields.error(name, "condition_field_unknown", f"{name}: {fault}")
        return None
    if word not in list(Op):
        fields.error(name, "condition_operator_unknown", f"{name}: the operator must be one of {', '.join(Op)}.")
        return None
    op = Op(word)
    if (fault := _fault_of_value(field, op, value)) is not None:
        fields.error(name, "condition_value_invalid", f"{name}: {fault}")
        return None
    return Condition(field, op, value)


def _fault_of_field(field: str) -> str | None:
    known = (*TEXT_FIELDS, *TIME_FIELDS)
    if field in known or (field.startswith(CUSTOM) and FIELD_NAME.fullmatch(field.removeprefix(CUSTOM))):
        return None
    if field == "status":
        return "status cannot be asked for: only subscribed contacts are written to."
    near = difflib.get_close_matches(field, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"the field must be one of {', '.join(known)}, or {CUSTOM}<name>.{hint}"


def _fault_of_value(field: str, op: Op, value: Any) -> str | None:
    """What keeps the value from being compared so."""
    if field in TIME_FIELDS and op not in TIME_OPS:
        return f"{field} is a time, which compares by {', '.join(TIME_OPS)}."
    if field in TEXT_FIELDS and op in (Op.BEFORE, Op.AFTER):
        return f"{field} is text; {op} compares times."
    if op is Op.EXISTS:
        return None if isinstance(value, bool) else "exists wants true or false."
    if op in (Op.BEFORE, Op.AFTER) or field in TIME_FIELDS:
        return None if _is_moment(value) else f"{op} wants a time here, as 2027-04-08T10:15:00Z or 2027-04-08."
    if op is Op.IN:
        if not isinstance(value, list) or not 1 <= len(value) <= IN_MAX:
            return f"in wants a list of 1 to {IN_MAX} values."
        if any(isinstance(one, bool) for one in value):
            return "in takes strings and numbers."
        return next(filter(None, (_fault_of_one(field, Op.EQUAL, one) for one in value)), None)
    return _fault_of_one(field, op, value)


def _fault_of_one(field: str, op: Op, value: Any) -> str | None:
    match value:
        case bool() if field in TEXT_FIELDS:
            return f"{field} is text, so it compares with a string."
        case bool():
            return None if op in (Op.EQUAL, Op.NOT_EQUAL) else "true and false compare by = and != only."
        case int() | float() if field in TEXT_FIELDS:
            return f"{field} is text, so it compares with a string."
        case int() | float():
            return f"{op} compares text, so it wants a string." if op in (Op.CONTAINS, Op.STARTS_WITH) else None
        case str():
            if not value or len(value) > VALUE_MAX_CHARS or "\0" in value:
                return f"the value must be a string of 1 to {VALUE_MAX_CHARS} characters without NUL; exists asks for none."
            return None
        case _:
            return "the value must be a string, a number, true or false."


def _is_moment(value: Any) -> bool:
    try:
        moment_of(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def read_message(fields: Fields, content: Fields, html: str, template: Ref | None) -> Content:
    """Subject, preheader, html and text. `content` has the last two, under `html` and `text`; a template brings them, and a
    subject where none is given.
    """
    subject, preheader = fields.text("subject", SUBJECT_MAX_CHARS), fields.text("preheader", PREHEADER_MAX_CHARS)
    body, text = content.text(html, PART_MAX_CHARS, lines=True), content.text("text", PART_MAX_CHARS, lines=True)
    fields.require_any("subject", "template")
    fields.require_any("content", "template")
    if template is not None:
        refuse_beside_template(content, (html, "text"))
    elif fields.has("content") and not content.has(html):
        content.error(html, "field_missing", "html is required, unless a template brings it.")
    for of, name, given in ((fields, "subject", subject), (content, html, body)):
        if given is not None and not given.strip():
            of.error(name, "field_empty", f"{name} must not be empty.")
    return Content(subject, preheader, body, text)


def read_launch(fields: Fields) -> datetime | None:
    """`scheduledAt`, the only field of a launch; without it the campaign starts at once."""
    return fields.moment("scheduledAt")


def read_duplicate(fields: Fields) -> str | None:
    """`name` of the copy."""
    return fields.text("name", NAME_MAX_CHARS)


RETRYABLE = {"failed": State.FAILED, "unresolved": State.UNRESOLVED}


def read_retried(fields: Fields) -> list[State]:
    """`states` of a retry: failed, unresolved, or both, as without it."""
    words = fields.texts("states", len(RETRYABLE), ID_MAX_CHARS)
    if words is not None and (not words or set(words) - set(RETRYABLE)):
        fields.error("states", "value_unknown", f"states may name {' and '.join(RETRYABLE)}; leave it out for both.")
        return []
    return [RETRYABLE[word] for word in words or RETRYABLE]


def read_states(texts: list[str]) -> frozenset[State]:
    """The states that `state` of a query names, in words that commas or repetition keep apart; all of them without it.

    Raises FieldsInvalid.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        message = f"state knows no {unknown[0][:40]!r}; its words are {', '.join(WORDS)}."
        raise FieldsInvalid([FieldError("value_unknown", message, "state")])
    return frozenset().union(*(WORDS[word] for word in words)) if words else EVERY_STATE


def read_wants_csv(format_text: str | None, accept: str | None) -> bool:
    """Whether a list is asked for as CSV; the query's word outweighs the header. Raises FieldsInvalid."""
    if format_text is None:
        return "text/csv" in (accept or "").lower()
    if format_text not in ("json", "csv"):
        raise FieldsInvalid([FieldError("value_unknown", "format must be json or csv.", "format")])
    return format_text == "csv"


def seq_after(ids: Ids, stream_id: int, text: str) -> int | None:
    """The recipient's number in the stream; None for anything that is no id of the stream's mails."""
    match ids.decode_email(text):
        case (int(found), int(seq)) if found == stream_id:
            return seq
        case _:
            return None


def link_after(text: str) -> int | None:
    """The number of a link, which is its id; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


# —— the way back, for changes ————————————————————————————————————————————————————————————————————————————————————————————


def write_draft(campaign: Campaign, ids: Ids) -> dict[str, Any]:
    """The inverse of `read_draft`."""
    return {
        **written_message(campaign),
        **written_any_audience(campaign.audience, ids),
        "content": campaign.html,
        "text": campaign.text,
    }


def written_audience(audience: Audience, ids: Ids) -> Any:
    """As `read_audience` reads it; what asks for nothing is left out."""
    parts = {
        "tags": audience.tags,
        "lists": [ids.encode(Kind.LIST, list_id) for list_id in audience.lists],
        "where": [[one.field, one.op, one.value] for one in audience.where],
        "exclude": audience.exclude and written_audience(audience.exclude, ids),
    }
    return {name: part for name, part in parts.items() if part}


def written_any_audience(audience: Audience, ids: Ids) -> dict[str, Any]:
    """As `read_any_audience` reads it: `listId` and `tags` where they say it all, so that each may be changed alone."""
    if len(audience.lists) > 1 or audience.where or audience.exclude:
        return {"audience": written_audience(audience, ids)}
    return {"listId": ids.encode(Kind.LIST, audience.lists[0]) if audience.lists else None, "tags": audience.tags}


def written_message(campaign: Campaign) -> dict[str, Any]:
    """What both dialects name alike, as it was given."""
    return {
        "name": campaign.name,
        "subject": campaign.subject,
        "preheader": campaign.preheader,
        "from": campaign.from_email and {"name": campaign.from_name, "email": campaign.from_email},
        "replyTo": campaign.reply_to,
        "tracking": {"opens": campaign.tracking.opens, "clicks": campaign.tracking.clicks},
        "scheduledAt": campaign.scheduled_at and campaign.scheduled_at.isoformat(),
    }


def changed(written: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What was written with what is given in its place; `tracking`, and `content` where it has parts, part by part. A template
    replaces all that it may bring.
    """
    gone = (*(SHORT_AUDIENCE if "audience" in given else ()), *(BY_TEMPLATE if given.get("template") else ()))
    before = {name: value for name, value in written.items() if name not in gone}
    whole = before | given
    for name in ("content", "tracking"):
        match written.get(name), given.get(name):
            case dict() as parts, dict() as new:
                whole[name] = parts | new
    return whole


def blame_field(error: TemplateInvalid | ListNotFound, params: dict[str, str]) -> TemplateInvalid | ListNotFound:
    """The error with the dialect's name for the field that is to blame."""
    field = error.part if isinstance(error, TemplateInvalid) else error.param or "listId"
    error.param = params.get(field, field)
    return error
