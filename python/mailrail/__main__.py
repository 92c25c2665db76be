"""The command `mailrail`: processes, operator's commands, and `up`, which starts everything on one machine.

A failure that somebody can act on is one sentence on stderr and status 2; everything else is a bug and shows its traceback.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from mailrail import __version__, config
from mailrail.config import Settings
from mailrail.errors import ConfigError, MailrailError

STATUS_REFUSED = 2
STATUS_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into a sentence; returns the exit status."""
    parsed = build_parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except MailrailError as error:
        print(f"mailrail: {error}", file=sys.stderr)
        return STATUS_REFUSED
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    return status


def build_parser() -> argparse.ArgumentParser:
    """The commands, in the order in which one meets them."""
    parser = argparse.ArgumentParser(prog="mailrail", description="A self-hosted email platform on Amazon SES.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_up(commands)
    add_processes(commands)
    add_operator(commands)
    add_events(commands)
    add_backups(commands)
    add_aws(commands)
    examining = add(commands, "doctor", doctor, "check what a start needs, and say how to mend it")
    examining.add_argument(
        "--aws", action="store_true", help="also the AWS account, and the way of the events out of it"
    )
    examining.add_argument(
        "--probe", action="store_true", help="with --aws, also send a few mails to the mailbox simulator of Amazon SES"
    )
    add(commands, "settings", settings, "list every setting with its default, unit and meaning")
    add(commands, "version", version, "print the version")
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  # it has no public name


def add(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], sentence: str
) -> argparse.ArgumentParser:
    """One command."""
    parser = commands.add_parser(name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}.")
    parser.set_defaults(run=run)
    return parser


def add_up(commands: Commands) -> None:
    """`up` and its options."""
    from mailrail.up.options import add_arguments

    parser = add(commands, "up", up, "start PostgreSQL, simulator, API and worker on this machine")
    parser.epilog = "Each option is also an environment variable: MAILRAIL_UP_RECIPIENTS=500, MAILRAIL_UP_DEMO=on."
    add_arguments(parser)


def add_processes(commands: Commands) -> None:
    """The processes of an installation."""
    add(commands, "migrate", migrate, "bring the database up to date")
    api_parser = add(commands, "api", api, "serve the HTTP API")
    worker_parser = add(commands, "worker", worker, "send campaigns and apply events")
    for process in (api_parser, worker_parser):
        process.add_argument("--kafka", metavar="HOST:PORT", help="Kafka brokers (default MAILRAIL_KAFKA)")
    worker_parser.add_argument("--roles", metavar="A,B", help="which roles to run (default all)")
    stand_in = add(commands, "simulator", simulator, "run the stand-in for Amazon SES")
    stand_in.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    stand_in.add_argument("--port", type=int, default=0, help="port to listen on (default any)")
    stand_in.add_argument(
        "--directory", default="var/simulator", help="where its keys are kept (default ./var/simulator)"
    )
    stand_in.add_argument("--events-url", metavar="URL", help="where its notifications go (default none)")
    stand_in.add_argument(
        "--event-queue", metavar="NAME", help="keep its notifications in an SQS queue of its own instead"
    )
    stand_in.add_argument("--accept-log", metavar="FILE", help="append every accepted mail to this file (default none)")
    stand_in.add_argument("--max-send-rate", type=float, metavar="R", help="recipients per second that it grants")
    stand_in.add_argument("--max-24-hour-send", type=float, metavar="N", help="recipients per 24 hours that it grants")


