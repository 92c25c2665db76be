"""Public ids, SES tags and link tokens, as the core's codec must write them."""

import base64
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Tokens:
    """All texts that identify something outside the house, for one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def encode_id(self, prefix: str, number: int, seq: int = 0, attempt: int = 0) -> str:
        """A public id such as `con_…`."""
        return f"{prefix}_{self._block(prefix, number, seq, attempt)}"

    def tag(self, stream_id: int, seq: int, attempt: int) -> str:
        """The value of the SES tag `mr`."""
        return self._block("tag", stream_id, seq, attempt)

    def track_token(self, stream_id: int, seq: int) -> str:
        """The token of opens and clicks."""
        return self._seal("track", struct.pack(">qi", stream_id, seq))

    def unsubscribe_token(self, account_id: int, contact_id: int, list_id: int, stream_id: int, seq: int) -> str:
        """The token of the unsubscribe link."""
        return self._seal("unsubscribe", struct.pack(">qqqqi", account_id, contact_id, list_id, stream_id, seq))

    def confirm_token(self, account_id: int, contact_id: int, list_id: int, expires_s: int) -> str:
        """The token of the link that confirms a subscription."""
        return self._seal("confirm", struct.pack(">qqqq", account_id, contact_id, list_id, expires_s))

    def _block(self, prefix: str, number: int, seq: int, attempt: int) -> str:
        kind = hashlib.sha256(prefix.encode()).digest()[0]
        block = struct.pack(">BBHIQ", kind, 0, attempt % 2**16, seq % 2**32, number % 2**64)
        cipher = Cipher(algorithms.AES(self._derive("ids")[:16]), modes.ECB()).encryptor()  # noqa: S305 - one block
        sealed = cipher.update(block) + cipher.finalize()
        return base64.b32encode(sealed).decode().rstrip("=").lower()

    def _seal(self, purpose: str, payload: bytes) -> str:
        key_id = b"\x01"
        tag = _hmac(self._derive(f"token mac {purpose}"), key_id + payload)[:16]
        key = self._derive(f"token enc {purpose}")[:16]
        cipher = Cipher(algorithms.AES(key), modes.CTR(tag)).encryptor()
        text = cipher.update(payload) + cipher.finalize()
        return base64.urlsafe_b64encode(key_id + tag + text).decode().rstrip("=")

    def _derive(self, purpose: str) -> bytes:
        return _hmac(self._secret, f"mailrail v1 {purpose}".encode())


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
