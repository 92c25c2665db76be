"""What a rehearsal is asked for, the same in both dialects."""

from dataclasses import dataclass

from mailrail.campaigns.form import ID_MAX_CHARS
from mailrail.contacts.form import NAME_MAX_CHARS, read_custom_fields
from mailrail.contacts.model import Names
from mailrail.ids import Ids, Kind
from mailrail.rehearsals.model import Reader
from mailrail.web.fields import Fields, distinct

TEST_ADDRESSES_MAX = 5


@dataclass(frozen=True, slots=True)
class Cast:
    """For whom the mail is rendered: a contact of the account, or a made-up reader."""

    contact_id: int | None
    reader: Reader


@dataclass(frozen=True, slots=True)
class TestDraft:
    """A test send: to whom it goes, how it is rendered, and whether its subject says what it is."""

    to: list[str]
    cast: Cast
    is_marked: bool


def read_cast(fields: Fields, ids: Ids) -> Cast:
    """`contactId`, or `contact` with names and custom fields; without them, a made-up reader. A malformed id ends where an
    unknown one does.
    """
    contact_id = fields.text("contactId", ID_MAX_CHARS)
    if contact_id is not None and fields.has("contact"):
        fields.error("contact", "reader_ambiguous", "Give contactId or contact, not both.")
    is_given, given = fields.has("contact"), fields.nested("contact")
    email = given.address("email") or Reader().email
    names = Names(*(given.text(name, NAME_MAX_CHARS) for name in ("name", "firstName", "lastName"))).completed()
    custom_fields = read_custom_fields(given) or {}
    reader = Reader(email, names.name, names.first_name, names.last_name, custom_fields) if is_given else Reader()
    return Cast(None if contact_id is None else ids.find(Kind.CONTACT, contact_id), reader)


def read_test(fields: Fields, ids: Ids) -> TestDraft:
    """`to`, one address or up to five; `markSubject` puts [Test] before the subject."""
    boxes = fields.mailboxes("to", TEST_ADDRESSES_MAX)
    if not boxes:
        fields.error("to", "field_missing", f"to is required: an address, or a list of up to {TEST_ADDRESSES_MAX}.")
    return TestDraft(
        distinct(address for _, address in boxes), read_cast(fields, ids), fields.boolean("markSubject") or False
    )
