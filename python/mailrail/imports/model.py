"""Facts of imports, and what the columns of an upload mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mailrail.contacts.model import FIELD_NAME, RESERVED_FIELDS, ContactStatus
from mailrail.errors import MailrailError

# Imports of one account that may be under way at once.
OPEN_MAX = 10
# Of an import with more failed rows, the rest is only counted.
ERRORS_MAX = 1_000_000
ERRORS_KEPT_DAYS = 30
# An upload from which nothing was heard for so long has broken off: its process is gone.
SILENCE_MAX_S = 120.0
COLUMNS_MAX = 100
CUSTOM = "customFields."

# Headers as listmonk, Mailchimp and people write them, in lower case without blanks, hyphens and underscores.
HEADERS: Mapping[str, str] = {
    **dict.fromkeys(("email", "emailaddress", "mail", "mailaddress", "subscriberemail", "contactemail"), "email"),
    **dict.fromkeys(("name", "fullname", "displayname"), "name"),
    **dict.fromkeys(("firstname", "fname", "givenname", "forename"), "firstName"),
    **dict.fromkeys(("lastname", "lname", "surname", "familyname"), "lastName"),
    **dict.fromkeys(("tags", "tag"), "tags"),
    **dict.fromkeys(("status", "subscriptionstatus"), "status"),
    "tracking": "tracking",
    **dict.fromkeys(("customfields", "attributes", "attribs"), "customFields"),
}
# Fields that a contact itself has; all else is a custom field.
FIELDS = frozenset(HEADERS.values())


class ImportStatus(StrEnum):
    """How far an import is."""

    RECEIVING = "receiving"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (ImportStatus.RECEIVING, ImportStatus.PROCESSING)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a customer says of an upload beside its rows; `mapping` is column or key → target, None to leave it out."""

    list_id: int | None = None
    tags: list[str] = field(default_factory=list)
    contact_status: ContactStatus | None = None
    upsert: bool = True
    consent_source: str | None = None
    consent_wording: str | None = None
    mapping: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Columns:
    """A CSV header: each column with its target, None where it is left out."""

    delimiter: str
    targets: list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of rows; together they are the rows done.

    `unchanged` said nothing new. `skipped` were left alone: the person unsubscribed, bounced, complained or is suppressed, or
    is known and the import does not update. `doubled` stand for rows whose address comes again in the file.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    doubled: int = 0
    failed: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.created + self.updated + self.unchanged + self.skipped + self.doubled + self.failed


@dataclass(frozen=True, slots=True)
class Import:
    """An import as stored."""

    id: int
    account_id: int
    status: ImportStatus
    reason: str | None
    format: str
    options: ImportOptions
    columns: Columns | None
    digest: bytes | None
    bytes_received: int
    rows_received: int
    counts: Counts
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    # How long its rows took until now, or in all.
    seconds: float

    @property
    def rows_per_second(self) -> int | None:
        """The pace; None before it has one."""
        return round(self.counts.rows / self.seconds) if self.seconds > 0 and self.counts.rows else None


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """A piece of an upload that waits for its turn."""

    number: int
    first_row: int
    rows: int
    body: bytes


class ImportNotFound(MailrailError):
    """There is no such import."""

    code = "import_not_found"


class ImportUnreadable(MailrailError):
    """The upload cannot be read as contacts; nothing of it was imported."""

    code = "import_unreadable"


class ImportTooLarge(MailrailError):
    """The upload is larger than this installation takes."""

    code = "import_too_large"


class FormatUnknown(MailrailError):
    """Send contacts as application/json, application/x-ndjson, text/csv or multipart/form-data."""

    code = "import_format_unknown"


class ColumnsInvalid(MailrailError):
    """The columns of the file and their mapping do not name an address once."""

    code = "import_columns_invalid"
    param = "mapping"


class TooManyImports(MailrailError):
    """Wait until some of your imports are done, or cancel them."""

    code = "too_many_imports"


class ImportEnded(MailrailError):
    """The import is over: it was completed or cancelled, or it failed."""

    code = "import_ended"


def is_target(text: str) -> bool:
    """Whether a column can be mapped to it."""
    return text in FIELDS or (text.startswith(CUSTOM) and is_field_name(text.removeprefix(CUSTOM)))


def is_field_name(name: str) -> bool:
    """Whether a template can say it."""
    return FIELD_NAME.fullmatch(name) is not None and name not in RESERVED_FIELDS


def read_columns(names: Sequence[str], delimiter: str, mapping: Mapping[str, str | None]) -> Columns:
    """Where each column goes: as the mapping says, else as its name says, else into a custom field of its name.

    Raises ColumnsInvalid unless every mapped column is there, one is the address and no two mean the same.
    """
    if missing := [name for name in mapping if name not in names]:
        raise ColumnsInvalid(f"The file has no column {missing[0][:80]!r}. {_seen(names)}")
    targets = [(name, mapping[name] if name in mapping else _target(name)) for name in names]
    if "email" not in (target for _, target in targets):
        raise ColumnsInvalid(
            f'No column is the email address. Name one of them email, or send a mapping such as {{"Column": "email"}}. '
            f"{_seen(names)}"
        )
    taken: set[str] = set()
    for name, target in targets:
        if target is not None and target in taken:
            raise ColumnsInvalid(
                f"Two columns mean {target}; the second is {name[:80]!r}. Map one of them to null. {_seen(names)}"
            )
        taken.update(() if target is None else (target,))
    return Columns(delimiter, targets)


def _target(name: str) -> str | None:
    if name.startswith(CUSTOM):
        return name if is_target(name) else None
    if (known := HEADERS.get(re.sub(r"[\s_-]", "", name).lower())) is not None:
        return known
    custom = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:64]
    return CUSTOM + custom if is_field_name(custom) else None


def _seen(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:COLUMNS_MAX])
    return f"Its columns are {shown}." if names else "It has no columns."
