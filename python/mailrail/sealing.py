"""Secrets at rest: AES-256-GCM under keys that derive from MAILRAIL_SECRET_KEY.

Each purpose and each place has a key of its own, so that a sealed text opens nowhere but in the row that it was made for, above
all in no other tenant's, and random nonces never come near their limit (NIST SP 800-38D, 8.3). Sealed form: 1 byte key id,
12 bytes nonce, ciphertext with its 16 bytes of tag.
"""

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mailrail.errors import MailrailError

# Which derivation: a secret key that is changed some day gets the next number, and both open meanwhile.
KEY_ID = b"\x01"
KEY_BYTES = 32
NONCE_BYTES = 12


class SealBroken(MailrailError):
    """A stored secret does not open: it was changed, moved, or sealed under another MAILRAIL_SECRET_KEY."""

    code = "seal_broken"


class Seal:
    """Seals for one purpose. A place is a text that no other row has."""

    def __init__(self, secret_key: str, purpose: str) -> None:
        info = f"mailrail v1 seal {purpose}".encode()
        self._key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret_key.encode())

    def close(self, data: bytes, place: str) -> bytes:
        """The data, sealed for one place."""
        nonce = os.urandom(NONCE_BYTES)
        return KEY_ID + nonce + self._cipher(place).encrypt(nonce, data, KEY_ID)

    def open(self, sealed: bytes, place: str) -> bytes:
        """What was sealed for this place. Raises SealBroken."""
        nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._cipher(place).decrypt(nonce, rest, sealed[:1])
        except (InvalidTag, ValueError) as error:
            raise SealBroken from error

    def _cipher(self, place: str) -> AESGCM:
        return AESGCM(hmac.digest(self._key, place.encode(), "sha256"))
