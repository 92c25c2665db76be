"""The demo of `mailrail up`: a funded account, a verified domain, contacts, and one campaign sent for everybody to watch.

What a user would do goes through the public API with a key; what an operator would do (the account, its money, a bulk load of
contacts) goes where the operator's commands go, the database.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from mailrail._core import Codec
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Account, Plan
from mailrail.config import Settings
from mailrail.db.pool import Connection, connect, fetch_one
from mailrail.errors import StartError
from mailrail.ids import Ids, Kind
from mailrail.up import demo_contacts, summary
from mailrail.up.options import UpOptions
from mailrail.up.progress import ProgressBar, say
from mailrail.up.summary import Summary
from mailrail.wallet import service as wallet

ACCOUNT_NAME = "mailrail demo"
KEY_NAME = "mailrail up --demo"
DOMAIN = "news.example.com"
FUNDS_MIN_MICROS = 10_000_000
POLL_S = 0.25
NEWSLETTER = Path(__file__).with_name("demo_newsletter.html")
NEWSLETTER_TEXT = Path(__file__).with_name("demo_newsletter.txt")
SUBJECT = "{{ firstName or 'Hello' }}, what the {{ company }} team shipped in November"
PREHEADER = "Three releases, one story from {{ city }}, and a date to keep free"


@dataclass(frozen=True, slots=True)
class Shown:
    """How the demo went: the exit status it asks for, and whether it ran out of time."""

    status: int
    timed_out: bool = False


@dataclass(slots=True)
class Watch:
    """What was last seen of the campaign, for the message when time runs out."""

    step: str = "the account"
    progress: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stay:
    """What the demo works with: the operator's connection, the user's session, and the account between them."""

    connection: Connection
    session: aiohttp.ClientSession
    account: Account
    key: str
    settings: Settings
    ids: Ids


@dataclass(frozen=True, slots=True)
class Books:
    """The campaign's row and its hold, read where they are exact; micro-dollars."""

    submitted_at: datetime | None
    completed_at: datetime | None
    held_micros: int
    captured_micros: int
    released_micros: int
    closed_at: datetime | None


async def show(settings: Settings, address: str, options: UpOptions) -> Shown:
    """The whole demo within its time; prints all there is to see."""
    if options.summary:
        # A figure of yesterday must not be read as today's.
        options.summary.unlink(missing_ok=True)
    watch = Watch()
    try:
        async with asyncio.timeout(options.timeout_s):
            return await run(settings, address, options, watch)
    except TimeoutError:
        say(f"\nThe demo did not finish within {options.timeout_s:g} s. {describe_open(watch)}")
        return Shown(status=1, timed_out=True)


async def run(settings: Settings, address: str, options: UpOptions, watch: Watch) -> Shown:
    """Account, domain, contacts, money, campaign, figures."""
    connection = await connect(settings.worker_database_url, application_name="mailrail up --demo")
    try:
        account = await find_or_make_account(connection, settings)
        key = await replace_key(connection, account)
        async with aiohttp.ClientSession(address, headers={"Authorization": f"Bearer {key}"}) as session:
            stay = Stay(connection, session, account, key, settings, Ids(Codec(settings.secret_key.encode())))
            watch.step = "the domain"
            await verify_domain(stay)
            watch.step = "the contacts"
            list_id = await prepare_list(stay, options.recipients)
            watch.step = "the campaign"
            campaign_id = await create_campaign(stay, list_id)
            await fund(stay, options.recipients)
            figures = await send_and_watch(stay, campaign_id, options.recipients, watch)
        return await report(stay, figures, list_id, options)
    finally:
        await connection.close()


# —— what an operator does ——


async def find_or_make_account(connection: Connection, settings: Settings) -> Account:
    """The demo's account, on the plan that lets it poll."""
    for account in await accounts.accounts(connection, ACCOUNT_NAME):
        say("using the demo account of last time")
        return account
    say("making the demo account")
    async with connection.transaction():
        made = await accounts.create(connection, ACCOUNT_NAME, plan=Plan.ENTERPRISE, price_micros=settings.price_micros)
        await wallet.open_wallet(connection, made.id)
    return made


