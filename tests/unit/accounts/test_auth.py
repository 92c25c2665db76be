"""The form of API keys."""

import dataclasses
import math
import re
from datetime import UTC, datetime

import pytest

from mailrail.accounts import auth
from mailrail.accounts.model import Account, Caller, Plan, UnknownPolicy


def test_a_key_has_its_form_and_proves_itself() -> None:
    key = auth.new_key()
    assert re.fullmatch("sk_live_[0-9A-Za-z]{46}", key.text)
    assert auth.prefix_of(key.text) == key.prefix == key.text[:16]
    assert auth.proves(auth.hash_of(key.text), key.hash)
    assert key.text not in repr(key)


def test_a_test_key_has_the_same_form() -> None:
    key = auth.new_key(is_test=True)
    assert re.fullmatch("sk_test_[0-9A-Za-z]{46}", key.text)
    assert auth.prefix_of(key.text) == key.prefix
    assert auth.is_test(key.text)
    assert auth.is_test(key.prefix)
    assert not auth.is_test(auth.new_key().text)
    # Its kind stands under the checksum.
    assert auth.prefix_of("sk_live_" + key.text[8:]) is None


def test_what_the_prefix_leaves_is_beyond_guessing() -> None:
    assert (auth.RANDOM_CHARS - 8) * math.log2(len(auth.ALPHABET)) >= 160


def test_another_key_proves_nothing() -> None:
    key, other = auth.new_key(), auth.new_key()
    assert not auth.proves(auth.hash_of(other.text), key.hash)
    assert not auth.proves(auth.hash_of(key.text), None)
    assert not auth.proves(auth.hash_of(key.text), b"")


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


ACCOUNT = Account(
    1, "Acme", Plan.STARTER, 300, None, None, None, True, True, UnknownPolicy.RESEND, datetime(2026, 1, 1, tzinfo=UTC)
)


def caller(account_id: int) -> Caller:
    """Somebody."""
    return Caller(dataclasses.replace(ACCOUNT, id=account_id), account_id, frozenset(), False)


def test_a_proven_key_is_trusted_for_its_time_from_the_look_up_on() -> None:
    now = 100.0
    keys = auth.ProvenKeys(trust_s=2.0, clock=lambda: now)
    looked_up_at = keys.now()
    now = 101.0
    keys.keep(b"a", caller(1), looked_up_at)
    now = 101.9
    assert keys.find(b"a") == caller(1)
    assert keys.find(b"b") is None
    now = 102.0
    assert keys.find(b"a") is None


def test_proven_keys_are_bounded_and_forgotten_by_account() -> None:
    keys = auth.ProvenKeys(trust_s=2.0, most=2, clock=lambda: 0.0)
    for number in (1, 2, 1, 3):
        keys.keep(b"%d" % number, caller(number), 0.0)
    assert [keys.find(b"%d" % number) is not None for number in (1, 2, 3)] == [True, False, True]
    keys.forget(1)
    assert [keys.find(b"%d" % number) is not None for number in (1, 3)] == [False, True]
    none = auth.ProvenKeys(trust_s=0)
    none.keep(b"a", caller(1), none.now())
    assert none.find(b"a") is None
