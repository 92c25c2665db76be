"""The verbs of campaigns. Each runs in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from mailrail import _core
from mailrail.accounts.model import Account
from mailrail.campaigns import store
from mailrail.campaigns.model import (
    GROUPS,
    Campaign,
    CampaignDraft,
    EmptyAudience,
    Launch,
    NothingToRetry,
    Progress,
    Retry,
    ScheduleInvalid,
    Status,
    Step,
    Totals,
    Verb,
    decide,
)
from mailrail.config import Settings
from mailrail.contacts import service as contacts
from mailrail.db.pool import Connection
from mailrail.domains import service as domains
from mailrail.emails.model import SendingHeld, State
from mailrail.templates import service as templates
from mailrail.templates.model import TemplateInvalid
from mailrail.wallet import service as wallet

SAMPLE_ADDRESS = "somebody@example.com"
# What every template may use; the custom fields of the account's contacts come on top.
BUILT_IN_VARIABLES = frozenset(("firstName", "lastName", "name", "email", "unsubscribeUrl"))

BY_REQUEST = "by request"
# Clocks differ: what names a moment just gone means now.
NOW_TOLERANCE = timedelta(minutes=1)
SOON = timedelta(seconds=5)
SCHEDULE_AHEAD_MAX = timedelta(days=366)


async def create(conn: Connection, account: Account, draft: CampaignDraft, settings: Settings) -> Campaign:
    """Stores a draft; what it says is copied from its template, if it names one.

    Raises TemplateNotFound, TemplateInvalid, ListNotFound, ScheduleInvalid, and SenderNotVerified for a sender that may not
    be used.
    """
    if draft.list_id is not None:
        await contacts.require_list(conn, account.id, draft.list_id)
    if draft.from_email is not None:
        await domains.require_verified_sender(conn, account.id, draft.from_email)
    if draft.scheduled_at is not None:
        await _is_now(conn, draft.scheduled_at)
    draft = await _copied(conn, account.id, draft)
    frozen = _freeze(draft, account, settings)
    warnings = await _warn_of_unknown_variables(conn, account, frozen["variables"])
    warnings += _try_out(frozen, account, settings)
    return await store.insert_campaign(conn, account.id, draft, warnings)


async def get(conn: Connection, account_id: int, campaign_id: int) -> Campaign:
    """Raises CampaignNotFound."""
    return await store.read_campaign(conn, account_id, campaign_id)


async def page(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[Campaign]:
    """Newest first."""
    return await store.read_page(conn, account_id, limit, offset, after_id)


async def count(conn: Connection, account_id: int) -> int:
    """How many campaigns the account has."""
    return await store.count_campaigns(conn, account_id)


async def audience_count(conn: Connection, account: Account, campaign: Campaign) -> int:
    """Whom the campaign reached, or would reach if it were sent now."""
    if campaign.audience_count is not None:
        return campaign.audience_count
    return await store.count_audience(conn, account.id, campaign.list_id, campaign.tags)


async def launch(
    conn: Connection, account: Account, campaign_id: int, settings: Settings, scheduled_at: datetime | None = None
) -> Launch:
    """Starts a draft, or has it start by itself at `scheduled_at`, else at the time that the draft itself names.

    Raises CampaignNotFound, CampaignStateWrong, ScheduleInvalid, and what `schedule` and `start` raise.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    planned_at = scheduled_at or (campaign.scheduled_at if campaign.status is Status.DRAFT else None)
    decide(Verb.LAUNCH if planned_at is None else Verb.SCHEDULE, campaign.status)
    if planned_at is None or await _is_now(conn, planned_at):
        return await start(conn, account, campaign, settings)
    return await schedule(conn, account, campaign, settings, planned_at)


async def schedule(
    conn: Connection, account: Account, campaign: Campaign, settings: Settings, scheduled_at: datetime
) -> Launch:
    """Has the campaign start at that time; nothing is frozen or held until then. Audience and cost are as of today.

    Raises SenderNotVerified, NoDefaultSender: what is wrong with the sender now is better told now.
    """
    await _choose_sender(conn, account, campaign)
    recipients = await store.count_audience(conn, account.id, campaign.list_id, campaign.tags)
    planned = await store.schedule_campaign(conn, campaign, scheduled_at)
    return Launch(planned, recipients, None, recipients * _price_micros(account, settings))


