"""The form of API keys."""

import math
import re

import pytest

from mailrail.accounts import auth


def test_a_key_has_its_form_and_proves_itself() -> None:
    key = auth.new_key()
    assert re.fullmatch("sk_live_[0-9A-Za-z]{46}", key.text)
    assert auth.prefix_of(key.text) == key.prefix == key.text[:16]
    assert auth.proves(key.text, key.hash)
    assert key.text not in repr(key)


def test_what_the_prefix_leaves_is_beyond_guessing() -> None:
    assert (auth.RANDOM_CHARS - 8) * math.log2(len(auth.ALPHABET)) >= 160


def test_another_key_proves_nothing() -> None:
    key, other = auth.new_key(), auth.new_key()
    assert not auth.proves(other.text, key.hash)
    assert not auth.proves(key.text, None)
    assert not auth.proves(key.text, b"")


def test_each_mistyped_character_is_seen_without_a_look_up() -> None:
    text = auth.new_key().text
    for index, character in enumerate(text):
        wrong = text[:index] + ("a" if character != "a" else "b") + text[index + 1 :]
        assert auth.prefix_of(wrong) is None


@pytest.mark.parametrize("text", ["", "sk_live_", "sk_test_" + "a" * 46, "sk_live_" + "é" * 46, "x" * 54, "a" * 10_000])
def test_noise_is_no_key(text: str) -> None:
    assert auth.prefix_of(text) is None


def test_the_checksum_is_crc32_in_base_62() -> None:
    assert auth.checksum("123456789") == "".join(
        auth.ALPHABET[0xCBF43926 // 62**power % 62] for power in (5, 4, 3, 2, 1, 0)
    )
