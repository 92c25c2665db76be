"""API keys: `sk_live_` or `sk_test_`, 40 random characters, 6 characters of CRC-32.

The checksum lets scanners of leaked secrets, and us, tell a key from noise without a look-up. The first characters find
the row; the whole key is known by its SHA-256 only, which is enough for 238 random bits. Whether it is a test key stands
in the text, and so under the hash.

A key that was proven is trusted for TRUST_S by the process that proved it (`ProvenKeys`), so that a busy client costs no
look-up per request. So long may a revoked key go on, and a change of the account stay unseen, in other processes than the
one that made it; the promise to customers is 5 seconds.
"""

import hashlib
import hmac
import secrets
import string
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from mailrail.accounts.model import LIVE_PREFIX, TEST_PREFIX, Caller

# 62^40 > 2^238; without those of the stored prefix, which may be seen, 190 bits are left.
RANDOM_CHARS = 40
PREFIX_CHARS = len(LIVE_PREFIX) + 8
CHECKSUM_CHARS = 6
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Compared with where no key was found, so that an unknown prefix costs the same time.
NO_HASH = bytes(32)

TRUST_S = 2.0
PROVEN_MAX = 10_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key when it is made: the only moment at which its text exists."""

    text: str = field(repr=False)
    prefix: str
    hash: bytes = field(repr=False)


def new_key(*, is_test: bool = False) -> NewKey:
    """A key that nobody can guess."""
    body = (TEST_PREFIX if is_test else LIVE_PREFIX) + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    text = body + checksum(body)
    return NewKey(text, text[:PREFIX_CHARS], hash_of(text))


def is_test(text: str) -> bool:
    """Whether a key, or the stored beginning of one, is a test key."""
    return text.startswith(TEST_PREFIX)


def prefix_of(text: str) -> str | None:
    """What to look the key up by, or None if the text cannot be a key of ours."""
    body = text[:-CHECKSUM_CHARS]
    plausible = (
        len(text) == len(LIVE_PREFIX) + RANDOM_CHARS + CHECKSUM_CHARS
        and text.startswith((LIVE_PREFIX, TEST_PREFIX))
        and text.isascii()
        and text[-CHECKSUM_CHARS:] == checksum(body)
    )
    return text[:PREFIX_CHARS] if plausible else None


def hash_of(text: str) -> bytes:
    """SHA-256 of the whole key."""
    return hashlib.sha256(text.encode()).digest()


def proves(key_hash: bytes, known: bytes | None) -> bool:
    """Whether the key of this hash is the one whose hash is `known`, in constant time; never for None."""
    same = hmac.compare_digest(key_hash, known or NO_HASH)
    return same and known is not None


def checksum(body: str) -> str:
    """CRC-32 in base 62, padded to six characters."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


class ProvenKeys:
    """Callers by the SHA-256 of their key's whole text, for `trust_s` after the look-up began; at most `most` of them.

    With `trust_s` 0 nothing is kept, and a revocation is effective with the next request.
    """

    def __init__(
        self, trust_s: float = TRUST_S, most: int = PROVEN_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trust_s, self._most, self._clock = trust_s, most, clock
        # In the order in which they end, since all are trusted for the same time.
        self._known: dict[bytes, tuple[float, Caller]] = {}

    def now(self) -> float:
        """When a look-up begins; for `keep`."""
        return self._clock()

    def find(self, key_hash: bytes) -> Caller | None:
        """Who proved this key a moment ago."""
        if (found := self._known.get(key_hash)) is None:
            return None
        until, caller = found
        if self._clock() < until:
            return caller
        del self._known[key_hash]
        return None

    def keep(self, key_hash: bytes, caller: Caller, looked_up_at: float) -> None:
        """Trusts the key from the moment at which its look-up began."""
        if self._trust_s <= 0:
            return
        # At the end of the dict, also if it was there.
        self._known.pop(key_hash, None)
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[key_hash] = (looked_up_at + self._trust_s, caller)

    def forget(self, account_id: int) -> None:
        """What this process knows of the account's keys, after it changed the account or revoked a key."""
        for key_hash in [known for known, (_, caller) in self._known.items() if caller.account.id == account_id]:
            del self._known[key_hash]
