"""A campaign as users write it, in parts that both dialects share."""

from datetime import datetime

from mailrail.campaigns.model import CampaignDraft
from mailrail.campaigns.recipients import EVERY_STATE, WORDS
from mailrail.contacts.model import ListNotFound
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


def read_draft(fields: Fields, ids: Ids) -> CampaignDraft:
    """The fields of POST /api/v1/campaigns; `content` is the HTML, or `template` brings it. Without `listId` and `tags` it
    reaches everybody.
    """
    from_name, from_email = fields.mailbox("from")
    list_id, tags = read_audience(fields, ids)
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
        list_id=list_id,
        tags=tags,
        scheduled_at=fields.moment("scheduledAt"),
    )


def read_audience(fields: Fields, ids: Ids) -> tuple[int | None, list[str]]:
    """`listId` and `tags`: members of the list who have every tag. A malformed id ends where an unknown one does."""
    list_id = fields.text("listId", ID_MAX_CHARS)
    tags = fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS) or []
    return (None if list_id is None else ids.find(Kind.LIST, list_id)), tags


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


def blame_field(error: TemplateInvalid | ListNotFound, params: dict[str, str]) -> TemplateInvalid | ListNotFound:
    """The error with the dialect's name for the field that is to blame."""
    field = error.part if isinstance(error, TemplateInvalid) else "listId"
    error.param = params.get(field, field)
    return error
