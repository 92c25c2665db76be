"""The operator's commands on accounts, keys and wallets. Each gets its arguments and an office to work in, and returns what to print."""

import argparse
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from mailrail import logs
from mailrail._core import Codec
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Account, AccountNotFound, KeyNotFound, Plan, Scope
from mailrail.config import Settings
from mailrail.db import migrate
from mailrail.db.pool import Connection, connect
from mailrail.emails.accepted_log import opened_log
from mailrail.errors import ConfigError
from mailrail.events import parked
from mailrail.ids import Ids, Kind
from mailrail.ops import guard
from mailrail.reputation import service as reputation
from mailrail.suppressions import ses_list
from mailrail.suppressions.handlers import copy_list
from mailrail.wallet import service as wallet
from mailrail.wallet.model import MICROS_PER_USD, dollars

SAMPLE_MAX_CHARS = 200
# Lifts of SES's list that are printed.
LIFTS_SHOWN = 20
# A walk through SES's list tells how far it is; Amazon gives about a thousand addresses a second.
PROGRESS_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Office:
    """What a command works with: a connection as the worker's role, in a transaction unless the command goes in steps, and the
    public ids.
    """

    conn: Connection
    ids: Ids
    settings: Settings


Command = Callable[[Office, argparse.Namespace], Coroutine[Any, Any, str]]


async def run(command: Command, arguments: argparse.Namespace, settings: Settings, *, in_steps: bool = False) -> int:
    """One command in one transaction, or `in_steps`, where it waits for others in between and commits by itself."""
    connection = await connect(settings.worker_database_url, application_name="mailrail command")
    try:
        await migrate.check_database(connection, settings.secret_key)
        async with nullcontext() if in_steps else connection.transaction():
            office = Office(connection, Ids(Codec(settings.secret_key.encode())), settings)
            printed = await command(office, arguments)
    finally:
        await connection.close()
    print(printed)
    return 0


async def create_account(office: Office, arguments: argparse.Namespace) -> str:
    """An account and its wallet."""
    account = await accounts.create(
        office.conn,
        arguments.name,
        plan=Plan(arguments.plan),
        price_micros=office.settings.price_micros,
        sender_email=arguments.sender,
    )
    await wallet.open_wallet(office.conn, account.id)
    return office.ids.encode(Kind.ACCOUNT, account.id)


async def list_accounts(office: Office, arguments: argparse.Namespace) -> str:
    """Id, plan and name, a line each."""
    return lines(
        (office.ids.encode(Kind.ACCOUNT, account.id), account.plan.ljust(12), account.name)
        for account in await accounts.accounts(office.conn)
    )


async def change_account(office: Office, arguments: argparse.Namespace) -> str:
    """The account as it is now, a setting a line."""
    account = await find_account(office, arguments.account)
    asked = {
        "plan": arguments.plan,
        "sender_email": arguments.sender,
        "unknown_policy": arguments.unknown_policy,
    }
    changed = await accounts.change(
        office.conn, account.id, **{name: value for name, value in asked.items() if value is not None}
    )
    return lines(
        (name.ljust(14), value)
        for name, value in (
            ("name", changed.name),
            ("plan", changed.plan),
            ("sender", changed.sender_email or "-"),
            ("unknown policy", changed.unknown_policy),
        )
    )


async def create_key(office: Office, arguments: argparse.Namespace) -> str:
    """The key's text; nobody can print it again."""
    account = await find_account(office, arguments.account)
    scopes = read_scopes(arguments.scopes)
    if arguments.operator and Scope.OPERATOR not in scopes:
        scopes.append(Scope.OPERATOR)
    _, text = await accounts.create_key(office.conn, account.id, arguments.name, scopes, is_test=arguments.test)
    return text


async def list_keys(office: Office, arguments: argparse.Namespace) -> str:
    """Id, beginning, state, scopes and name, a line each."""
    account = await find_account(office, arguments.account)
    return lines(
        (
            office.ids.encode(Kind.KEY, key.id),
            f"{key.prefix}…",
            "revoked" if key.revoked_at else "active ",
            ",".join(key.scopes),
            key.name,
        )
        for key in await accounts.keys(office.conn, account.id)
    )


