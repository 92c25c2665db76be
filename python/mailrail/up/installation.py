"""The data directory of `mailrail up`: its lock, its secret, its ports, and the environment that the children get from it."""

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from mailrail import config
from mailrail.config import Settings
from mailrail.errors import ConfigError, MailrailError, StartError
from mailrail.up import postgres
from mailrail.up.options import DATA_DEFAULT, UpOptions
from mailrail.up.options import PREFIX as OPTIONS_PREFIX
from mailrail.up.ports import choose_port, is_free
from mailrail.up.postgres import SUPERUSER, remembered

# The bounce grace of the demo: long enough for a late Delivery of the simulator, short enough to watch.
DEMO_BOUNCE_GRACE_S = "2"
DATABASE = "mailrail"


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """One supervisor per data directory. The lock goes with the process, however it ends."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "lock").open("a+")
    except OSError as error:
        raise ConfigError(f"--data {home} cannot be used: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StartError(
                f"another `mailrail up` (process {file.read().strip() or 'unknown'}) runs on {home}; stop it, or choose another "
                "folder with --data"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def complete_environment(options: UpOptions, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of all children: what `up` was told, then what it decides where the caller said nothing.

    Everything goes through variables, so that the children are started exactly as an operator would start them.
    """
    told = {
        "MAILRAIL_PORT": options.port and str(options.port),
        "MAILRAIL_DATABASE_URL": options.database,
        "MAILRAIL_SES_ENDPOINT": options.ses,
        "MAILRAIL_KAFKA": options.kafka,
    }
    # An empty variable is as good as none, and must not hide what `up` decides.
    given = {name: value for name, value in environment.items() if value and not name.startswith(OPTIONS_PREFIX)}
    given |= {name: value for name, value in told.items() if value}
    settings = config.load(given)
    decided = {
        "PYTHONUNBUFFERED": "1",
        "MAILRAIL_SECRET_KEY": settings.secret_key or kept_secret(options.data),
        "MAILRAIL_PUBLIC_URL": f"http://{reachable(settings.host)}:{settings.port}",
        "MAILRAIL_ACCEPTED_LOG": str(accepted_log(options.data)),
        "MAILRAIL_WORKER_PORT": str(choose_port(options.data / "worker-port")),
    }
    if options.demo:
        decided["MAILRAIL_BOUNCE_GRACE_S"] = DEMO_BOUNCE_GRACE_S
    if is_simulated(options, environment):
        decided |= simulator_environment(options.data, choose_port(options.data / "simulator-port"))
    return decided | given


def simulator_environment(home: Path, port: int) -> dict[str, str]:
    """Sending to the simulator of this data directory, and its signed notifications back."""
    authority = str(simulator_directory(home) / "ca.pem")
    return {
        "MAILRAIL_SES_ENDPOINT": f"https://127.0.0.1:{port}",
        "MAILRAIL_SES_CA_FILE": authority,
        "MAILRAIL_SNS_TOPICS": config.SIMULATOR_TOPIC_ARN,
        "MAILRAIL_SNS_CERT_HOSTS": f"127.0.0.1:{port}",
        "MAILRAIL_SNS_CA_FILE": authority,
    }


def without_superuser(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """For the children that connect as the login roles: only `migrate` gets the URL that may do more."""
    return {name: value for name, value in environment.items() if name != "MAILRAIL_DATABASE_URL"} | {
        "MAILRAIL_API_DATABASE_URL": settings.api_database_url,
        "MAILRAIL_WORKER_DATABASE_URL": settings.worker_database_url,
    }


def is_simulated(options: UpOptions, environment: Mapping[str, str]) -> bool:
    """Whether `up` brings its own SES stand-in: unless somebody names an endpoint."""
    return not (options.ses or environment.get("MAILRAIL_SES_ENDPOINT", "").strip())


def simulator_directory(home: Path) -> Path:
    """Where the simulator keeps its authority and keys."""
    return home / "simulator"


def accepted_log(home: Path) -> Path:
    """Where the ids of accepted mail are kept: beside the database, never in it."""
    return home / "accepted" / "log"


def kept_secret(home: Path) -> str:
    """The secret of this data directory, made at the first start."""
    return remembered(home / "secret", lambda: secrets.token_urlsafe(48))


def reachable(host: str) -> str:
    """An address under which this machine reaches a listener on `host`, fit for a URL."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def check_port(settings: Settings) -> None:
    """Say so before anything is started if the API's port is taken."""
    if ":" not in settings.host and not is_free(settings.port, settings.host):
        raise StartError(
            f"port {settings.port} on {settings.host} is in use or not ours to use; choose another one with --port"
        )


async def check_ses(settings: Settings) -> None:
    """Say so before anything is started if the endpoint that somebody named does not answer to our keys."""
    # The SDK takes a while to load, and only an outside endpoint needs it here.
    from mailrail.ses import control

    try:
        await control.get_account(settings)
    except MailrailError as error:
        raise StartError(
            f"SES at {settings.ses_endpoint} cannot be used: {str(error).rstrip('.')}; check the address (--ses or "
            "MAILRAIL_SES_ENDPOINT), MAILRAIL_SES_CA_FILE and the keys"
        ) from error


@contextlib.contextmanager
def attached(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """As `attach`; where `mailrail up` does not run on the folder, its PostgreSQL runs for the length of the block.

    For commands that need the database and none of the processes. Raises StartError.
    """
    found = attach(environment)
    home = home_of(environment)
    if is_named(environment) or is_locked(home):
        yield found
        return
    with locked(home):
        cluster, child = postgres.start(postgres.prepare(home))
        try:
            asyncio.run(postgres.ensure_database(cluster, DATABASE))
            yield attach(environment)
        finally:
            postgres.stop(child)


def is_named(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a database."""
    return any(environment.get(name) for name in ("MAILRAIL_DATABASE_URL", "MAILRAIL_WORKER_DATABASE_URL"))


def is_locked(home: Path) -> bool:
    """Whether a supervisor runs on the folder."""
    try:
        with locked(home):
            return False
    except StartError:
        return True


def home_of(environment: Mapping[str, str]) -> Path:
    """The folder of `mailrail up`."""
    return Path(environment.get(f"{OPTIONS_PREFIX}DATA", "") or DATA_DEFAULT).resolve()


def attach(environment: Mapping[str, str]) -> dict[str, str]:
    """For the operator's commands: where no database is named, the installation that `mailrail up` runs in this folder."""
    home = home_of(environment)
    given = {name: value for name, value in environment.items() if value and not name.startswith(OPTIONS_PREFIX)}
    if is_named(given):
        return given
    names = ("postgres-password", "postgres-port", "secret", "simulator-port", "worker-port")
    kept = {name: kept_text(home / name) for name in names}
    if not (kept["postgres-password"] and kept["postgres-port"]):
        return given
    found = {
        "MAILRAIL_DATABASE_URL": f"postgresql://{SUPERUSER}:{kept['postgres-password']}@127.0.0.1:{kept['postgres-port']}/{DATABASE}",
        "MAILRAIL_SECRET_KEY": kept["secret"],
        "MAILRAIL_WORKER_PORT": kept["worker-port"],
        "MAILRAIL_ACCEPTED_LOG": str(accepted_log(home)),
    }
    if kept["simulator-port"]:
        found |= simulator_environment(home, int(kept["simulator-port"]))
    return {name: value for name, value in found.items() if value} | given


def kept_text(file: Path) -> str:
    """What a file of the data directory holds, or nothing."""
    return file.read_text().strip() if file.exists() else ""
