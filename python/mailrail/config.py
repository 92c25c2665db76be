"""Every setting of mailrail: its variable, default, unit and one sentence. Read from the environment once, at the start of a process.

A value that mailrail cannot work with stops the start with one sentence that names the variable.
"""

import dataclasses
import difflib
import hashlib
import hmac
import ipaddress
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from mailrail import failpoints
from mailrail.errors import ConfigError

PREFIX = "MAILRAIL_"
# Variables of `mailrail up`, of the tests and of the benches share our prefix but are no settings.
OTHER_PREFIXES = ("MAILRAIL_UP_", "MAILRAIL_TEST_", "MAILRAIL_BENCH_")
SECRET_KEY_MIN_CHARS = 32
TOKEN_MIN_CHARS = 16
# SES takes 870 characters of a header by its older documentation, and `List-Unsubscribe` has this, `/u/`, 71 of a token and `<>`.
PUBLIC_URL_MAX_CHARS = 700
SIMULATOR_TOPIC_ARN = "arn:aws:sns:us-east-1:123456789012:mailrail"


def setting(
    default: Any, unit: str, sentence: str, check: Callable[[Any], Any] | None = None, secret: bool = False
) -> Any:
    """A field of `Settings`: `check` returns the value to use, or raises ValueError with what is wrong ("must be …")."""
    return field(default=default, metadata={"unit": unit, "sentence": sentence, "check": check, "secret": secret})


def between(low: float, high: float) -> Callable[[Any], Any]:
    """A check that a number lies in low..high, both included; None passes."""

    def check(value: Any) -> Any:
        if value is not None and not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return check


def one_of(*words: str) -> Callable[[str], str]:
    """A check that a text is one of the words."""

    def check(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return check


def secret_text(value: str) -> str:
    """The secret may be missing, since some commands work without it, but never short."""
    if len(value) < SECRET_KEY_MIN_CHARS:
        raise ValueError(f"must have at least {SECRET_KEY_MIN_CHARS} characters")
    return value


def token_text(value: str) -> str:
    """A token that goes into a header and that nobody guesses."""
    if len(value) < TOKEN_MIN_CHARS or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"must have at least {TOKEN_MIN_CHARS} printable ASCII characters and no blank")
    return value


def database_address(value: str) -> str:
    """A PostgreSQL URL."""
    parts = split_url(value)
    if parts is None or parts.scheme not in ("postgres", "postgresql") or len(parts.path) < 2:
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return value


def web_address(value: str) -> str:
    """An http(s) URL without query, stored without a slash at the end."""
    parts = split_url(value)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must look like https://mail.example.com")
    return value.rstrip("/")


def queue_address(value: str) -> str:
    """The name of an SQS queue (letters, digits, hyphens and underscores, at most 80), or its URL."""
    parts = split_url(value)
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", value) or (parts and parts.scheme in ("http", "https") and parts.path[1:]):
        return value
    raise ValueError("must be the name of a standard queue, or a URL as SQS shows it")


def public_address(value: str) -> str:
    """A web address that fits the header which names it with a token behind it."""
    if len(value) > PUBLIC_URL_MAX_CHARS:
        raise ValueError(f"must have at most {PUBLIC_URL_MAX_CHARS} characters")
    return web_address(value)


def broker_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    """Kafka brokers."""
    for address in value:
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("must look like kafka-1.example.com:9092,kafka-2.example.com:9092")
    return value


def resolver_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    """IP addresses with ports; names would need a resolver themselves."""
    for text in value:
        host, _, port = text.rpartition(":")
        try:
            ipaddress.ip_address(host.strip("[]"))
            if not 1 <= int(port) <= 65535:
                raise ValueError
        except ValueError:
            raise ValueError("must have the form 9.9.9.9:53 or [2620:fe::fe]:53, several with commas") from None
    return value


def networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Networks in CIDR notation."""
    try:
        return tuple(str(ipaddress.ip_network(one)) for one in value)
    except ValueError:
        raise ValueError("must look like 10.20.0.0/16,fd00:1::/64, each with no bit set behind its prefix") from None


def topic_name(value: str) -> str:
    """The beginning of a name of a Kafka topic (Kafka: letters, digits, `.`, `_` and `-`, at most 249)."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", value):
        raise ValueError("must be at most 100 letters, digits, periods, hyphens and underscores")
    return value