def add_operator(commands: Commands) -> None:
    """Accounts, keys and wallets, for installations without the demo."""
    accounts = add_group(commands, "account", "tenants")
    create = add(accounts, "create", operator("create_account"), "make an account")
    create.add_argument("name")
    plans = ("starter", "professional", "enterprise", "unlimited")
    create.add_argument("--plan", default="starter", choices=plans)
    create.add_argument("--sender", metavar="EMAIL", help="default sender of its campaigns")
    add(accounts, "list", operator("list_accounts"), "list the accounts")
    change = add(accounts, "change", operator("change_account"), "change what is named, and print all of it")
    change.add_argument("account", help="id or name of the account")
    change.add_argument("--plan", choices=plans)
    change.add_argument("--sender", metavar="EMAIL", help="default sender of its campaigns")
    change.add_argument(
        "--unknown-policy",
        choices=("resend", "never_resend"),
        help="mail without an answer from SES: sent again once silence proves that it was not accepted, or given up",
    )

    keys = add_group(commands, "key", "API keys")
    create = add(keys, "create", operator("create_key"), "make a key and print it once")
    create.add_argument("account", help="id or name of the account")
    create.add_argument("--name", default="operator")
    create.add_argument("--scopes", default="full", metavar="A,B", help="what the key may do (default full)")
    create.add_argument("--test", action="store_true", help="a key whose mail never reaches SES")
    create.add_argument(
        "--operator", action="store_true", help="it may also do what operators alone may, such as adding money"
    )
    add(keys, "list", operator("list_keys"), "list an account's keys").add_argument("account", help="id or name")
    add(keys, "revoke", operator("revoke_key"), "end a key").add_argument("key", help="id of the key")

    wallets = add_group(commands, "wallet", "money")
    add(wallets, "show", operator("show_wallet"), "print a wallet").add_argument("account", help="id or name")
    deposit = add(wallets, "deposit", operator("deposit"), "add money to a wallet")
    deposit.add_argument("account", help="id or name of the account")
    deposit.add_argument("dollars", help="US dollars, such as 25 or 12.50")
    deposit.add_argument("--key", help="name of this deposit; the same name never adds money twice")

    suppressions = add_group(commands, "suppressions", "the suppression list of Amazon SES")
    add(suppressions, "sync", operator("sync_suppressions", in_steps=True), "copy the list now, all of it")
    add(suppressions, "status", operator("show_ses_list"), "how old the copy is, and what SES has not lifted yet")

    reputations = add_group(commands, "reputation", "how much of a tenant's mail bounces or is called spam")
    add(reputations, "show", operator("show_reputation"), "print how an account stands").add_argument(
        "account", help="id or name"
    )
    add(
        reputations, "release", operator("release_reputation"), "let an account send again, and count its mail anew"
    ).add_argument("account", help="id or name")


def add_events(commands: Commands) -> None:
    """What SES told and nobody could read."""
    events = add_group(commands, "events", "what SES tells")
    add(events, "parked", operator("show_parked"), "show which notifications could not be read, and why")
    replay = add(events, "replay", operator("replay_parked"), "read parked notifications again, after an upgrade")
    replay.add_argument(
        "--reason", metavar="TEXT", help="only those parked for this reason, as `events parked` prints it"
    )
    replay.add_argument("--since", metavar="MOMENT", help="only those received since, such as 2026-11-30 (UTC)")
    replay.add_argument("--limit", type=int, default=10_000, metavar="N", help="at most so many (default 10000)")


def add_aws(commands: Commands) -> None:
    """The AWS account."""
    amazon = add_group(commands, "aws", "what mailrail needs in an AWS account")
    setting_up = add(amazon, "setup", aws_setup, "show what is missing there, and with --apply make it")
    setting_up.add_argument("--apply", action="store_true", help="make the changes (default: show them)")
    printing = add(amazon, "policy", aws_policy, "print an IAM policy with the least that is needed")
    printing.add_argument("whose", choices=("run", "doctor", "setup"), help="run: of api and worker")
    printing.add_argument("--account-id", metavar="N", help="AWS account (default that of the credentials here)")
    for parser in (setting_up, printing):
        parser.add_argument(
            "--delivery",
            choices=("sqs", "https"),
            default="sqs",
            help="workers pull the events from a queue, or SNS posts them to MAILRAIL_PUBLIC_URL (default sqs)",
        )
        parser.add_argument("--topic", metavar="NAME", help="SNS topic (default that of MAILRAIL_SNS_TOPICS)")
        parser.add_argument("--queue", metavar="NAME", help="SQS queue (default MAILRAIL_EVENT_QUEUE)")


