"""Public ids."""

import pytest

from mailrail._core import Codec
from mailrail.ids import ID_MAX, NO_ROW, Ids, Kind

CODEC = Codec(b"a secret of the tests, long enough")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("row_id", [1, 2, 2**32, ID_MAX])
def test_an_id_leads_back_to_its_row_and_to_no_other_kind(kind: Kind, row_id: int) -> None:
    ids = Ids(CODEC)
    text = ids.encode(kind, row_id)
    assert text.startswith(f"{kind}_")
    assert ids.decode(kind, text) == ids.find(kind, text) == row_id
    for other in set(Kind) - {kind}:
        assert ids.decode(other, text) is None
        assert ids.decode(other, other + text.removeprefix(kind)) is None


@pytest.mark.parametrize("text", ["", "con_", "con_x", "con_" + "a" * 26, "con_" + "A" * 26, "con_" + "é" * 26, "\x00"])
def test_noise_names_no_row(text: str) -> None:
    assert Ids(CODEC).decode(Kind.CONTACT, text) is None
    assert Ids(CODEC).find(Kind.CONTACT, text) == NO_ROW


def test_blocks_that_are_no_row_are_no_ids() -> None:
    for row_id, seq, attempt in ((0, 0, 0), (1, 1, 0), (1, 0, 1)):
        assert Ids(CODEC).decode(Kind.CONTACT, CODEC.encode_id("con", row_id, seq, attempt)) is None


def test_another_secret_reads_nothing() -> None:
    text = Ids(CODEC).encode(Kind.CONTACT, 7)
    assert Ids(Codec(b"another secret, just as long as it")).decode(Kind.CONTACT, text) != 7


def test_none_stays_none() -> None:
    assert Ids(CODEC).encode_optional(Kind.LIST, None) is None


def test_the_id_of_a_mail_leads_back_to_its_stream_and_number() -> None:
    ids = Ids(CODEC)
    stream_id = (2968 * 8) << 32 | 7
    text = ids.encode_email(stream_id, 2**31 - 1)
    assert text.startswith("eml_")
    assert ids.decode_email(text) == (stream_id, 2**31 - 1)
    for other in ("", "eml_x", ids.encode(Kind.CONTACT, 7), CODEC.encode_id("eml", stream_id, 5, attempt=2)):
        assert ids.decode_email(other) is None
