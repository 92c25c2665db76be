"""The one place where the log gets its form: text for people, JSON lines for machines, and no address or secret in either.

What is logged may quote what a customer or the database said, so every finished line is redacted, tracebacks included.
"""

import contextvars
import logging
import re
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from mailrail.config import Settings

# The id under which a client knows the request that is being answered, for the length of its task.
request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("mailrail_request_id", default=None)

LITERAL_MIN_CHARS = 8

# In this order: a password stands between what looks like an address.
_PATTERNS = (
    # user:password@ of a URL
    (re.compile(r"(://[^\s/:@]*):[^\s/]+@"), r"\1:[secret]@"),
    (re.compile(r"\b(password|passwd|secret)(\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE), r"\1\2[secret]"),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s,;'\"]+", re.IGNORECASE), r"\1 [secret]"),
    (re.compile(r"\bsk_(live|test)_\w+"), r"sk_\1_[key]"),
    (re.compile(r"\bwhsec_[\w+/=-]+"), "whsec_[secret]"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1[key]"),
    # An address, also percent-encoded or with a quoted local part. Its last label begins with a letter, so that
    # user@127.0.0.1 of a database URL stays readable.
    (
        re.compile(r"(?:\"[^\"\n]{1,64}\"|[\w.!#$%&'*+/=?^`{|}~-]+)(?:@|%40)(?:[\w-]+\.)+(?=[^\W\d])[\w-]+"),
        "[address]",
    ),
)


class Redactor:
    """Takes out what looks like an address or a secret, and this installation's own secrets wherever they stand."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted(
            {secret for secret in secrets if len(secret) >= LITERAL_MIN_CHARS}, key=len, reverse=True
        )

    def __call__(self, text: str) -> str:
        """The text as it may be written down."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


class TextFormatter(logging.Formatter):
    """A line for people; the request's id stands before the message."""

    converter = time.gmtime  # type: ignore[assignment]  # typeshed takes this attribute for a method

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(name)s: %(request)s%(message)s", "%Y-%m-%dT%H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry, traceback included."""
        known = request_id.get()
        record.request = f"{known}: " if known else ""
        return self._redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """A JSON object a line: time (UTC), level, logger, message, process, and request_id and exception where there are any."""

    def __init__(self, redact: Redactor, process: str) -> None:
        super().__init__()
        self._redact = redact
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry on one line."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{second}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
            "process": self._process,
            "pid": record.process,
        }
        if (known := request_id.get()) is not None:
            entry["request_id"] = known
        if record.exc_info:
            entry["exception"] = self._redact(self.formatException(record.exc_info))
        if record.stack_info:
            entry["stack"] = self._redact(record.stack_info)
        return orjson.dumps(entry, default=str).decode()


def configure(settings: Settings, process: str) -> None:
    """The log of this process, to stderr. What nobody caught goes the same way, so that it is redacted too."""
    redact = Redactor(secrets_of(settings))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(redact, process) if settings.log_format == "json" else TextFormatter(redact))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # Its pools warn with a traceback whenever a database goes away; whoever needed the connection says so in a line.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    threading.excepthook = lambda ended: log_uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)


def log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """What Python would print as it stands."""
    if error is not None and not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("mailrail").critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def secrets_of(settings: Settings) -> set[str]:
    """Every text that would open a door of this installation."""
    urls = (settings.database_url, settings.api_database_url, settings.worker_database_url)
    passwords = {unquote(urlsplit(url).password or "") for url in urls if url}
    return {settings.secret_key, settings.ses_secret_key, settings.metrics_token, *passwords}