async def replace_key(connection: Connection, account: Account) -> str:
    """A new key, since an old one cannot be shown again; the one of last time ends."""
    async with connection.transaction():
        for key in await accounts.keys(connection, account.id):
            if key.name == KEY_NAME and key.revoked_at is None:
                await accounts.revoke_key(connection, key.id)
        _, text = await accounts.create_key(connection, account.id, KEY_NAME)
    return text


async def fund(stay: Stay, recipients: int) -> None:
    """Deposit what the campaign will hold and a little to play with, as far as it is not there."""
    balance = await wallet.balance(stay.connection, stay.account.id)
    missing = recipients * stay.account.price_micros + FUNDS_MIN_MICROS - balance.available_micros
    if missing > 0:
        async with stay.connection.transaction():
            await wallet.deposit(stay.connection, stay.account.id, missing, f"demo:{time.time_ns()}")


async def read_books(stay: Stay, campaign_id: str) -> Books:
    """The exact times and amounts of the campaign."""
    row = await fetch_one(
        stay.connection,
        """
        SELECT c.submitted_at, c.completed_at, coalesce(h.amount_micros, 0), coalesce(h.captured_micros, 0),
               coalesce(h.released_micros, 0), h.closed_at
        FROM campaigns AS c LEFT JOIN holds AS h ON h.id = c.hold_id
        WHERE c.account_id = $1 AND c.id = $2
        """,
        stay.account.id,
        stay.ids.find(Kind.CAMPAIGN, campaign_id),
    )
    return Books(*row)


# —— what a user does ——


async def verify_domain(stay: Stay) -> None:
    """The sending domain; the simulator verifies any."""
    domains = (await call(stay, "GET", "/api/v1/domains"))["domains"]
    known = {domain["domain"]: domain for domain in domains}
    if DOMAIN not in known:
        known[DOMAIN] = await call(stay, "POST", "/api/v1/domains", {"domain": DOMAIN})
    if known[DOMAIN]["status"] != "verified":
        answer = await call(stay, "POST", f"/api/v1/domains/{known[DOMAIN]['id']}/verify")
        if answer["status"] != "verified":
            raise StartError(f"SES does not send from {DOMAIN}: {answer['status']}")


async def prepare_list(stay: Stay, recipients: int) -> str:
    """The list of exactly this many readers; returns its public id."""
    name = f"Readers ({recipients})"
    lists = (await call(stay, "GET", "/api/v1/lists?limit=100"))["lists"]
    found = next((item for item in lists if item["name"] == name), None)
    chosen = found or await call(stay, "POST", "/api/v1/lists", {"name": name})
    say(f"preparing {recipients:,} contacts")
    made = await demo_contacts.fill_list(
        stay.connection, stay.account.id, stay.ids.find(Kind.LIST, chosen["id"]), recipients
    )
    say(f"{recipients:,} contacts are ready, {made:,} of them new")
    return str(chosen["id"])


async def create_campaign(stay: Stay, list_id: str) -> str:
    """The newsletter as a draft; returns its public id."""
    body = {
        "name": f"November newsletter ({time.strftime('%H:%M:%S')})",
        "subject": SUBJECT,
        "preheader": PREHEADER,
        "from": {"name": "Nora at Example News", "email": f"nora@{DOMAIN}"},
        "listId": list_id,
        "content": NEWSLETTER.read_text(encoding="utf-8"),
        "text": NEWSLETTER_TEXT.read_text(encoding="utf-8"),
    }
    created = await call(stay, "POST", "/api/v1/campaigns", body)
    return str(created["id"])