def split_url(value: str) -> SplitResult | None:
    """The parts of a URL, or None if it has a broken host or port, which `urlsplit` tells late."""
    try:
        parts = urlsplit(value)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `load` reads them; tests make them directly."""

    database_url: str = setting(
        "",
        "URL",
        "PostgreSQL of this installation; `mailrail migrate` connects as the user in it.",
        database_address,
        secret=True,
    )
    api_database_url: str = setting(
        "",
        "URL",
        "Where `mailrail api` connects; empty means DATABASE_URL as role mailrail_api.",
        database_address,
        secret=True,
    )
    worker_database_url: str = setting(
        "",
        "URL",
        "Where `mailrail worker` connects; empty means DATABASE_URL as role mailrail_worker.",
        database_address,
        secret=True,
    )
    secret_key: str = setting(
        "",
        "text",
        "Keys for ids, tokens and database roles derive from it; never change it once mail is out.",
        secret_text,
        secret=True,
    )
    public_url: str = setting(
        "http://127.0.0.1:8025", "URL", "Base of every link in a mail, as its readers reach it.", public_address
    )
    host: str = setting("127.0.0.1", "address", "Address on which the API listens.")
    port: int = setting(8025, "port", "Port on which the API listens.", between(1, 65535))
    ses_endpoint: str = setting(
        "", "URL", "Where SES requests go; empty means Amazon's own endpoint of the region.", web_address
    )
    ses_region: str = setting("us-east-1", "region", "AWS region of SES.")
    ses_ca_file: str = setting(
        "", "path", "PEM file of the authority that signed the endpoint's certificate; empty means the usual ones."
    )
    ses_access_key: str = setting(
        "mailrail-simulator", "text", "Access key for SES_ENDPOINT; the default is the simulator's."
    )
    ses_secret_key: str = setting(
        "mailrail-simulator-secret", "text", "Secret key for SES_ENDPOINT; the default is the simulator's.", secret=True
    )
    aws_endpoint: str = setting(
        "", "URL", "Where requests to SNS, SQS and STS go; empty means Amazon's own endpoints.", web_address
    )
    dns: tuple[str, ...] = setting(
        (),
        "host:port",
        "DNS resolvers that see what domains publish, by IP address; empty means the system's, and none with a stand-in for SES.",
        resolver_addresses,
    )
    configuration_set: str = setting(
        "mailrail", "name", "SES configuration set of every mail, so that its events come back."
    )
    sns_topics: tuple[str, ...] = setting(
        (), "ARNs", "SNS topics whose notifications are accepted; all others are refused."
    )
    sns_cert_hosts: tuple[str, ...] = setting(
        (), "host:port", "Hosts beside Amazon's that may serve an SNS signing certificate."
    )
    sns_ca_file: str = setting("", "path", "PEM file of the authority that signed the hosts in SNS_CERT_HOSTS.")
    event_queue: str = setting(
        "",
        "name or URL",
        "SQS queue subscribed to the topic, which role `pull` of the workers reads; empty means that SNS posts to the API.",
        queue_address,
    )
    event_silence_s: float = setting(
        900.0,
        "seconds",
        "How long after accepted mail without any event the way of events counts as broken.",
        between(1, 86_400),
    )
    bounce_grace_s: float = setting(
        3600.0,
        "seconds",
        "How long after a bounce a hold waits for a late Delivery before it is released.",
        between(0, 30 * 86400),
    )
    shard_size: int = setting(
        5000, "recipients", "How many recipients of a campaign make one shard.", between(1, 1_000_000)
    )
    round_size: int = setting(1000, "recipients", "How many recipients a worker claims at once.", between(1, 50_000))
    shards_at_once: int = setting(3, "shards", "How many shards a worker sends side by side.", between(1, 64))
    wire_mode: str = setting(
        "slots",
        "word",
        "How campaigns reach SES: slots (SendBulkEmail) or simple (SendEmail).",
        one_of("slots", "simple"),
    )
    slots_canary: str = setting(
        "auto",
        "word",
        "Whether slots wait for a canary that was delivered: auto (with Amazon SES itself), always or never.",
        one_of("auto", "always", "never"),
    )
    canary_wait_s: float = setting(
        60.0, "seconds", "How long a canary may take to come back before its campaign stays simple.", between(0.1, 3600)
    )
    lease_s: float = setting(30.0, "seconds", "How long a worker owns a shard without renewing.", between(1, 3600))
    call_timeout_ms: int = setting(
        10_000, "milliseconds", "How long one call to SES may take; a lease must outlast it.", between(100, 60_000)
    )
    fence_s: float = setting(
        3600.0,
        "seconds",
        "How long after its lease a send without an answer waits before anything follows from the silence.",
        between(1, 86_400),
    )
    unknown_max_age_s: float = setting(
        86_400.0,
        "seconds",
        "When a send without an answer is given up as unresolved, if nothing could be proved by then.",
        between(1, 30 * 86_400),
    )
    mail_max_bytes: int = setting(
        10_000_000,
        "bytes",
        "The largest transactional mail, attachments in base64 included; Amazon SES takes 40 MB.",
        between(1_000, 40_000_000),
    )
    mail_max_age_s: float = setting(
        7200.0,
        "seconds",
        "The same for transactional mail, which is of no use when it comes a day late.",
        between(1, 30 * 86_400),
    )
    event_lag_max_s: float = setting(
        60.0,
        "seconds",
        "How far behind the applier of events may be while silence still proves something.",
        between(0.1, 3600),
    )
    schedule_max_delay_s: float = setting(
        6 * 3600.0,
        "seconds",
        "A scheduled campaign that is later than this pauses and asks instead of sending.",
        between(60, 30 * 86_400),
    )
    kafka: tuple[str, ...] = setting(
        (),
        "host:port",
        "Kafka brokers that carry doorbells between processes; empty means PostgreSQL does.",
        broker_addresses,
    )
    kafka_prefix: str = setting(
        "mailrail",
        "name",
        "Begins the names of our Kafka topics and groups, so that installations can share brokers.",
        topic_name,
    )
    accepted_log: str = setting(
        "",
        "path",
        "File that keeps the ids of accepted mail outside the database, to notice a restored backup; Kafka keeps them where KAFKA is set.",
    )
    proxies: int = setting(
        0,
        "count",
        "Reverse proxies before the API, whose X-Forwarded-For tells a reader's address; 0 believes none.",
        between(0, 10),
    )
    worker_port: int = setting(
        0, "port", "Port of /healthz, /readyz and /metrics of a worker; 0 means none.", between(0, 65535)
    )
    metrics_token: str = setting(
        "",
        "text",
        "Bearer token that /metrics asks for; without one the API shows it only while PUBLIC_URL is this machine alone.",
        token_text,
        secret=True,
    )
    import_max_bytes: int = setting(
        500_000_000, "bytes", "The largest upload of contacts.", between(1024, 100_000_000_000)
    )
    webhook_networks: tuple[str, ...] = setting(
        (), "CIDR", "Networks beside the public internet that webhooks may reach.", networks
    )
    bounce_percent_max: float = setting(
        4.0,
        "percent",
        "A tenant of whose mail so much bounces for good sends no campaigns; SES reviews its account at 5.",
        between(0.1, 100),
    )
    complaint_percent_max: float = setting(
        0.08,
        "percent",
        "The same for mail that is called spam; SES reviews its account at 0.1.",
        between(0.001, 100),
    )
    mail_bounce_percent_max: float = setting(
        8.0,
        "percent",
        "A tenant of whose mail so much bounces for good sends nothing; SES stops the whole account at 10.",
        between(0.1, 100),
    )
    mail_complaint_percent_max: float = setting(
        0.4,
        "percent",
        "The same for mail that is called spam; SES stops the whole account at 0.5.",
        between(0.001, 100),
    )
    reputation_mails_min: int = setting(
        500, "mails", "A tenant with fewer mails in the last 30 days is not judged.", between(1, 1_000_000)
    )
    ses_list_interval_s: float = setting(
        600.0, "seconds", "How often the suppression list of SES is copied; 0 means never.", between(0, 86_400)
    )
    soft_bounces_max: int = setting(
        5, "mails", "An address that so many mails came back from within 30 days gets no more.", between(2, 1000)
    )
    soft_bounce_days_min: int = setting(
        3, "days", "On how many different days of them, so that one bad day is not enough.", between(1, 30)
    )
    price_micros: int = setting(300, "micro-dollars", "Price of one delivered email.", between(0, 1_000_000_000))
    billing: bool = setting(True, "on/off", "Whether sends need money in the wallet.")
    max_send_rate: float | None = setting(
        None,
        "recipients per second",
        "Overrides the rate that SES grants the account; empty means what SES says.",
        between(0.01, 1e7),
    )
    retention_weeks: int = setting(
        26, "weeks", "How long the records of each recipient of a campaign are kept.", between(1, 1040)
    )
    log_format: str = setting(
        "text", "word", "Form of the log: text for people, json for machines.", one_of("text", "json")
    )
    log_level: str = setting("info", "word", "Least level that is logged.", one_of("debug", "info", "warning", "error"))


def variable(name: str) -> str:
    """The environment variable of a field: `port` → `MAILRAIL_PORT`."""
    return PREFIX + name.upper()


def load(environment: Mapping[str, str]) -> Settings:
    """Settings from the environment; raises ConfigError on the first value that is bad or name that is unknown."""
    refuse_unknown(environment)
    hints = typing.get_type_hints(Settings)
    values = {
        item.name: parse(item.name, hints[item.name], environment[variable(item.name)], item.metadata["check"])
        for item in dataclasses.fields(Settings)
        # An empty variable is as good as none: compose files write them.
        if environment.get(variable(item.name), "").strip()
    }
    settings = with_role_urls(Settings(**values))
    check_together(settings)
    return settings


def check_together(settings: Settings) -> None:
    """What no single value shows."""
    if settings.call_timeout_ms >= settings.lease_s * 1000:
        raise ConfigError(
            f"MAILRAIL_LEASE_S must be longer than MAILRAIL_CALL_TIMEOUT_MS (they are {settings.lease_s:g} s and "
            f"{settings.call_timeout_ms} ms): no call is made that could outlive its lease"
        )


def parse(name: str, kind: Any, text: str, check: Callable[[Any], Any] | None) -> Any:
    """One variable's text as the field's type, checked."""
    try:
        value = convert(kind, text.strip())
        return check(value) if check else value
    except ValueError as error:
        raise ConfigError(f"{variable(name)} {error} (it is {shown(name, text)})") from None


def convert(kind: Any, text: str) -> Any:
    """Text as one of the few types that settings have; the ValueError says what is expected."""
    if kind is str:
        return text
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        return as_bool(text)
    if kind == float | None:
        return as_number(float, text)
    return as_number(kind, text)


def as_bool(text: str) -> bool:
    """on/off in the usual spellings."""
    if text.lower() in ("on", "1", "true", "yes"):
        return True
    if text.lower() in ("off", "0", "false", "no"):
        return False
    raise ValueError("must be on or off")


def as_number(kind: type[int] | type[float], text: str) -> int | float:
    """A number; "must be a whole number" instead of Python's own words."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError("must be a whole number" if kind is int else "must be a number") from None


