"""Suppression lists of other services, and our own for spreadsheets."""

from datetime import UTC, datetime

import pytest

from mailrail.suppressions.files import FAILURES_SHOWN, ListUnreadable, read_list, write_lines
from mailrail.suppressions.model import Reason, Suppression

EXPORTS = {
    "ses": (
        "EmailAddress,Reason,LastUpdateTime\na@example.com,BOUNCE,2026-01-02T03:04:05Z\nb@example.com,COMPLAINT,2026-01-02T03:04:05Z\n",
        {"a@example.com": Reason.BOUNCE, "b@example.com": Reason.COMPLAINT},
    ),
    "sendgrid_bounces": (
        'status,reason,email,created\n5.1.1,"550 5.1.1 no such user, ""sorry""",a@example.com,1443651125\n'
        ",unknown,b@example.com,1443651125\n",
        {"a@example.com": Reason.BOUNCE, "b@example.com": Reason.IMPORTED},
    ),
    "postmark": (
        "EmailAddress,SuppressionReason,Origin,CreatedAt\na@example.com,HardBounce,Recipient,x\n"
        "b@example.com,SpamComplaint,Recipient,x\nc@example.com,ManualSuppression,Customer,x\n",
        {"a@example.com": Reason.BOUNCE, "b@example.com": Reason.COMPLAINT, "c@example.com": Reason.MANUAL},
    ),
    "mailgun": ("address;code;error\nA@Example.com;550;x\n", {"a@example.com": Reason.IMPORTED}),
    "excel": ("\ufeffEmail\tReason\r\na@example.com\tspam report\r\n", {"a@example.com": Reason.COMPLAINT}),
    "one_column": (
        "email\na@example.com\n\nb@example.com",
        dict.fromkeys(("a@example.com", "b@example.com"), Reason.IMPORTED),
    ),
    "nobody": ("email\n", {}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_others_are_read(name: str) -> None:
    text, entries = EXPORTS[name]
    read = read_list(text.encode(), Reason.IMPORTED)
    assert read.entries == entries
    assert (read.rows, read.failed) == (len(entries), 0)


def test_the_first_row_of_an_address_counts_and_what_is_no_address_is_told() -> None:
    rows = ["email,reason", "a@example.com,bounce", "A@example.com,complaint", "nobody,bounce", ",", "x@"]
    read = read_list("\n".join(rows + ["y@"] * FAILURES_SHOWN).encode(), Reason.MANUAL)
    assert read.entries == {"a@example.com": Reason.BOUNCE}
    assert (read.rows, read.failed, len(read.failures)) == (5 + FAILURES_SHOWN, 3 + FAILURES_SHOWN, FAILURES_SHOWN)
    assert [one.row for one in read.failures[:3]] == [4, 5, 6]


@pytest.mark.parametrize(
    "body", [b"", b"name,reason\nx,y", b"\xff\xfe", b'email\n"a@example.com', b"email\na\0b", b'email\n"a"b"\n']
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ListUnreadable):
        read_list(body, Reason.IMPORTED)


def test_no_cell_of_an_export_is_a_formula() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    one = Suppression(1, 1, '=cmd|"x"@example.com', Reason.BOUNCE, at, detail="@SUM(A1)")
    lines = write_lines([one]).decode()
    assert lines == '"\'=cmd|""x""@example.com","bounce","\'@SUM(A1)","2026-01-02T03:04:05Z"\n'
