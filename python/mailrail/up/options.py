"""What `mailrail up` can be told, on the command line or by `MAILRAIL_UP_…` variables; the command line wins."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailrail.config import as_bool, as_number
from mailrail.errors import ConfigError

PREFIX = "MAILRAIL_UP_"
RECIPIENTS_DEFAULT = 20_000
RECIPIENTS_MAX = 10_000_000
TIMEOUT_DEFAULT_S = 300.0
DATA_DEFAULT = Path("var")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """`recipients`, `timeout_s` and `summary` concern the demo; `port` None means the setting; `ses`, `database` and `kafka` are outside ones."""

    demo: bool = False
    recipients: int = RECIPIENTS_DEFAULT
    exit: bool = False
    timeout_s: float = TIMEOUT_DEFAULT_S
    summary: Path | None = None
    port: int | None = None
    data: Path = DATA_DEFAULT
    ses: str | None = None
    database: str | None = None
    kafka: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `up`. Defaults are None, so that a variable can fill what is not given."""
    parser.add_argument("--demo", action="store_true", default=None, help="make a demo account and send one campaign")
    parser.add_argument(
        "--recipients", metavar="N", help=f"recipients of the demo's campaign (default {RECIPIENTS_DEFAULT})"
    )
    parser.add_argument(
        "--exit", action="store_true", default=None,
        help="stop once the campaign has settled; status 0 only if nothing is open and the ledger balances",
    )  # fmt: skip
    parser.add_argument(
        "--timeout",
        metavar="S",
        help=f"give up on the demo after S seconds, with status 1 (default {TIMEOUT_DEFAULT_S:g})",
    )
    parser.add_argument(
        "--summary", metavar="FILE", help="write the demo's summary as JSON once the campaign has settled"
    )
    parser.add_argument("--port", help="port of the API (default MAILRAIL_PORT)")
    parser.add_argument("--data", metavar="DIR", help=f"folder of everything that is kept (default ./{DATA_DEFAULT})")
    parser.add_argument("--ses", metavar="URL", help="an SES endpoint to use instead of the simulator")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL to use instead of the embedded one")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="Kafka brokers to use instead of PostgreSQL's NOTIFY")


def from_arguments(arguments: argparse.Namespace, environment: Mapping[str, str]) -> UpOptions:
    """Options from both places; raises ConfigError with one sentence."""
    given = {name: value for name, value in vars(arguments).items() if name in READERS and value is not None}
    texts = from_environment(environment) | given
    values: dict[str, Any] = {}
    for name, value in texts.items():
        try:
            values[FIELDS.get(name, name)] = READERS[name](value)
        except ValueError as error:
            source = f"--{name}" if name in given else PREFIX + name.upper()
            raise ConfigError(f"{source} {error} (it is {value!r})") from None
    return UpOptions(**values)


def from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """The `MAILRAIL_UP_…` variables by option; an unknown one stops the start, an empty one is as good as none."""
    found: dict[str, object] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in READERS:
            raise ConfigError(f"{variable} is not an option of mailrail up; `mailrail up --help` lists them")
        if text.strip():
            found[name] = text.strip()
    return found


def read_flag(value: object) -> bool:
    """A flag given on the command line is True already."""
    return value if isinstance(value, bool) else as_bool(str(value))


def read_recipients(value: object) -> int:
    """A number of mails."""
    number = int(as_number(int, str(value)))
    if not 1 <= number <= RECIPIENTS_MAX:
        raise ValueError(f"must be from 1 to {RECIPIENTS_MAX}")
    return number


def read_timeout(value: object) -> float:
    """Seconds, more than none."""
    number = float(as_number(float, str(value)))
    if not 0 < number < float("inf"):
        raise ValueError("must be more than 0")
    return number


def read_port(value: object) -> int:
    """A TCP port."""
    number = int(as_number(int, str(value)))
    if not 1 <= number <= 65535:
        raise ValueError("must be from 1 to 65535")
    return number


def read_path(value: object) -> Path:
    """A path, relative to where the command was given."""
    return Path(str(value))


READERS: dict[str, Callable[[object], Any]] = {
    "demo": read_flag,
    "recipients": read_recipients,
    "exit": read_flag,
    "timeout": read_timeout,
    "summary": read_path,
    "port": read_port,
    "data": read_path,
    "ses": str,
    "database": str,
    "kafka": str,
}
FIELDS = {"timeout": "timeout_s"}