async def revoke_key(office: Office, arguments: argparse.Namespace) -> str:
    """End a key; it says whose it was."""
    key_id = office.ids.decode(Kind.KEY, arguments.key)
    if key_id is None:
        raise KeyNotFound(f"there is no key {arguments.key}; `mailrail key list` shows their ids")
    key = await accounts.revoke_key(office.conn, key_id)
    return f"revoked {key.prefix}… ({key.name})"


async def show_wallet(office: Office, arguments: argparse.Namespace) -> str:
    """What can be spent and what is set aside."""
    account = await find_account(office, arguments.account)
    balance = await wallet.balance(office.conn, account.id)
    return f"available {dollars(balance.available_micros)}\nheld      {dollars(balance.held_micros)}"


async def deposit(office: Office, arguments: argparse.Namespace) -> str:
    """Add money and print the wallet."""
    account = await find_account(office, arguments.account)
    key = f"operator:{arguments.key or time.time_ns()}"
    added = await wallet.deposit(office.conn, account.id, read_dollars(arguments.dollars), key)
    note = "" if added else f"nothing was added: a deposit named {arguments.key} exists\n"
    return note + await show_wallet(office, arguments)


async def show_reputation(office: Office, arguments: argparse.Namespace) -> str:
    """How an account stands, and by what figures."""
    account = await find_account(office, arguments.account)
    found = await reputation.get(office.conn, account.id)
    figures = found.figures
    return lines(
        (name.ljust(10), value)
        for name, value in (
            ("level", found.verdict.level),
            ("mails", f"{figures.mails:,}"),
            ("bounced", f"{figures.bounced:,} ({figures.bounce_percent:.2f} %)"),
            ("complained", f"{figures.complained:,} ({figures.complaint_percent:.3f} %)"),
            ("reason", found.verdict.reason or "-"),
        )
    )


async def release_reputation(office: Office, arguments: argparse.Namespace) -> str:
    """Lets an account send again; its paused campaigns are its own to resume."""
    account = await find_account(office, arguments.account)
    before = await reputation.release(office.conn, account.id)
    return f"{account.name} was {before.level}; its mail counts from now on alone, and paused campaigns may be resumed"