def shown(name: str, text: str) -> str:
    """A value as an error message may show it: secrets are not repeated."""
    metadata = {item.name: item.metadata for item in dataclasses.fields(Settings)}[name]
    return f"{len(text)} characters long" if metadata["secret"] else repr(text)


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """A misspelt variable would leave a default in place silently, so it stops the start."""
    known = {variable(item.name) for item in dataclasses.fields(Settings)}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not name.startswith(OTHER_PREFIXES):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`mailrail settings` lists them."
            raise ConfigError(f"{name} is not a setting of mailrail; {hint}")


def with_role_urls(settings: Settings) -> Settings:
    """Fill in the URLs of the two login roles from `database_url` and the secret, where they are not given."""
    if not settings.database_url or not settings.secret_key:
        return settings
    return dataclasses.replace(
        settings,
        api_database_url=settings.api_database_url
        or role_url(settings.database_url, "mailrail_api", settings.secret_key),
        worker_database_url=settings.worker_database_url
        or role_url(settings.database_url, "mailrail_worker", settings.secret_key),
    )


def role_url(database_url: str, role: str, secret_key: str) -> str:
    """The same server and database as `database_url`, as a login role with its derived password."""
    parts = urlsplit(database_url)
    server = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role)}:{role_password(secret_key, role)}@{server}"))


