"""The verbs of campaigns. Each runs in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta

import orjson

from mailrail.accounts.model import Account
from mailrail.campaigns import audience, content, store
from mailrail.campaigns.delivery import Delivery, choose, is_steered
from mailrail.campaigns.model import (
    CUSTOM,
    GROUPS,
    Audience,
    Campaign,
    CampaignDraft,
    CampaignStateWrong,
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
from mailrail.contacts.model import ListNotFound
from mailrail.db.pool import Connection
from mailrail.domains import service as domains
from mailrail.emails.model import SendingHeld, State
from mailrail.reputation import service as reputation
from mailrail.ses import store as ses
from mailrail.ses.limiter import name_of
from mailrail.templates import service as templates
from mailrail.templates.model import TemplateInvalid
from mailrail.wallet import service as wallet

BY_REQUEST = "by request"
KEPT = "What was sent and paid stays on record, so it cannot be deleted."
# Clocks differ: what names a moment just gone means now.
NOW_TOLERANCE = timedelta(minutes=1)
SOON = timedelta(seconds=5)
SCHEDULE_AHEAD_MAX = timedelta(days=366)


async def create(conn: Connection, account: Account, draft: CampaignDraft, settings: Settings) -> Campaign:
    """Stores a draft; what it says is copied from its template, if it names one.

    Raises TemplateNotFound, TemplateInvalid, ListNotFound, ScheduleInvalid, and SenderNotVerified for a sender that may not
    be used.
    """
    if draft.scheduled_at is not None:
        await is_now(conn, draft.scheduled_at)
    draft = await _copied(conn, account.id, draft)
    return await store.insert_campaign(conn, account.id, draft, await _check(conn, account, draft, settings))


async def open_for_change(conn: Connection, account_id: int, campaign_id: int) -> Campaign:
    """The campaign, locked until the transaction ends: what is changed is what was read.

    Raises CampaignNotFound, CampaignStateWrong.
    """
    campaign = await store.read_campaign(conn, account_id, campaign_id, lock=True)
    decide(Verb.CHANGE, campaign.status)
    return campaign


async def change(
    conn: Connection, account: Account, campaign: Campaign, draft: CampaignDraft, settings: Settings
) -> Campaign:
    """Puts the draft in the place of what a campaign that is open for change says. One that is scheduled stays so.

    Raises what `create` raises.
    """
    if draft.scheduled_at is None and campaign.status is Status.SCHEDULED:
        raise ScheduleInvalid("A scheduled campaign keeps a time. POST …/cancel takes the schedule back.")
    # A time that has passed meanwhile hinders no other change.
    if draft.scheduled_at is not None and draft.scheduled_at != campaign.scheduled_at:
        await is_now(conn, draft.scheduled_at)
    if draft.template is not None:
        draft = await _copied(conn, account.id, draft)
    elif (draft.html, draft.text) == (campaign.html, campaign.text):
        draft = replace(draft, copied_from=campaign.copied_from)
    return await store.update_campaign(conn, campaign, draft, await _check(conn, account, draft, settings))


async def delete(conn: Connection, account_id: int, campaign_id: int) -> None:
    """Forgets a campaign that nobody got. Raises CampaignNotFound, CampaignStateWrong."""
    campaign = await store.read_campaign(conn, account_id, campaign_id, lock=True)
    decide(Verb.DELETE, campaign.status)
    if campaign.stream_id is not None:
        raise CampaignStateWrong(f"This campaign is {campaign.status.shown}. {KEPT}")
    await store.delete_campaign(conn, campaign)


async def duplicate(conn: Connection, account_id: int, campaign_id: int, name: str | None) -> Campaign:
    """A new draft that says the same to the same audience, without a time. What has changed meanwhile, as a sender that may
    no longer be used, is told when it is sent. Raises CampaignNotFound.
    """
    campaign = await store.read_campaign(conn, account_id, campaign_id)
    draft = replace(draft_of(campaign), name=name or campaign.name, scheduled_at=None)
    return await store.insert_campaign(conn, account_id, draft, campaign.warnings)


def draft_of(campaign: Campaign) -> CampaignDraft:
    """What a user chose of the campaign; of a template, what was copied from it."""
    chosen = (one.name for one in fields(CampaignDraft) if one.name != "template")
    return CampaignDraft(**{name: getattr(campaign, name) for name in chosen})


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
    return await audience.count(conn, account.id, campaign.audience)


async def launch(
    conn: Connection, account: Account, campaign_id: int, settings: Settings, scheduled_at: datetime | None = None
) -> Launch:
    """Starts a draft, or has it start by itself at `scheduled_at`, else at the time that the draft itself names.

    Raises CampaignNotFound, CampaignStateWrong, ScheduleInvalid, and what `schedule` and `start` raise.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    planned_at = scheduled_at or (campaign.scheduled_at if campaign.status is Status.DRAFT else None)
    decide(Verb.LAUNCH if planned_at is None else Verb.SCHEDULE, campaign.status)
    if planned_at is None or await is_now(conn, planned_at):
        return await start(conn, account, campaign, settings)
    return await schedule(conn, account, campaign, settings, planned_at)


