"""Rounds of several recipients, and a reader of what the core writes (PostgreSQL manual, COPY, Binary Format)."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from mailrail._core import encode_recipient_row

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One row of a round."""

    seq: int
    email: str = "someone@example.net"
    attempt: int = 1
    skip: int | None = None
    contact_id: int | None = 1
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    custom_fields: dict[str, Any] | None = field(default_factory=dict)
    tracked: bool = True


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One row of what the core hands back for table results."""

    stream_id: int
    seq: int
    attempt: int
    outcome: int
    ses_message_id: str | None
    error: str | None
    account_id: int


def encode(recipients: Iterable[Recipient]) -> bytes:
    """Rows as `Sender.submit` takes them: those of many rounds of one."""
    rounds = [
        encode_recipient_row(
            one.seq,
            one.email,
            attempt=one.attempt,
            skip=one.skip,
            contact_id=one.contact_id,
            name=one.name,
            first_name=one.first_name,
            last_name=one.last_name,
            custom_fields=None if one.custom_fields is None else orjson.dumps(one.custom_fields),
            tracked=one.tracked,
        )
        for one in recipients
    ]
    return b"".join([HEADER, *(row.removeprefix(HEADER).removesuffix(TRAILER) for row in rounds), TRAILER])


def decode(rows: bytes) -> list[OutcomeRow]:
    """The core's outcomes."""
    return [
        OutcomeRow(
            _integer(cells[0]),
            _integer(cells[1]),
            _integer(cells[2]),
            _integer(cells[3]),
            _text(cells[4]),
            _text(cells[5]),
            _integer(cells[6]),
        )
        for cells in cells_of(rows)
    ]


def cells_of(rows: bytes) -> Iterator[list[bytes | None]]:
    """The rows' fields, undecoded."""
    assert rows.startswith(HEADER)
    at = len(HEADER)
    while (count := struct.unpack_from(">h", rows, at)[0]) != -1:
        at += 2
        cells: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", rows, at)
            at += 4
            cells.append(None if length == -1 else rows[at : at + length])
            at += max(length, 0)
        yield cells
    assert at + 2 == len(rows)


def _integer(cell: bytes | None) -> int:
    assert cell is not None
    return int.from_bytes(cell, signed=True)


def _text(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode()
