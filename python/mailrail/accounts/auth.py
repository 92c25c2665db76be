"""API keys: `sk_live_`, 40 random characters, 6 characters of CRC-32.

The checksum lets scanners of leaked secrets, and us, tell a key from noise without a look-up. The first characters find
the row; the whole key is known by its SHA-256 only, which is enough for 238 random bits.
"""

import hashlib
import hmac
import secrets
import string
import zlib
from dataclasses import dataclass, field

LIVE, TEST = "sk_live_", "sk_test_"
# 62^40 > 2^238; without those of the stored prefix, which may be seen, 190 bits are left.
RANDOM_CHARS = 40
PREFIX_CHARS = len(LIVE) + 8
CHECKSUM_CHARS = 6
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Compared with where no key was found, so that an unknown prefix costs the same time.
NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key when it is made: the only moment at which its text exists."""

    text: str = field(repr=False)
    prefix: str
    hash: bytes = field(repr=False)


def new_key(*, is_test: bool = False) -> NewKey:
    """A key that nobody can guess."""
    body = (TEST if is_test else LIVE) + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    text = body + checksum(body)
    return NewKey(text, text[:PREFIX_CHARS], hash_of(text))


def prefix_of(text: str) -> str | None:
    """What to look the key up by, or None if the text cannot be a key of ours."""
    body = text[:-CHECKSUM_CHARS]
    plausible = (
        len(text) == len(LIVE) + RANDOM_CHARS + CHECKSUM_CHARS
        and text.startswith((LIVE, TEST))
        and text.isascii()
        and text[-CHECKSUM_CHARS:] == checksum(body)
    )
    return text[:PREFIX_CHARS] if plausible else None


def hash_of(text: str) -> bytes:
    """SHA-256 of the whole key."""
    return hashlib.sha256(text.encode()).digest()


def proves(text: str, known: bytes | None) -> bool:
    """Whether the key is the one whose hash is `known`, in constant time; never for None."""
    same = hmac.compare_digest(hash_of(text), known or NO_HASH)
    return same and known is not None


def checksum(body: str) -> str:
    """CRC-32 in base 62, padded to six characters."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