async def schedule(
    conn: Connection, account: Account, campaign: Campaign, settings: Settings, scheduled_at: datetime
) -> Launch:
    """Has the campaign start at that time; nothing is frozen or held until then. Audience and cost are as of today.

    Raises SenderNotVerified, NoDefaultSender, ListNotFound: what is wrong now is better told now.
    """
    await choose_sender(conn, account, campaign)
    await require_lists(conn, account.id, campaign.audience)
    recipients = await audience.count(conn, account.id, campaign.audience)
    planned = await store.schedule_campaign(conn, campaign, scheduled_at)
    return Launch(planned, recipients, None, recipients * price_micros(account, settings))


async def start(conn: Connection, account: Account, campaign: Campaign, settings: Settings) -> Launch:
    """Starts a campaign that the caller has locked: content and audience frozen, shards cut, money held, doorbell queued;
    all of it or nothing.

    Raises SendingHeld, SenderNotVerified, NoDefaultSender, ListNotFound, EmptyAudience, TemplateInvalid, InsufficientFunds,
    WalletFrozen, ReputationStopped.
    """
    await refuse_while_held(conn)
    # Before the audience is copied: a schedule whose wallet is frozen comes here again every second.
    await wallet.refuse_while_frozen(conn, account.id)
    await reputation.refuse_stopped_campaigns(conn, account.id)
    sender = await choose_sender(conn, account, campaign)
    # A list that is gone must not turn those whom it leaves out into recipients.
    await require_lists(conn, account.id, campaign.audience)
    stream_id = await store.new_stream_id(conn)
    recipients = await audience.freeze(conn, account.id, stream_id, campaign.audience)
    if recipients == 0:
        raise EmptyAudience
    frozen = content.freeze(campaign, account, settings, await domains.tracking_of(conn, account.id, sender[1]))
    lists = campaign.audience.lists
    identity = content.identity(
        account,
        settings,
        stream_id=stream_id,
        # Of several lists nobody knows which one brought the mail: who unsubscribes then leaves everything.
        list_id=lists[0] if len(lists) == 1 else None,
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
    held = await wallet.hold(conn, account.id, stream_id, price_micros(account, settings), recipients)
    delivery = await choose_delivery(conn, settings)
    started = await store.start_campaign(conn, campaign, stream_id, held.id, recipients, delivery)
    return Launch(started, recipients, held.id, held.amount_micros)


async def choose_delivery(conn: Connection, settings: Settings) -> Delivery:
    """How a campaign that starts now reaches Amazon SES."""
    if not is_steered(settings):
        return choose(settings, {}, 0.0)
    name = name_of(settings)
    return choose(settings, await ses.read_answers(conn, name), await ses.read_max_send_rate(conn, name))


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

    Raises CampaignNotFound, CampaignStateWrong, ReputationStopped, and what `start` raises.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    if decide(Verb.RESUME, campaign.status) is Step.KEEP:
        return campaign
    if campaign.stream_id is None:
        if campaign.scheduled_at is not None and campaign.scheduled_at > await store.read_clock(conn):
            return await store.schedule_campaign(conn, campaign, campaign.scheduled_at)
        return (await start(conn, account, campaign, settings)).campaign
    await reputation.refuse_stopped_campaigns(conn, account.id)
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

    Raises CampaignNotFound, CampaignStateWrong, SendingHeld, ReputationStopped, NothingToRetry, InsufficientFunds,
    WalletFrozen.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    decide(Verb.RETRY, campaign.status)
    await refuse_while_held(conn)
    await reputation.refuse_stopped_campaigns(conn, account.id)
    assert campaign.stream_id is not None
    await store.lock_shards_with(conn, campaign.stream_id, states)
    counts = await store.count_states(conn, account.id, campaign.stream_id)
    recipients = await store.permit_retry(conn, campaign.stream_id, states)
    left_out = {state: counts[state] for state in GROUPS["failed"] if state in counts and state not in states}
    if recipients == 0:
        raise NothingToRetry(_nobody(left_out))
    await store.wake_permitted(conn, campaign.stream_id)
    await store.ring_shards(conn, campaign.stream_id)
    held = await wallet.hold(conn, account.id, campaign.stream_id, price_micros(account, settings), recipients)
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


async def is_now(conn: Connection, moment: datetime) -> bool:
    """Whether a schedule is for this moment. Raises ScheduleInvalid for one that has passed or is too far ahead."""
    now = await store.read_clock(conn)
    if moment < now - NOW_TOLERANCE:
        raise ScheduleInvalid(
            f"scheduledAt, {moment.isoformat()}, has passed. Give a later time; the present one sends at once."
        )
    if moment > now + SCHEDULE_AHEAD_MAX:
        raise ScheduleInvalid(f"scheduledAt may be at most {SCHEDULE_AHEAD_MAX.days} days ahead.")
    return moment <= now + SOON


def price_micros(account: Account, settings: Settings) -> int:
    """What one recipient costs."""
    return account.price_micros if settings.billing else 0


def _nobody(left_out: dict[State, int]) -> str:
    others = ", ".join(f"{count} {state.name.lower()}" for state, count in left_out.items())
    return "No recipient can be tried again: nobody is failed or unresolved as asked for." + (
        f" Left out: {others}. Amazon SES accepted what is rejected or expired." if others else ""
    )


async def choose_sender(conn: Connection, account: Account, campaign: Campaign) -> tuple[str | None, str]:
    """The campaign's own sender, checked again now, else the account's default.

    Raises SenderNotVerified, NoDefaultSender.
    """
    if campaign.from_email is None:
        return await domains.default_sender(conn, account)
    await domains.require_verified_sender(conn, account.id, campaign.from_email)
    return campaign.from_name, campaign.from_email


async def require_lists(conn: Connection, account_id: int, wanted: Audience) -> None:
    """Raises ListNotFound unless all lists that the audience names are the account's."""
    left_out = wanted.exclude.lists if wanted.exclude else []
    for param, lists in (("listId" if len(wanted.lists) == 1 else "lists", wanted.lists), ("exclude.lists", left_out)):
        for list_id in lists:
            try:
                await contacts.require_list(conn, account_id, list_id)
            except ListNotFound as error:
                error.param = param
                raise


async def _check(conn: Connection, account: Account, draft: CampaignDraft, settings: Settings) -> list[str]:
    """What a user should know of the draft. Raises TemplateInvalid, ListNotFound, SenderNotVerified."""
    await require_lists(conn, account.id, draft.audience)
    if draft.from_email is not None:
        await domains.require_verified_sender(conn, account.id, draft.from_email)
    return await warn(conn, account, draft, content.freeze(draft, account, settings), settings)


async def warn(
    conn: Connection,
    account: Account,
    message: CampaignDraft | Campaign,
    frozen: content.Frozen,
    settings: Settings,
) -> list[str]:
    """What may be a mistake in the message. Raises TemplateInvalid where it can be rendered for nobody."""
    known = await contacts.field_names(conn, account.id)
    asked = {one.field.removeprefix(CUSTOM) for one in message.audience.conditions if one.is_custom}
    return [
        *(
            f"No contact has the field {name!r}: it is left empty in the mail."
            for name in content.unknown(frozen, known)
        ),
        *(f"No contact has the field {name!r}, which the audience asks for." for name in sorted(asked - known)),
        *content.try_out(frozen, account, settings),
    ]