async def send_and_watch(stay: Stay, campaign_id: str, recipients: int, watch: Watch) -> Summary:
    """Press send, draw the bar until the last recipient and the last micro-dollar have settled, and add up."""
    begun = await stay.connection.fetchval("SELECT clock_timestamp()")
    say("sending")
    await call(stay, "POST", f"/api/v1/campaigns/{campaign_id}/launch")
    bar = ProgressBar(recipients)
    while True:
        campaign = await call(stay, "GET", f"/api/v1/campaigns/{campaign_id}")
        progress = watch.progress = campaign["progress"]
        watch.step = f"the campaign ({campaign['status']})"
        words = describe_progress(progress)
        if campaign["status"] in ("failed", "cancelled"):
            bar.close(progress["accepted"], words)
            raise StartError(f"the campaign {campaign['status']}: {campaign.get('reason') or 'no reason given'}")
        if campaign["status"] == "completed":
            books = await read_books(stay, campaign_id)
            if books.captured_micros + books.released_micros == books.held_micros:
                bar.close(progress["recipients"] - progress["open"], words)
                return add_up(stay, progress, books, begun)
        bar.show((progress["accepted"] + progress["recipients"] - progress["open"]) // 2, words)
        await asyncio.sleep(POLL_S)


async def call(stay: Stay, method: str, path: str, body: object = None) -> Any:
    """One request of the public API; an error answer ends the demo with its own words."""
    async with stay.session.request(method, path, json=body) as response:
        answer = await response.json(content_type=None)
        if response.status >= 400:
            error = answer.get("error", answer) if isinstance(answer, dict) else answer
            words = error.get("message", error) if isinstance(error, dict) else error
            raise StartError(f"{method} {path} was answered {response.status}: {words}")
        return answer


# —— the figures ——


def add_up(stay: Stay, progress: Mapping[str, int], books: Books, begun: datetime) -> Summary:
    """Counts from the API, money from the ledger, times from the database's clock."""
    settled_at = max((moment for moment in (books.completed_at, books.closed_at) if moment is not None), default=begun)
    seconds = ((books.submitted_at or settled_at) - begun).total_seconds()
    return Summary(
        base_url=stay.settings.public_url,
        api_key=stay.key,
        domain=DOMAIN,
        recipients=progress["recipients"],
        accepted=progress["accepted"],
        delivered=progress["delivered"],
        bounced=progress["bounced"],
        failed=progress["failed"],
        skipped=progress["skipped"],
        open=progress["open"],
        seconds=round(seconds, 3),
        settle_seconds=round((settled_at - begun).total_seconds(), 3),
        emails_per_second=round(progress["accepted"] / max(seconds, 0.001), 1),
        held_micros=books.held_micros,
        captured_micros=books.captured_micros,
        released_micros=books.released_micros,
    )


async def report(stay: Stay, figures: Summary, list_id: str, options: UpOptions) -> Shown:
    """Print, write, and judge."""
    say(summary.describe(figures))
    if options.summary:
        summary.write(figures, options.summary)
        say(f"  The figures are in {options.summary}.")
    found = summary.problems(figures, await wallet.audit(stay.connection))
    for problem in found:
        say(f"  Problem: {problem}.")
    if not options.exit:
        say(next_steps(stay, list_id))
    return Shown(status=1 if found else 0)


def next_steps(stay: Stay, list_id: str) -> str:
    """Where to look and what to try."""
    base = stay.settings.public_url
    return f"""  API        {base}/api/v1
  API key    {stay.key}
  Simulator  {stay.settings.ses_endpoint}/_simulator/stats

  Add a contact:
    curl -X POST {base}/api/v1/contacts \\
      -H "Authorization: Bearer {stay.key}" \\
      -H "Content-Type: application/json" \\
      -d '{{"email": "ada.{time.time_ns() // 1_000_000}@example.com", "name": "Ada Lovelace", "listId": "{list_id}"}}'
"""


def describe_progress(progress: Mapping[str, int]) -> str:
    """The words beside the bar."""
    return (
        f"accepted {progress['accepted']:,}  delivered {progress['delivered']:,}  bounced {progress['bounced']:,}  "
        f"open {progress['open']:,}"
    )


def describe_open(watch: Watch) -> str:
    """Where it stood when time ran out."""
    if not watch.progress:
        return f"It was at {watch.step}."
    return (
        f"It was at {watch.step}: {watch.progress['open']:,} recipients are open ({describe_progress(watch.progress)})."
    )
