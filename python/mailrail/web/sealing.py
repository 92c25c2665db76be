"""What must be readable to us and to nobody who has a copy of the database."""

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class Seal:
    """AES-256-GCM under keys that derive from the installation's secret, one per purpose and place, so that a sealed text
    opens nowhere but in the row that it was made for, and random nonces never come near their limit (NIST SP 800-38D, 8.3).
    """

    def __init__(self, secret_key: str, purpose: str) -> None:
        self._key = hmac.digest(secret_key.encode(), f"mailrail v1 seal {purpose}".encode(), "sha256")

    def close(self, data: bytes, place: str) -> bytes:
        """The data, sealed for one place."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher(place).encrypt(nonce, data, None)

    def open(self, sealed: bytes, place: str) -> bytes | None:
        """What was sealed for this place; None if it was not, or under another secret."""
        try:
            return self._cipher(place).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            return None

    def _cipher(self, place: str) -> AESGCM:
        return AESGCM(hmac.digest(self._key, place.encode(), "sha256"))
