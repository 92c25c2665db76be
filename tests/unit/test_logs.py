"""No address and no secret gets into a log line, and a JSON line is one object."""

import logging
import sys

import orjson
import pytest

from mailrail import logs
from mailrail.config import Settings, with_role_urls
from mailrail.logs import JsonFormatter, Redactor, TextFormatter, secrets_of

KEY = "sk_live_" + "a1B2" * 11 + "xy"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("to canary@example.net failed", "to [address] failed"),
        (
            "Key (account_id, email)=(1, c.a-n+ary@mail.example.co.uk) exists",
            "Key (account_id, email)=(1, [address]) exists",
        ),
        ("<canary@example.net>,canary@xn--bcher-kva.example", "<[address]>,[address]"),
        ("jürgen@bücher.example", "[address]"),
        ('"odd one"@example.net', "[address]"),
        ("GET /api/v1/contacts?email=canary%40example.net&x=1", "GET [address]&x=1"),
        (f"key {KEY} refused", "key sk_live_[key] refused"),
        ("sk_test_abc123", "sk_test_[key]"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [secret]"),
        ("postgresql://me:p%40ss@db.example.com:5432/mail", "postgresql://me:[secret]@db.example.com:5432/mail"),
        ("postgresql://me:p@ss@127.0.0.1/mail", "postgresql://me:[secret]@127.0.0.1/mail"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw==", "whsec_[secret]"),
        ("credential AKIAIOSFODNN7EXAMPLE is", "credential AKIA[key] is"),
        ("password=hunter22 host=x", "password=[secret] host=x"),
        ("nothing to hide: 3 @ 4, a@b, user@127.0.0.1:5432", "nothing to hide: 3 @ 4, a@b, user@127.0.0.1:5432"),
    ],
)
def test_what_may_not_be_logged_is_taken_out(text: str, kept: str) -> None:
    assert Redactor()(text) == kept


def test_the_installations_own_secrets_are_known_wherever_they_stand() -> None:
    settings = with_role_urls(
        Settings(secret_key="k" * 40, database_url="postgresql://me:hunter22@h/d", metrics_token="t" * 16)
    )
    redact = Redactor(secrets_of(settings))
    for secret in ("k" * 40, "hunter22", "t" * 16, settings.ses_secret_key):
        assert redact(f"it is {secret}!") == "it is [secret]!"


def record_with_traceback() -> logging.LogRecord:
    try:
        raise ValueError(f"canary@example.net and {KEY}")
    except ValueError:
        return logging.LogRecord(
            "mailrail.x", logging.ERROR, "x.py", 1, "sent to %s", ("canary@example.net",), sys.exc_info()
        )


def test_a_json_line_has_all_and_shows_nothing() -> None:
    token = logs.request_id.set("req_1")
    try:
        line = JsonFormatter(Redactor(), "worker").format(record_with_traceback())
    finally:
        logs.request_id.reset(token)
    assert "\n" not in line
    entry = orjson.loads(line)
    assert entry["message"] == "sent to [address]"
    assert entry["time"].endswith("Z")
    assert (entry["level"], entry["logger"], entry["process"], entry["request_id"]) == (
        "error",
        "mailrail.x",
        "worker",
        "req_1",
    )
    assert "ValueError: [address] and sk_live_[key]" in entry["exception"]


def test_a_text_line_shows_nothing_either() -> None:
    text = TextFormatter(Redactor()).format(record_with_traceback())
    assert "canary" not in text
    assert KEY not in text
    assert "ERROR mailrail.x: sent to [address]" in text
    assert "req_" not in text
