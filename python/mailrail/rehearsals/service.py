"""The verbs of a rehearsal. Each runs in the caller's transaction and changes nothing."""

import math
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from mailrail.accounts.model import Account
from mailrail.campaigns import audience, content, service, store
from mailrail.campaigns.model import (
    Campaign,
    CampaignStateWrong,
    EmptyAudience,
    Rendered,
    Status,
    Verb,
    decide,
)
from mailrail.config import Settings
from mailrail.contacts import service as contacts
from mailrail.db.pool import Connection
from mailrail.domains.model import NoDefaultSender, SenderNotVerified
from mailrail.emails import service as emails
from mailrail.emails.form import MailDraft
from mailrail.emails.mail import Mail
from mailrail.errors import MailrailError
from mailrail.rehearsals.form import Cast, TestDraft
from mailrail.rehearsals.model import HTML_SHOWN_MAX_BYTES, DryRun, Preview, Reader, reader_of
from mailrail.reputation import service as reputation
from mailrail.ses.model import Limits, seconds_to_send
from mailrail.templates.model import TemplateInvalid
from mailrail.wallet import service as wallet
from mailrail.wallet.model import InsufficientFunds, SpendCapReached, Wallet

TEST_MARK = "[Test] "


async def preview(conn: Connection, account: Account, campaign_id: int, cast: Cast, settings: Settings) -> Preview:
    """The campaign as the reader sees it; links are not tracked, and nobody is unsubscribed by them.

    Raises CampaignNotFound, ContactNotFound, TemplateInvalid.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id)
    reader = await _reader(conn, account, cast)
    frozen = content.freeze_untracked(campaign, account, settings)
    rendered = content.render(frozen, account, settings, reader.values)
    try:
        sender = await service.choose_sender(conn, account, campaign)
    except (NoDefaultSender, SenderNotVerified):
        sender = None
    warnings = await service.warn(conn, account, campaign, frozen, settings)
    unresolved = _unresolved(frozen, rendered, reader, account, settings)
    return Preview(campaign, reader, rendered, sender, unresolved, warnings)


async def prepare_test(
    conn: Connection, account: Account, campaign: Campaign, draft: TestDraft, settings: Settings
) -> list[Mail]:
    """The mail as the reader would get it, once for each address and ready to be sent; nothing in it is tracked.

    Raises ContactNotFound, TemplateInvalid, SenderNotVerified, NoDefaultSender, MailInvalid.
    """
    sender = await service.choose_sender(conn, account, campaign)
    reader = await _reader(conn, account, draft.cast)
    frozen = content.freeze_untracked(campaign, account, settings)
    rendered = content.render(frozen, account, settings, reader.values)
    untracked = replace(account, track_opens=False, track_clicks=False)
    subject = (TEST_MARK if draft.is_marked else "") + rendered.subject
    return [
        emails.prepare(_test_mail(address, subject, rendered, sender, campaign), sender, untracked, settings)
        for address in draft.to
    ]


async def dry_run(conn: Connection, account: Account, campaign_id: int, limits: Limits, settings: Settings) -> DryRun:
    """What a launch would do now, and everything that keeps it from starting; `limits` are the present ones of SES.

    Raises CampaignNotFound.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id)
    problems: list[MailrailError] = []
    if not _is_waiting(campaign):
        try:
            decide(Verb.LAUNCH, campaign.status)
        except CampaignStateWrong as error:
            problems.append(error)
    starts_at = campaign.scheduled_at if campaign.status is not Status.FAILED else None
    if campaign.status is Status.DRAFT and starts_at is not None:
        await _ask(problems, service.is_now(conn, starts_at))
    await _ask(problems, service.refuse_while_held(conn))
    await _ask(problems, wallet.refuse_while_frozen(conn, account.id))
    await _ask(problems, reputation.refuse_stopped_campaigns(conn, account.id))
    await _ask(problems, service.require_lists(conn, account.id, campaign.audience))
    sender = await _ask(problems, service.choose_sender(conn, account, campaign))
    reach = await audience.measure(conn, account.id, campaign.audience)
    price_micros = service.price_micros(account, settings)
    purse = await wallet.get(conn, account.id)
    problems += _lacks(reach.recipients, reach.recipients * price_micros, purse)
    tried = await _ask(problems, _try_out(conn, account, campaign, settings))
    mail_bytes, warnings = tried or (None, [])
    now = await store.read_clock(conn)
    return DryRun(
        campaign,
        reach,
        price_micros,
        purse.balance.available_micros,
        purse.spending.left_micros,
        _finish(max(now, starts_at or now), seconds_to_send(reach.recipients, limits)),
        sender,
        mail_bytes,
        warnings,
        problems,
    )


