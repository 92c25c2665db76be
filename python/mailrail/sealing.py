"""Secrets at rest: AES-256-GCM under a key that derives from MAILRAIL_SECRET_KEY, one for each purpose.

What is sealed is bound to its place by associated data, so that a ciphertext that is copied into another row, above all
another tenant's, does not open there. Sealed form: 1 byte key id, 12 bytes nonce, ciphertext with its 16 bytes of tag.
"""

import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mailrail.errors import MailrailError

# Which derivation: a secret key that is changed some day gets the next number, and both open meanwhile.
KEY_ID = 1
KEY_BYTES = 32
# NIST SP 800-38D, 8.2.2: a random nonce of 96 bits is good for 2^32 messages under one key.
NONCE_BYTES = 12


class SealBroken(MailrailError):
    """A stored secret does not open: it was changed, moved, or sealed under another MAILRAIL_SECRET_KEY."""

    code = "seal_broken"


def seal(secret_key: str, purpose: str, text: str, *place: int) -> bytes:
    """The text, sealed for this place: the numbers that say whose it is."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(_key(secret_key, purpose)).encrypt(nonce, text.encode(), _bound_to(KEY_ID, place))
    return bytes((KEY_ID,)) + nonce + sealed


def open_sealed(secret_key: str, purpose: str, sealed: bytes, *place: int) -> str:
    """What was sealed for that place. Raises SealBroken."""
    if len(sealed) < 1 + NONCE_BYTES or sealed[0] != KEY_ID:
        raise SealBroken
    nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return AESGCM(_key(secret_key, purpose)).decrypt(nonce, rest, _bound_to(KEY_ID, place)).decode()
    except InvalidTag as error:
        raise SealBroken from error


def _key(secret_key: str, purpose: str) -> bytes:
    info = f"mailrail v1 seal {purpose}".encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret_key.encode())


def _bound_to(key_id: int, place: tuple[int, ...]) -> bytes:
    return struct.pack(f">B{len(place)}q", key_id, *place)
