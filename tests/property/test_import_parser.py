"""The parser of imports against Python's own, and against bytes that nobody meant as contacts."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail._core import CoreError, ImportCutter, ImportPlan
from tests.support.rows import cells_of

CELL = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
TRICKY = st.text(alphabet="a,;\"\r\n\t 'é", max_size=12)
# csv-core takes a mark at the very beginning for no text, as does whoever opens the file with a program.
ROWS = st.lists(
    st.tuples(*[st.one_of(CELL, TRICKY).filter(lambda text: not text.startswith("\ufeff"))] * 3), max_size=8
)


def pieces_of(upload_format: str, data: bytes, steps: list[int]) -> list[tuple[bytes, int, int]]:
    """Everything that the cutter gives when it is fed in such steps."""
    cutter = ImportCutter(upload_format, "," if upload_format == "csv" else None)
    pieces, at, turn = [], 0, 0
    while at < len(data):
        step = steps[turn % len(steps)]
        pieces += cutter.feed(data[at : at + step])
        at, turn = at + step, turn + 1
    pieces += cutter.finish()
    return [(piece.body, piece.first_row, piece.rows) for piece in pieces]


def read_all(plan: dict[str, Any], pieces: list[tuple[bytes, int, int]]) -> list[list[bytes | None]]:
    """The contacts' fields; every record must be a contact, an error or a double."""
    reader = ImportPlan(orjson.dumps(plan))
    found: list[list[bytes | None]] = []
    for body, first_row, rows in pieces:
        read = reader.read(body, first_row, {}, {})
        judged = reader.read(body, first_row, {}, dict.fromkeys(read.unknown, "unknown"))
        assert judged.unknown == []
        assert judged.contact_count + judged.error_count + judged.doubled_count == rows
        numbers = [int.from_bytes(cells[0] or b"") for cells in cells_of(judged.errors)]
        assert numbers == sorted(set(numbers))
        assert all(first_row <= number < first_row + rows for number in numbers)
        found += cells_of(judged.contacts)
    return found


# With a shorter line end, Python would leave a lone carriage return without quotes, and take it for a line end itself.
WRITINGS = st.sampled_from([(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_MINIMAL, "\r\n")])


@given(ROWS, WRITINGS, st.lists(st.integers(1, 40), min_size=1))
def test_csv_is_read_as_python_reads_it(
    rows: list[tuple[str, ...]], writing: tuple[Any, str], steps: list[int]
) -> None:
    quoting, end = writing
    written = io.StringIO()
    out = csv.writer(written, quoting=quoting, lineterminator=end)
    out.writerow(("email", "a", "b", "c"))
    for number, row in enumerate(rows):
        out.writerow((f"p{number}@b.de", *row))
    columns = ["email", *(f"customFields.{name}" for name in "abc")]
    contacts = read_all({"format": "csv", "columns": columns}, pieces_of("csv", written.getvalue().encode(), steps))
    expected = {
        row[0]: {name: cell for name, cell in zip("abc", map(trimmed, row[1:]), strict=True) if cell}
        for row in csv.reader(io.StringIO(written.getvalue(), newline=""))
        if row and row[0] != "email"
    }
    assert {(cells[0] or b"").decode(): json.loads((cells[7] or b"")[1:]) for cells in contacts} == expected


def trimmed(text: str) -> str:
    """As Rust trims: white space of Unicode, to which Python adds four separators of ASCII."""
    return text.strip("".join(chr(code) for code in range(0x3001) if chr(code).isspace() and not 0x1C <= code <= 0x1F))


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(),
            CELL,
            st.dictionaries(CELL, CELL, max_size=3),
            st.fixed_dictionaries({"email": st.sampled_from(["a@b.de", "c@b.de", "x"])}),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 40), min_size=1),
    st.sampled_from([None, 1]),
)
def test_json_in_any_steps_gives_each_value_once(values: list[Any], steps: list[int], indent: int | None) -> None:
    listed = json.dumps(values, indent=indent).encode()
    pieces = pieces_of("json", listed, steps)
    assert sum(rows for _, _, rows in pieces) == len(values)
    read_all({"format": "json"}, pieces)
    enveloped = b'{"tags": ["]"], "contacts": ' + listed + b"}"
    assert pieces_of("json", enveloped, steps) == pieces
    if values:
        lines = b"\n".join(json.dumps(value).encode() for value in values)
        assert sum(rows for _, _, rows in pieces_of("jsonl", lines, steps)) == len(values)


@given(
    st.sampled_from(["csv", "json", "jsonl"]),
    st.one_of(st.binary(max_size=200), st.text(alphabet='[]{},:"\\ \n\r\t1a;', max_size=80).map(str.encode)),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_no_bytes_crash_it(upload_format: str, data: bytes, steps: list[int]) -> None:
    opening = b"email,b\n" if upload_format == "csv" else b""
    try:
        pieces = pieces_of(upload_format, opening + data, steps)
    except CoreError as error:
        assert str(error)
        return
    plan = {"format": "csv", "columns": ["email", "name"]} if upload_format == "csv" else {"format": "json"}
    read_all(plan, pieces)


@given(st.binary(max_size=100))
def test_a_broken_piece_is_an_error_and_no_crash(data: bytes) -> None:
    for plan in (b'{"format": "csv", "columns": ["email"]}', b'{"format": "json"}'):
        try:
            ImportPlan(plan).read(data, 1, {}, {})
        except CoreError as error:
            assert "piece" in str(error)


@pytest.mark.parametrize("kind", ["rows", "one_row", "nul", "blank", "tiny"])
def test_memory_is_flat_whatever_comes(kind: str) -> None:
    blocks = {
        "rows": b"someone@example.com,Some One\n" * 2000,
        "one_row": b'"' + b"x" * 60_000,
        "nul": bytes(60_000),
        "blank": b"\n" * 60_000,
        "tiny": b"x\n" * 30_000,
    }
    cutter = ImportCutter("csv", ",")
    plan = ImportPlan(b'{"format": "csv", "columns": ["email", "name"]}')
    cutter.feed(b"email,name\n")
    before = 0
    for turn in range(600):
        try:
            pieces = cutter.feed(blocks[kind])
        except CoreError:
            assert kind in ("one_row", "nul")
            break
        for piece in pieces:
            assert len(piece.body) < 2 << 20
            read = plan.read(piece.body, piece.first_row, {}, {})
            assert len(read.contacts) + len(read.errors) < 8 << 20
        if turn == 100:
            before = resident_bytes()
    if before:
        assert resident_bytes() < before + (24 << 20)


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
