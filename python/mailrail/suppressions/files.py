"""Suppression lists as CSV: read as other services export them, written for spreadsheets and for them."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mailrail.addresses import AddressInvalid, parse_address
from mailrail.errors import MailrailError
from mailrail.suppressions.model import Reason, Suppression

# What a list may have; larger ones come in pieces.
LIST_MAX_BYTES = 20_000_000
ROW_MAX_CHARS = 100_000
FAILURES_SHOWN = 100
EMAIL_COLUMNS = ("email", "emailaddress", "recipient", "address")
# In the order in which they are believed.
REASON_COLUMNS = ("reason", "suppressionreason", "type", "status")
# What Amazon SES, SendGrid, Postmark, Mailgun and we ourselves write there, in letters alone.
REASON_WORDS = {
    "bounce": Reason.BOUNCE,
    "bounced": Reason.BOUNCE,
    "hardbounce": Reason.BOUNCE,
    "permanent": Reason.BOUNCE,
    "softbounces": Reason.SOFT_BOUNCES,
    "complaint": Reason.COMPLAINT,
    "complained": Reason.COMPLAINT,
    "spam": Reason.COMPLAINT,
    "spamcomplaint": Reason.COMPLAINT,
    "spamreport": Reason.COMPLAINT,
    "manual": Reason.MANUAL,
    "manualsuppression": Reason.MANUAL,
}
# A server's own words, or the code alone, as SendGrid has them.
REFUSED = re.compile(r"5\d\d\b|5\.\d{1,3}\.\d{1,3}\b")
COLUMNS = ("email", "reason", "detail", "createdAt")
# What a spreadsheet takes for the beginning of a formula (OWASP, CSV Injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ListUnreadable(MailrailError):
    """This is not a suppression list in CSV. Its first line names the columns, and one of them is `email`."""

    code = "list_unreadable"


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that is no entry; the header is row 1."""

    row: int
    problem: str


@dataclass(slots=True)
class Read:
    """What a list says: addresses in lower case, each with the reason of its first row."""

    entries: dict[str, Reason] = field(default_factory=dict)
    rows: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)


def read_list(body: bytes, otherwise: Reason) -> Read:
    """A whole list; rows that give no reason that is known have `otherwise`. Raises ListUnreadable."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ListUnreadable("The list is not UTF-8. Save it as CSV in UTF-8.") from error
    if "\0" in text:
        raise ListUnreadable("The list has a NUL character, so it is no text.")
    try:
        return _read(_rows(text), otherwise)
    except csv.Error as error:
        raise ListUnreadable(f"The list cannot be read as CSV: {error}.") from error


def _rows(text: str) -> Iterator[list[str]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    csv.field_size_limit(ROW_MAX_CHARS)
    return (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row)


def _read(rows: Iterator[list[str]], otherwise: Reason) -> Read:
    header = [re.sub("[^a-z]", "", name.lower()) for name in next(rows, [])]
    email_at = next((header.index(name) for name in EMAIL_COLUMNS if name in header), None)
    if email_at is None:
        raise ListUnreadable
    reasons_at = [header.index(name) for name in REASON_COLUMNS if name in header]
    found = Read()
    for number, row in enumerate(rows, 2):
        found.rows += 1
        try:
            email = parse_address(row[email_at].strip() if email_at < len(row) else "").lower()
        except AddressInvalid as error:
            found.failed += 1
            if len(found.failures) < FAILURES_SHOWN:
                found.failures.append(Failure(number, str(error)))
            continue
        found.entries.setdefault(email, _reason((row[at] for at in reasons_at if at < len(row)), otherwise))
    return found


def _reason(cells: Iterable[str], otherwise: Reason) -> Reason:
    for cell in cells:
        if word := REASON_WORDS.get(re.sub("[^a-z]", "", cell.lower())):
            return word
        if REFUSED.match(cell.strip()):
            return Reason.BOUNCE
    return otherwise


def write_header() -> bytes:
    """The first line of an export."""
    return _lines([COLUMNS])


def write_lines(page: Iterable[Suppression]) -> bytes:
    """Lines of an export: all fields quoted, times in UTC."""
    return _lines(
        (_defused(one.email), one.reason, _defused(one.detail or ""), f"{one.created_at:%Y-%m-%dT%H:%M:%SZ}")
        for one in page
    )


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _defused(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
