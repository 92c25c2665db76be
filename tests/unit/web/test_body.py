"""Which JSON is read, and which is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail.web.body import DEPTH_MAX, BodyUnreadable, decode

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(SCALARS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)


@given(VALUES)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert decode(json.dumps(value).encode()) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a" 1}',
        b"[1 2]",
        b"[,]",
        b'{"a": 1} x',
        b'{"a": 1}{"b": 2}',
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b'["\\ud800\\u0041"]',
        b'"\\x41"',
        b'"\n"',
        b'"a',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"nan",
        b"True",
        b"undefined",
        b"1e999",
        b"-1e999",
        b"9223372036854775808",
        b"-9223372036854775809",
        b"1" * 5000,
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b"/* */ 1",
        b'{"a": 1, "a": 1}',
        b'{"x": [{"a": 1, "b": 2, "\\u0061": 3}]}',
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
        b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1),
        b"[" * 100_000,
        b'[{"a":' * 50_000,
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(BodyUnreadable):
        decode(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"1e308", 1e308),
        (b"-0", 0),
        (b"\t[ ]\r\n", []),
        (b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, json.loads("[" * DEPTH_MAX + "]" * DEPTH_MAX)),
    ],
)
def test_the_edges_that_are_inside(body: bytes, value: Any) -> None:
    assert decode(body) == value