async def _reader(conn: Connection, account: Account, cast: Cast) -> Reader:
    if cast.contact_id is None:
        return cast.reader
    return reader_of(await contacts.get(conn, account.id, cast.contact_id))


def _unresolved(
    frozen: content.Frozen, rendered: Rendered, reader: Reader, account: Account, settings: Settings
) -> list[str]:
    """The variables in the mail for which the reader has no value. Of the built-in ones the core does not tell which are
    used: those that change the mail are.
    """
    names = {"firstName": "first_name", "lastName": "last_name", "name": "name"}
    values = reader.values
    used = [
        variable
        for variable, column in names.items()
        if not values[column] and content.render(frozen, account, settings, values | {column: "\ue000"}) != rendered
    ]
    return used + [name for name in frozen["variables"] if reader.custom_fields.get(name) is None]


def _test_mail(
    address: str, subject: str, rendered: Rendered, sender: tuple[str | None, str], campaign: Campaign
) -> MailDraft:
    """Rendered already, so without variables."""
    return MailDraft(
        to=[(None, address)],
        cc=[],
        bcc=[],
        sender=sender,
        reply_to=[(None, one) for one in campaign.reply_to],
        subject=subject,
        html=rendered.html,
        text=rendered.text,
        variables=None,
        headers={},
        tags={},
        attachments=[],
    )


def _is_waiting(campaign: Campaign) -> bool:
    """Whether it starts by itself, or would if it were not paused."""
    return campaign.stream_id is None and campaign.status in (Status.SCHEDULED, Status.PAUSED)


Answer = TypeVar("Answer")


async def _ask(problems: list[MailrailError], question: Awaitable[Answer]) -> Answer | None:
    """What it answers; what it raises is noted."""
    try:
        return await question
    except MailrailError as error:
        problems.append(error)
        return None


def _lacks(recipients: int, cost_micros: int, purse: Wallet) -> list[MailrailError]:
    """What a hold would be refused for."""
    found: list[MailrailError] = [] if recipients else [EmptyAudience()]
    left_micros, spending = purse.spending.left_micros, purse.spending
    if left_micros is not None and spending.cap_micros is not None and 0 < cost_micros > left_micros:
        found.append(SpendCapReached(spending.cap_micros, spending.spent_micros, cost_micros))
    if cost_micros > purse.balance.available_micros:
        found.append(InsufficientFunds())
    return found


async def _try_out(conn: Connection, account: Account, campaign: Campaign, settings: Settings) -> tuple[int, list[str]]:
    """The size of a mail in bytes, and what should be looked at. Raises TemplateInvalid."""
    frozen = content.freeze(campaign, account, settings)
    warnings = await service.warn(conn, account, campaign, frozen, settings)
    try:
        rendered = content.render(frozen, account, settings, Reader().values)
    except TemplateInvalid:
        # The warnings say so: a contact with custom fields may get it.
        return 0, warnings
    html_bytes = len(rendered.html.encode())
    if html_bytes > HTML_SHOWN_MAX_BYTES:
        warnings.append(
            f"The HTML has {html_bytes // 1000} KB. Gmail shows the first {HTML_SHOWN_MAX_BYTES // 1000} only."
        )
    if account.postal_address is None:
        warnings.append("The account has no postalAddress, which the law of many countries wants in such mail.")
    return html_bytes + len(rendered.text.encode()) + len(rendered.subject.encode()), warnings


def _finish(begin: datetime, seconds: float) -> datetime | None:
    return None if math.isinf(seconds) else begin + timedelta(seconds=seconds)