def role_password(secret_key: str, role: str) -> str:
    """A login role's password: nothing to store, and the same in every process that has the secret."""
    return hmac.new(secret_key.encode(), f"mailrail v1 db {role}".encode(), hashlib.sha256).hexdigest()


def require(settings: Settings, *names: str) -> None:
    """Stop unless each of the named settings has a value."""
    for name in names:
        if not getattr(settings, name):
            sentence = {item.name: item.metadata["sentence"] for item in dataclasses.fields(Settings)}[name]
            raise ConfigError(f"{variable(name)} is not set. {sentence}")


def require_database(settings: Settings, name: str) -> None:
    """Stop unless the secret and the URL of a login role are there, given or derived."""
    require(settings, "secret_key")
    if not getattr(settings, name):
        raise ConfigError(f"MAILRAIL_DATABASE_URL is not set, and {variable(name)} is not either")


def sends_to_aws(settings: Settings) -> bool:
    """Whether mail leaves for Amazon itself and not for a stand-in."""
    # A name with its final period is the same host.
    host = (urlsplit(settings.ses_endpoint).hostname or "").rstrip(".")
    return not host or host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def dns_servers(settings: Settings) -> list[tuple[str, int]]:
    """(address, port) of the resolvers that the settings name."""
    named = (text.rpartition(":") for text in settings.dns)
    return [(host.strip("[]"), int(port)) for host, _, port in named]


