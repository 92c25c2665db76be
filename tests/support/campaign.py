"""A frozen campaign and a sender, for tests of the core without a database."""

from typing import Any

import orjson

from mailrail._core import Codec, Plan, Sender, freeze

SECRET = b"a secret of the tests, long enough to be one"
BASE_URL = "https://mail.example.com"
STREAM_ID = (2968 * 8) << 32 | 7
ACCOUNT_ID = 3
ACCESS_KEY = "mailrail-simulator"
SECRET_ACCESS_KEY = "mailrail-simulator-secret"
REGION = "us-east-1"


def make_plan(
    *,
    subject: str = "Hello {{ firstName }}",
    html: str = '<html><body><p>Hi {{ firstName }}</p><a href="https://example.com/a?b=1&amp;c=2">Go</a></body></html>',
    text: str | None = "Hi {{ firstName }}",
    preheader: str | None = None,
    mode: str = "slots",
    **identity: Any,
) -> Plan:
    """A compiled plan; `identity` overrides the sender's fields."""
    source = {
        "subject": subject,
        "html": html,
        "text": text,
        "preheader": preheader,
        "base_url": BASE_URL,
        "track_opens": True,
        "track_clicks": True,
        "postal_address": None,
    }
    stream = {
        "stream_id": STREAM_ID,
        "account_id": ACCOUNT_ID,
        "list_id": 5,
        "from_name": "Sarah at Acme",
        "from_email": "sarah@acme.example",
        "reply_to": ["help@acme.example"],
        "configuration_set": "mailrail",
        "base_url": BASE_URL,
        "mode": mode,
        **identity,
    }
    return Plan(freeze(orjson.dumps(source)), orjson.dumps(stream), Codec(SECRET))


def make_sender(endpoint: str, ca_pem: str | None = None, call_timeout_ms: int = 10_000) -> Sender:
    """A sender with the simulator's credentials."""
    options = {
        "endpoint": endpoint,
        "region": REGION,
        "ca_pem": ca_pem,
        "max_connections": 8,
        "call_timeout_ms": call_timeout_ms,
    }
    sender = Sender(orjson.dumps(options))
    sender.set_credentials(ACCESS_KEY, SECRET_ACCESS_KEY, None)
    return sender