async def start(conn: Connection, account: Account, campaign: Campaign, settings: Settings) -> Launch:
    """Starts a campaign that the caller has locked: content and audience frozen, shards cut, money held, doorbell queued;
    all of it or nothing.

    Raises SendingHeld, SenderNotVerified, NoDefaultSender, EmptyAudience, TemplateInvalid, InsufficientFunds, WalletFrozen.
    """
    await refuse_while_held(conn)
    # Before the audience is copied: a schedule whose wallet is frozen comes here again every second.
    await wallet.refuse_while_frozen(conn, account.id)
    sender = await _choose_sender(conn, account, campaign)
    stream_id = await store.new_stream_id(conn)
    recipients = await store.freeze_audience(conn, account.id, stream_id, campaign.list_id, campaign.tags)
    if recipients == 0:
        raise EmptyAudience
    frozen = _freeze(campaign, account, settings)
    identity = _identity(
        account,
        settings,
        stream_id=stream_id,
        list_id=campaign.list_id,
        sender=sender,
        reply_to=campaign.reply_to,
    )
    await store.insert_stream(
        conn,
        campaign,
        stream_id,
        orjson.dumps(frozen).decode(),
        orjson.dumps(identity).decode(),
        settings.shard_size,
        timedelta(seconds=settings.bounce_grace_s),
    )
    await store.insert_links(conn, account.id, stream_id, frozen["links"])
    await store.insert_shards(conn, account.id, stream_id, recipients, settings.shard_size)
    await store.ring_shards(conn, stream_id)
    held = await wallet.hold(conn, account.id, stream_id, _price_micros(account, settings), recipients)
    started = await store.start_campaign(conn, campaign, stream_id, held.id, recipients)
    return Launch(started, recipients, held.id, held.amount_micros)


async def pause(conn: Connection, account_id: int, campaign_id: int) -> Campaign:
    """Stops a campaign within one round; of a schedule, its start. Raises CampaignNotFound, CampaignStateWrong."""
    campaign = await store.read_campaign(conn, account_id, campaign_id, lock=True)
    if decide(Verb.PAUSE, campaign.status) is Step.KEEP:
        return campaign
    paused = await store.set_status(conn, campaign, Status.PAUSED, BY_REQUEST)
    if paused.stream_id is not None:
        await store.set_shard_states(conn, paused.stream_id, "paused")
    return paused


async def resume(conn: Connection, account: Account, campaign_id: int, settings: Settings) -> Campaign:
    """Goes on where the campaign was paused; a schedule waits for its time again, or starts now if that has passed.

    Raises CampaignNotFound, CampaignStateWrong, and what `start` raises.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    if decide(Verb.RESUME, campaign.status) is Step.KEEP:
        return campaign
    if campaign.stream_id is None:
        if campaign.scheduled_at is not None and campaign.scheduled_at > await store.read_clock(conn):
            return await store.schedule_campaign(conn, campaign, campaign.scheduled_at)
        return (await start(conn, account, campaign, settings)).campaign
    resumed = await store.set_status(conn, campaign, Status.SENDING, None)
    await store.set_shard_states(conn, campaign.stream_id, "sending")
    # What came in meanwhile may have closed the last recipient: the fold finds that out and completes the campaign.
    await store.refold(conn, campaign.stream_id)
    await store.ring_shards(conn, campaign.stream_id)
    return resumed


async def cancel(conn: Connection, account_id: int, campaign_id: int) -> Campaign:
    """Ends a campaign within one round: nobody gets a further attempt, and the fold releases the money of all who were not
    written to. Raises CampaignNotFound, CampaignStateWrong.
    """
    campaign = await store.read_campaign(conn, account_id, campaign_id, lock=True)
    if decide(Verb.CANCEL, campaign.status) is Step.KEEP:
        return campaign
    cancelled = await store.set_status(conn, campaign, Status.CANCELLED, BY_REQUEST)
    if cancelled.stream_id is not None:
        await store.set_shard_states(conn, cancelled.stream_id, "cancelled")
        await store.withdraw_permits(conn, cancelled.stream_id)
        await store.refold(conn, cancelled.stream_id)
    return cancelled


async def retry(
    conn: Connection, account: Account, campaign_id: int, settings: Settings, states: Sequence[State]
) -> Retry:
    """Sends again to those of `states` (FAILED, UNRESOLVED) under a new hold at today's price; a completed campaign opens
    again. Consent and suppression are checked once more when the mail goes out.

    Raises CampaignNotFound, CampaignStateWrong, SendingHeld, NothingToRetry, InsufficientFunds, WalletFrozen.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    decide(Verb.RETRY, campaign.status)
    await refuse_while_held(conn)
    assert campaign.stream_id is not None
    await store.lock_shards_with(conn, campaign.stream_id, states)
    counts = await store.count_states(conn, account.id, campaign.stream_id)
    recipients = await store.permit_retry(conn, campaign.stream_id, states)
    left_out = {state: counts[state] for state in GROUPS["failed"] if state in counts and state not in states}
    if recipients == 0:
        raise NothingToRetry(_nobody(left_out))
    await store.wake_permitted(conn, campaign.stream_id)
    await store.ring_shards(conn, campaign.stream_id)
    held = await wallet.hold(conn, account.id, campaign.stream_id, _price_micros(account, settings), recipients)
    await store.name_hold(conn, campaign.stream_id, held.id)
    reopened = await store.reopen_campaign(conn, campaign)
    return Retry(reopened, recipients, held.id, held.amount_micros, left_out)


async def refuse_while_held(conn: Connection) -> None:
    """Raises SendingHeld while an operator has to look at the installation first."""
    reason = await store.read_held_reason(conn)
    if reason is not None:
        why = f"{reason.rstrip('.')}. `mailrail doctor` tells the operator what to do."
        raise SendingHeld(f"Nothing is sent at the moment. {why}")


