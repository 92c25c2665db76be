"""Sealed texts open in their place, under their secret, for their purpose, and nowhere else."""

from mailrail.web.sealing import NONCE_BYTES, Seal

SEAL = Seal("s" * 40, "tests")


def test_what_was_sealed_opens_in_its_place() -> None:
    for data in (b"", b"secret", bytes(100_000)):
        sealed = SEAL.close(data, "1 key")
        assert SEAL.open(sealed, "1 key") == data
        assert sealed != SEAL.close(data, "1 key")
    assert b"secret" not in SEAL.close(b"secret", "1 key")


def test_it_opens_nowhere_else() -> None:
    sealed = SEAL.close(b"secret", "1 key")
    assert SEAL.open(sealed, "2 key") is None
    assert Seal("t" * 40, "tests").open(sealed, "1 key") is None
    assert Seal("s" * 40, "other").open(sealed, "1 key") is None


def test_a_changed_byte_is_seen() -> None:
    sealed = SEAL.close(b"secret", "1 key")
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        assert SEAL.open(changed, "1 key") is None
    for length in range(len(sealed)):
        assert SEAL.open(sealed[:length], "1 key") is None
    assert SEAL.open(bytes(NONCE_BYTES), "1 key") is None