def add_backups(commands: Commands) -> None:
    """Backup, restore, and what follows a restore."""
    saving = add(commands, "backup", backup, "write the whole database into one file")
    saving.add_argument(
        "file", help="where the backup goes; a file that is there is replaced once the new one is whole"
    )
    restoring = add(commands, "restore", restore, "fill an empty database from a backup")
    restoring.add_argument("file", help="a file that `mailrail backup` wrote")
    restoring.add_argument(
        "--replace", action="store_true", help="put the backup in the place of the mailrail that the database holds now"
    )
    releasing = add(commands, "release", operator("release"), "let a held installation send again")
    releasing.add_argument(
        "--repair",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="first take from the log of accepted mail whom SES has accepted already (default on)",
    )


def add_group(commands: Commands, name: str, sentence: str) -> Commands:
    """A command that has commands."""
    parser = commands.add_parser(name, help=sentence)
    return parser.add_subparsers(required=True, metavar="COMMAND")


# —— the commands; each imports what it needs, so that `mailrail version` loads nothing ——


def up(arguments: argparse.Namespace) -> int:
    """`mailrail up`."""
    from mailrail.up.options import from_arguments
    from mailrail.up.supervisor import up as run

    return run(from_arguments(arguments, os.environ), os.environ)


def migrate(arguments: argparse.Namespace) -> int:
    """`mailrail migrate`."""
    from mailrail.db.migrate import migrate as run

    current = load(os.environ, "migrate")
    config.require(current, "database_url", "secret_key")
    done = asyncio.run(run(current.database_url, current.secret_key))
    if not done:
        print("the database is up to date")
    return 0


def api(arguments: argparse.Namespace) -> int:
    """`mailrail api`."""
    import uvloop

    from mailrail import app

    current = load(with_kafka(arguments, os.environ), "api")
    config.require_sending(current)
    config.require_database(current, "api_database_url")
    uvloop.run(app.serve(current, lambda: print("ready", flush=True)))
    return 0


def worker(arguments: argparse.Namespace) -> int:
    """`mailrail worker`."""
    import uvloop

    from mailrail import worker as process

    current = load(with_kafka(arguments, os.environ), "worker")
    config.require_sending(current)
    config.require_database(current, "worker_database_url")
    roles = chosen_roles(arguments.roles, list(process.ROLES))
    check_database(current.worker_database_url, current.secret_key)
    uvloop.run(process.serve(current, roles, lambda: print("ready", flush=True)))
    return 0


def backup(arguments: argparse.Namespace) -> int:
    """`mailrail backup`."""
    from mailrail.ops import backup as work
    from mailrail.up.installation import attached

    with attached(os.environ) as environment:
        current = load(environment, "backup")
        config.require(current, "database_url", "secret_key")
        asyncio.run(work.backup(current, Path(arguments.file)))
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """`mailrail restore`."""
    from mailrail.ops import backup as work
    from mailrail.up.installation import attached

    with attached(os.environ) as environment:
        current = load(environment, "restore")
        config.require(current, "database_url", "secret_key")
        asyncio.run(work.restore(current, Path(arguments.file), replace=arguments.replace))
    return 0


def simulator(arguments: argparse.Namespace) -> int:
    """`mailrail simulator`."""
    import orjson

    from mailrail import _core

    _core.run_simulator(orjson.dumps(simulator_options(arguments, load(os.environ, "simulator"))))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """`mailrail doctor`."""
    from mailrail.doctor import examine
    from mailrail.up.installation import attach

    environment = attach(os.environ)
    status = asyncio.run(examine(environment, aws=arguments.aws or arguments.probe))
    if arguments.aws or arguments.probe:
        from mailrail.aws import probe

        told = probe.run if arguments.probe else probe.show
        status = max(status, asyncio.run(told(load(environment, "doctor"))))
    return status


