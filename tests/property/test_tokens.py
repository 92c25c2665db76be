"""Ids and tokens are the oracle's, read back to the same numbers, and nothing else is read."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from mailrail._core import Codec
from tests.oracle.tokens import Tokens

bigints = st.integers(-(2**63), 2**63 - 1)
ints = st.integers(-(2**31), 2**31 - 1)
secrets = st.binary(min_size=1, max_size=80)
prefixes = st.sampled_from(["eml", "con", "lst", "cmp", "dom", "whk", "hold", "evt", "imp", "tag"])
SECRET = b"a secret of the tests, long enough to be one"
codec = Codec(SECRET)


@given(secrets, prefixes, st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**15 - 1))
def test_ids_are_the_oracles(secret: bytes, prefix: str, number: int, seq: int, attempt: int) -> None:
    text = Tokens(secret).encode_id(prefix, number, seq, attempt)
    assert Codec(secret).encode_id(prefix, number, seq, attempt) == text
    assert Codec(secret).decode_id(prefix, text) == (number, seq, attempt)


@given(secrets, bigints, ints)
def test_track_tokens_are_the_oracles(secret: bytes, stream_id: int, seq: int) -> None:
    token = Tokens(secret).track_token(stream_id, seq)
    assert Codec(secret).track_token(stream_id, seq) == token
    assert Codec(secret).read_track_token(token) == (stream_id, seq)
    assert Codec(secret).read_unsubscribe_token(token) is None
    assert Codec(secret + b"x").read_track_token(token) is None


@given(secrets, st.tuples(bigints, bigints, bigints, bigints, ints))
def test_unsubscribe_tokens_are_the_oracles(secret: bytes, claim: tuple[int, int, int, int, int]) -> None:
    token = Tokens(secret).unsubscribe_token(*claim)
    assert Codec(secret).unsubscribe_token(*claim) == token
    assert Codec(secret).read_unsubscribe_token(token) == claim
    assert Codec(secret).read_track_token(token) is None


@given(secrets, st.tuples(bigints, bigints, bigints, bigints))
def test_confirm_tokens_are_the_oracles(secret: bytes, claim: tuple[int, int, int, int]) -> None:
    token = Tokens(secret).confirm_token(*claim)
    assert Codec(secret).confirm_token(*claim) == token
    assert Codec(secret).read_confirm_token(token) == claim
    assert Codec(secret).read_unsubscribe_token(token) is None


@given(st.text(max_size=80) | st.text("ABCabc019-_=+/ \n", max_size=80))
def test_no_other_text_is_read(text: str) -> None:
    assert codec.read_track_token(text) is None
    assert codec.read_unsubscribe_token(text) is None
    assert codec.read_confirm_token(text) is None
    assert codec.decode_id("con", text) is None


def test_every_flipped_bit_is_refused() -> None:
    for token, read in [
        (codec.track_token(7, 1), codec.read_track_token),
        (codec.unsubscribe_token(1, 2, 3, 7, 1), codec.read_unsubscribe_token),
        (codec.confirm_token(1, 2, 3, 7), codec.read_confirm_token),
    ]:
        sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        for bit in range(len(sealed) * 8):
            broken = bytearray(sealed)
            broken[bit // 8] ^= 1 << (bit % 8)
            assert read(base64.urlsafe_b64encode(broken).decode().rstrip("=")) is None