async def sync_suppressions(office: Office, arguments: argparse.Namespace) -> str:
    """Copies SES's suppression list now, all of it; how many addresses it has. How far it is goes to stderr."""
    if not await ses_list.take_turn(office.conn):
        raise ConfigError("a worker is at the list of SES just now; try again in a minute")
    told_at = time.monotonic()

    def tell(told: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= PROGRESS_INTERVAL_S:
            told_at = time.monotonic()
            print(f"{told:,} addresses so far", file=sys.stderr, flush=True)

    # The pool is for what workers do by themselves; this is one connection's work.
    await copy_list(office.conn, office.settings, whole=True, tell=tell)
    return f"SES keeps mail from {await ses_list.count(office.conn):,} addresses; the copy is of now"


async def show_ses_list(office: Office, arguments: argparse.Namespace) -> str:
    """How old the copy is, and which lifts SES has not done yet."""
    copied = await ses_list.read_copy(office.conn)
    total, waiting = await ses_list.read_waiting_lifts(office.conn, LIFTS_SHOWN)
    told = [
        ("addresses", f"{await ses_list.count(office.conn):,}"),
        ("copied", f"{copied.copied_until:%Y-%m-%d %H:%M:%S} UTC" if copied.copied_until else "never"),
        ("error", copied.error or "-"),
        ("lifts", f"{total:,} wait"),
    ]
    told += [
        (
            f"{one.asked_at:%m-%d %H:%M}",
            f"{office.ids.encode(Kind.ACCOUNT, one.account_id)} {one.error or 'not tried yet'}",
        )
        for one in waiting
    ]
    return lines((name.ljust(11), value) for name, value in told)


async def release(office: Office, arguments: argparse.Namespace) -> str:
    """Lets a held installation send again, and says what to look at."""
    try:
        async with opened_log(office.settings) as accepted:
            done = await guard.release(office.conn, accepted, arguments.repair)
    except OSError as error:
        raise ConfigError(f"the log of accepted mail cannot be used: {error}") from error
    return describe_release(done, office.ids)


def describe_release(done: guard.Release, ids: Ids) -> str:
    """What was done and what is left to look at, a line each."""
    if not done.was_held:
        return "the installation is not held"
    told = ["sending goes on", f"{done.saved:,} recipients whom SES had accepted already are not mailed again"]
    for send in done.lost:
        name = (
            ids.encode(Kind.CAMPAIGN, send.campaign_id) if send.campaign_id is not None else f"stream {send.stream_id}"
        )
        told.append(
            f"{name}, first sent {send.first_at:%Y-%m-%d %H:%M} UTC to at least {send.accepted:,} recipients, is not in this database"
        )
    told += [
        f"{ids.encode(Kind.CAMPAIGN, campaign_id)} is paused: look at it, then resume or cancel it"
        for campaign_id in done.paused
    ]
    told.append("what contacts, lists and wallets changed after the backup is gone too: unsubscribes above all")
    return "\n".join(told)


async def show_parked(office: Office, arguments: argparse.Namespace) -> str:
    """How many by reason, the oldest, and one of each without its addresses."""
    redact = logs.Redactor(logs.secrets_of(office.settings))
    told = []
    for found in await parked.overview(office.conn):
        told.append(f"{found.count:>8,}  since {found.oldest_at:%Y-%m-%d %H:%M} UTC  {found.reason}")
        sample = "no body is kept" if found.sample is None else redact(found.sample)[:SAMPLE_MAX_CHARS]
        told.append(f"{'':10}{sample}")
    return "\n".join(told) or "nothing is parked"


async def replay_parked(office: Office, arguments: argparse.Namespace) -> str:
    """Puts them back before the applier, and says what that came to."""
    if arguments.limit < 1:
        raise ConfigError("--limit must be at least 1")
    replayed, left = await parked.replay(office.conn, arguments.reason, read_moment(arguments.since), arguments.limit)
    more = f"; {left:,} are left, so run it again" if left else ""
    return f"{replayed:,} notifications are read again{more}"


async def find_account(office: Office, text: str) -> Account:
    """By id or by name, if only one has it."""
    account_id = office.ids.decode(Kind.ACCOUNT, text)
    if account_id is not None:
        return await accounts.get(office.conn, account_id)
    found = await accounts.accounts(office.conn, text)
    if not found:
        raise AccountNotFound(f"there is no account {text!r}; `mailrail account list` shows all")
    if len(found) > 1:
        raise ConfigError(f"{len(found)} accounts are named {text!r}; give the id that `mailrail account list` shows")
    return found[0]


def read_scopes(text: str) -> list[Scope]:
    """The scopes named."""
    known = {scope.value: scope for scope in Scope}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"--scopes names {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def read_moment(text: str | None) -> datetime | None:
    """A day or a moment as ISO 8601 writes it; UTC unless it says otherwise."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since is {text!r}, which is no moment such as 2026-11-30 or 2026-11-30T08:15") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def read_dollars(text: str) -> int:
    """Micro-dollars, exactly: an amount that is finer is refused, not rounded."""
    try:
        micros = Decimal(text.removeprefix("$")) * MICROS_PER_USD
        if micros > 0 and micros == micros.to_integral_value() and micros < 2**62:
            return int(micros)
    except InvalidOperation:
        pass
    raise ConfigError(f"{text!r} is not an amount of US dollars such as 25 or 12.50")


def lines(rows: Any) -> str:
    """Cells with two blanks between them."""
    return "\n".join("  ".join(row) for row in rows)
