"""A campaign as users write it, in parts that both dialects share."""

from mailrail.campaigns.model import TemplateInvalid
from mailrail.contacts.model import ListNotFound
from mailrail.ids import Ids, Kind
from mailrail.web.fields import Fields

NAME_MAX_CHARS = 200
SUBJECT_MAX_CHARS = 2_000
PREHEADER_MAX_CHARS = 2_000
# The core's limit is in bytes of UTF-8; a text within it never has more characters.
PART_MAX_CHARS = 256 * 1024
REPLY_TO_MAX = 10
TAGS_MAX = 20
TAG_MAX_CHARS = 100
ID_MAX_CHARS = 200


def read_sender(fields: Fields) -> tuple[str | None, str | None]:
    """`from`: `{name, email}`, or the address alone; (None, None) leaves it to the account's default."""
    if not fields.has("from"):
        return None, None
    if fields.is_text("from"):
        return None, fields.address("from")
    sender = fields.nested("from")
    return sender.text("name", NAME_MAX_CHARS), sender.required_address("email")


def read_audience(fields: Fields, ids: Ids) -> tuple[int | None, list[str]]:
    """`listId` and `tags`: members of the list who have every tag. A malformed id ends where an unknown one does."""
    list_id = fields.text("listId", ID_MAX_CHARS)
    tags = fields.texts("tags", TAGS_MAX, TAG_MAX_CHARS) or []
    return (None if list_id is None else ids.find(Kind.LIST, list_id)), tags


def blame_field(error: TemplateInvalid | ListNotFound, params: dict[str, str]) -> TemplateInvalid | ListNotFound:
    """The error with the dialect's name for the field that is to blame."""
    field = error.part if isinstance(error, TemplateInvalid) else "listId"
    error.param = params.get(field, field)
    return error