def aws_setup(arguments: argparse.Namespace) -> int:
    """`mailrail aws setup`."""
    from mailrail.aws import setup
    from mailrail.aws.model import Delivery

    delivery = Delivery(arguments.delivery)
    work = setup.setup(load(os.environ, "setup"), delivery, arguments.topic, arguments.queue, apply=arguments.apply)
    return asyncio.run(work)


def aws_policy(arguments: argparse.Namespace) -> int:
    """`mailrail aws policy`."""
    from mailrail.aws import setup
    from mailrail.aws.model import Delivery

    current, delivery = load(os.environ, "policy"), Delivery(arguments.delivery)
    names = (arguments.topic, arguments.queue)
    return asyncio.run(setup.print_policy(current, arguments.whose, arguments.account_id, delivery, *names))


def settings(arguments: argparse.Namespace) -> int:
    """`mailrail settings`."""
    print(config.describe())
    return 0


def version(arguments: argparse.Namespace) -> int:
    """`mailrail version`."""
    print(__version__)
    return 0


def operator(name: str, *, in_steps: bool = False) -> Callable[[argparse.Namespace], int]:
    """A command of `commands.py`, on a connection as the worker's role: one transaction, or several `in_steps`."""

    def run(arguments: argparse.Namespace) -> int:
        from mailrail import commands
        from mailrail.up.installation import attach

        current = load(attach(os.environ), "command")
        config.require_database(current, "worker_database_url")
        return asyncio.run(commands.run(getattr(commands, name), arguments, current, in_steps=in_steps))

    return run


# —— what several of them need ——


def with_kafka(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the brokers of the command line in it."""
    return {**environment, config.variable("kafka"): arguments.kafka} if arguments.kafka else environment


def load(environment: Mapping[str, str], process: str) -> Settings:
    """The settings, and the log of this process as they want it."""
    from mailrail import logs

    current = config.load(environment)
    logs.configure(current, process)
    return current


def check_database(url: str, secret_key: str) -> None:
    """A process starts only on a database that is reachable, migrated, and its own."""
    from mailrail.db import migrate
    from mailrail.db.pool import connect

    async def check() -> None:
        connection = await connect(url, application_name="mailrail start")
        try:
            await migrate.check_database(connection, secret_key)
        finally:
            await connection.close()

    asyncio.run(check())


def chosen_roles(text: str | None, known: list[str]) -> list[str]:
    """The roles named, or all."""
    roles = [role.strip() for role in (text or "").split(",") if role.strip()]
    for role in roles:
        if role not in known:
            raise ConfigError(f"--roles names {role!r}, and a worker knows {', '.join(known)}")
    return roles or known


def simulator_options(arguments: argparse.Namespace, current: Settings) -> dict[str, object]:
    """What the simulator is told: its place by arguments, its credentials and names by the settings of its users."""
    granted = {"max_send_rate": arguments.max_send_rate, "max_24_hour_send": arguments.max_24_hour_send}
    return {
        "host": arguments.host,
        "port": arguments.port,
        "directory": arguments.directory,
        "events_url": arguments.events_url,
        "event_queue": arguments.event_queue,
        "accept_log_file": arguments.accept_log,
        "access_key": current.ses_access_key,
        "secret_key": current.ses_secret_key,
        "region": current.ses_region,
        "configuration_sets": [current.configuration_set] if current.configuration_set else [],
        "topic_arn": current.sns_topics[0] if current.sns_topics else config.SIMULATOR_TOPIC_ARN,
        **{name: value for name, value in granted.items() if value is not None},
    }


if __name__ == "__main__":
    sys.exit(main())
