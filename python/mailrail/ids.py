"""Public ids: a prefix that names the kind, and the number of the row, encrypted so that volume does not show."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailrail._core import Codec

# Row numbers are PostgreSQL's bigint; the block of an id could hold more.
ID_MAX = 2**63 - 1
# No row has this number, so a look-up by it finds nothing, as for any other unknown id.
NO_ROW = 0


class Kind(StrEnum):
    """The prefix of an id."""

    ACCOUNT = "acc"
    KEY = "key"
    CONTACT = "con"
    LIST = "lst"
    CAMPAIGN = "cmp"
    DOMAIN = "dom"
    HOLD = "hold"
    TRANSFER = "txn"
    WEBHOOK = "whk"
    WEBHOOK_MESSAGE = "evt"
    DELIVERY = "dlv"
    IMPORT = "imp"
    TEMPLATE = "tpl"
    EMAIL = "eml"
    SUPPRESSION = "sup"
    CONSENT = "cns"
    ERASURE = "ers"


class Ids:
    """Row numbers to public ids and back, for the installation whose secret `codec` holds."""

    def __init__(self, codec: "Codec") -> None:
        self._codec = codec

    def encode(self, kind: Kind, row_id: int) -> str:
        """`con_` and 26 characters; the same row has the same id for ever."""
        return self._codec.encode_id(kind, row_id)

    def encode_optional(self, kind: Kind, row_id: int | None) -> str | None:
        """None stays None."""
        return None if row_id is None else self.encode(kind, row_id)

    def encode_email(self, stream_id: int, seq: int) -> str:
        """`eml_` and 26 characters for one recipient's mail, whatever its attempt."""
        return self._codec.encode_id(Kind.EMAIL, stream_id, seq)

    def decode_email(self, text: str) -> tuple[int, int] | None:
        """(stream, seq), or None for a text that is no id of a mail of this installation."""
        match self._codec.decode_id(Kind.EMAIL, text):
            case (int(stream_id), int(seq), 0):
                return stream_id, seq
            case _:
                return None

    def decode(self, kind: Kind, text: str) -> int | None:
        """The row's number, or None for a text that is no id of this kind and installation."""
        match self._codec.decode_id(kind, text):
            case (int(row_id), 0, 0) if 0 < row_id <= ID_MAX:
                return row_id
            case _:
                return None

    def find(self, kind: Kind, text: str) -> int:
        """As `decode`, with NO_ROW instead of None: a malformed id then ends where an unknown one does."""
        return self.decode(kind, text) or NO_ROW