async def progress(conn: Connection, campaign: Campaign) -> Progress:
    """How far the send is; zeros for a draft."""
    if campaign.stream_id is None or campaign.audience_count is None:
        return Progress()
    return await store.read_progress(conn, campaign.account_id, campaign.stream_id, campaign.audience_count)


async def totals(conn: Connection, account_id: int) -> Totals:
    """Counts for the account's overview."""
    return await store.read_totals(conn, account_id)


async def _copied(conn: Connection, account_id: int, draft: CampaignDraft) -> CampaignDraft:
    """The draft with what its template says now, if it names one; a subject and a preheader of its own stay."""
    if draft.template is None:
        return draft
    version = await templates.find_one(conn, account_id, draft.template)
    content = version.content
    subject = draft.subject or content.subject
    if content.html is None:
        raise TemplateInvalid("template", None, "A campaign needs HTML, and this template has none.")
    if subject is None:
        raise TemplateInvalid("subject", None, "The template has no subject: give one beside it.")
    return replace(
        draft,
        subject=subject,
        preheader=draft.preheader or content.preheader,
        html=content.html,
        text=content.text,
        copied_from=(version.template_id, version.version),
    )


async def _is_now(conn: Connection, moment: datetime) -> bool:
    """Whether a schedule is for this moment. Raises ScheduleInvalid for one that has passed or is too far ahead."""
    now = await store.read_clock(conn)
    if moment < now - NOW_TOLERANCE:
        raise ScheduleInvalid(
            f"scheduledAt, {moment.isoformat()}, has passed. Give a later time; the present one sends at once."
        )
    if moment > now + SCHEDULE_AHEAD_MAX:
        raise ScheduleInvalid(f"scheduledAt may be at most {SCHEDULE_AHEAD_MAX.days} days ahead.")
    return moment <= now + SOON


def _price_micros(account: Account, settings: Settings) -> int:
    return account.price_micros if settings.billing else 0


def _nobody(left_out: dict[State, int]) -> str:
    others = ", ".join(f"{count} {state.name.lower()}" for state, count in left_out.items())
    return "No recipient can be tried again: nobody is failed or unresolved as asked for." + (
        f" Left out: {others}. Amazon SES accepted what is rejected or expired." if others else ""
    )


async def _choose_sender(conn: Connection, account: Account, campaign: Campaign) -> tuple[str | None, str]:
    """The campaign's own sender, checked again now, else the account's default."""
    if campaign.from_email is None:
        return await domains.default_sender(conn, account)
    await domains.require_verified_sender(conn, account.id, campaign.from_email)
    return campaign.from_name, campaign.from_email


async def _warn_of_unknown_variables(conn: Connection, account: Account, variables: list[str]) -> list[str]:
    known = BUILT_IN_VARIABLES | await contacts.field_names(conn, account.id)
    return [
        f"No contact has the field {name!r}: it is left empty in the mail." for name in variables if name not in known
    ]


def _try_out(frozen: dict[str, list[str]], account: Account, settings: Settings) -> list[str]:
    """Renders the mail for a contact of whom only the address is known, because a template may compile and never render.

    Raises TemplateInvalid where no contact could change that; where fields might, returns a warning.
    """
    identity = _identity(account, settings, stream_id=0, list_id=None, sender=(None, SAMPLE_ADDRESS), reply_to=[])
    plan = _core.Plan(orjson.dumps(frozen), orjson.dumps(identity), _core.Codec(settings.secret_key.encode()))
    sample = {"contact_id": 1, "email": SAMPLE_ADDRESS, "custom_fields": {}}
    try:
        plan.preview(orjson.dumps(sample))
    except _core.TemplateError as error:
        if not frozen["variables"]:
            raise TemplateInvalid(error.part, error.line, error.reason) from error
        where = f"{error.part}, line {error.line}" if error.line else error.part
        return [f"A contact without custom fields does not get this mail: {where}: {error.reason}"]
    return []


def _identity(
    account: Account,
    settings: Settings,
    *,
    stream_id: int,
    list_id: int | None,
    sender: tuple[str | None, str],
    reply_to: list[str],
) -> dict[str, Any]:
    """Who sends, as the core takes it."""
    return {
        "stream_id": stream_id,
        "account_id": account.id,
        "list_id": list_id or 0,
        "from_name": sender[0],
        "from_email": sender[1],
        "reply_to": reply_to,
        "configuration_set": settings.configuration_set or None,
        "base_url": settings.public_url,
        "mode": settings.wire_mode,
    }


def _freeze(message: CampaignDraft | Campaign, account: Account, settings: Settings) -> dict[str, list[str]]:
    source = {
        "subject": message.subject,
        "html": message.html,
        "text": message.text,
        "preheader": message.preheader,
        "base_url": settings.public_url,
        "track_opens": account.track_opens,
        "track_clicks": account.track_clicks,
        "postal_address": account.postal_address,
    }
    try:
        frozen: dict[str, list[str]] = orjson.loads(_core.freeze(orjson.dumps(source)))
    except _core.TemplateError as error:
        raise TemplateInvalid(error.part, error.line, error.reason) from error
    return frozen
