"""Secrets at rest open in their place and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail.sealing import SealBroken, open_sealed, seal

KEY = "a secret of the tests, long enough to be one"


@given(st.text(), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_what_is_sealed_opens_in_its_place(text: str, account_id: int, row_id: int) -> None:
    sealed = seal(KEY, "test", text, account_id, row_id)
    assert open_sealed(KEY, "test", sealed, account_id, row_id) == text


def test_it_opens_nowhere_else() -> None:
    sealed = seal(KEY, "test", "whsec_x", 1, 2)
    for key, purpose, place in (
        (KEY, "test", (2, 2)),
        (KEY, "test", (1, 3)),
        (KEY, "test", (2, 1)),
        (KEY, "test", (1,)),
        (KEY, "test", (1, 2, 0)),
        (KEY, "other", (1, 2)),
        (KEY + "!", "test", (1, 2)),
    ):
        with pytest.raises(SealBroken):
            open_sealed(key, purpose, sealed, *place)


def test_every_changed_bit_is_noticed() -> None:
    sealed = seal(KEY, "test", "whsec_x", 1, 2)
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(SealBroken):
                open_sealed(KEY, "test", bytes(changed), 1, 2)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 28])
def test_what_is_cut_short_does_not_open(length: int) -> None:
    with pytest.raises(SealBroken):
        open_sealed(KEY, "test", seal(KEY, "test", "x", 1)[:length], 1)


def test_the_same_secret_never_looks_the_same() -> None:
    assert len({seal(KEY, "test", "x", 1) for _ in range(100)}) == 100
