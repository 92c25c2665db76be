"""Sealed data opens in its place, under its secret, for its purpose, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail.sealing import NONCE_BYTES, Seal, SealBroken

KEY = "a secret of the tests, long enough to be one"
SEAL = Seal(KEY, "test")


@given(st.binary(), st.text())
def test_what_is_sealed_opens_in_its_place(data: bytes, place: str) -> None:
    assert SEAL.open(SEAL.close(data, place), place) == data


def test_large_data_is_sealed_whole() -> None:
    assert SEAL.open(SEAL.close(bytes(100_000), "1 2"), "1 2") == bytes(100_000)
    assert b"secret" not in SEAL.close(b"secret", "1 2")


def test_it_opens_nowhere_else() -> None:
    sealed = SEAL.close(b"whsec_x", "1 2")
    for place in ("2 2", "1 3", "2 1", "1", "1 2 0", ""):
        with pytest.raises(SealBroken):
            SEAL.open(sealed, place)
    for key, purpose in ((KEY, "other"), (KEY + "!", "test")):
        with pytest.raises(SealBroken):
            Seal(key, purpose).open(sealed, "1 2")


def test_every_changed_bit_is_noticed() -> None:
    sealed = SEAL.close(b"whsec_x", "1 2")
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(SealBroken):
                SEAL.open(bytes(changed), "1 2")


def test_what_is_cut_short_does_not_open() -> None:
    sealed = SEAL.close(b"x", "1")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            SEAL.open(sealed[:length], "1")
    with pytest.raises(SealBroken):
        SEAL.open(bytes(1 + NONCE_BYTES), "1")


def test_the_same_secret_never_looks_the_same() -> None:
    assert len({SEAL.close(b"x", "1") for _ in range(100)}) == 100