def ses_endpoint(settings: Settings) -> str:
    """Where SES requests go (SES endpoints and quotas: email.REGION.amazonaws.com)."""
    return settings.ses_endpoint or f"https://email.{settings.ses_region}.amazonaws.com"


# A signature is good for 5 minutes, and a clock may be 5 minutes fast (reference: AWS Signature Version 4, expiry).
AWS_FENCE_MIN_S = 900.0


def require_sending(settings: Settings) -> None:
    """Stop unless mail that is sent with these settings can be followed by its readers and settled by its events."""
    if not sends_to_aws(settings):
        return
    if failpoints.is_armed():
        raise ConfigError(
            f"{failpoints.FAILPOINTS} ends processes by chance, for tests; unset it to send through Amazon SES"
        )
    if settings.fence_s < AWS_FENCE_MIN_S:
        raise ConfigError(
            f"MAILRAIL_FENCE_S must be at least {AWS_FENCE_MIN_S:g} with Amazon SES (it is {settings.fence_s:g}): until then "
            "SES may still accept a request that was signed before"
        )
    if is_loopback(urlsplit(settings.public_url).hostname or ""):
        raise ConfigError(
            f"MAILRAIL_PUBLIC_URL is {settings.public_url}, which no reader of a mail can reach; set the address under which "
            "this installation answers from outside"
        )
    if urlsplit(settings.public_url).scheme != "https":
        raise ConfigError(
            f"MAILRAIL_PUBLIC_URL is {settings.public_url} and must begin with https:// to send through Amazon SES: mail programs "
            "show their button to unsubscribe, which Gmail and Yahoo demand, for https alone (RFC 8058)"
        )


def is_loopback(host: str) -> bool:
    """Whether the host is this machine alone."""
    if host.rstrip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def describe() -> str:
    """The table that `mailrail settings` prints: variable, default, unit and sentence, one setting a line."""
    rows = [
        (variable(item.name), default_text(item.default), item.metadata["unit"], item.metadata["sentence"])
        for item in dataclasses.fields(Settings)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def default_text(value: Any) -> str:
    """A default as one would write it into the environment; `-` for none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value not in ("", (), None) else "-"
