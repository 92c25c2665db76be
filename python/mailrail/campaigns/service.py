"""The verbs of campaigns. Each runs in the caller's transaction."""

from datetime import timedelta
from typing import Any

import orjson

from mailrail import _core
from mailrail.accounts.model import Account
from mailrail.campaigns import store
from mailrail.campaigns.model import (
    AlreadySent,
    Campaign,
    CampaignDraft,
    EmptyAudience,
    Launch,
    Progress,
    Status,
    TemplateInvalid,
    Totals,
)
from mailrail.config import Settings
from mailrail.contacts import service as contacts
from mailrail.db.pool import Connection
from mailrail.domains import service as domains
from mailrail.wallet import service as wallet

SAMPLE_ADDRESS = "somebody@example.com"
# What every template may use; the custom fields of the account's contacts come on top.
BUILT_IN_VARIABLES = frozenset(("firstName", "lastName", "name", "email", "unsubscribeUrl"))


async def create(conn: Connection, account: Account, draft: CampaignDraft, settings: Settings) -> Campaign:
    """Stores a draft. Raises TemplateInvalid, ListNotFound, and SenderNotVerified for a sender that may not be used."""
    if draft.list_id is not None:
        await contacts.require_list(conn, account.id, draft.list_id)
    if draft.from_email is not None:
        await domains.require_verified_sender(conn, account.id, draft.from_email)
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


async def launch(conn: Connection, account: Account, campaign_id: int, settings: Settings) -> Launch:
    """Starts a draft: content and audience frozen, shards cut, money held, doorbell queued; all of it or nothing.

    Raises CampaignNotFound, AlreadySent, SenderNotVerified, NoDefaultSender, EmptyAudience, InsufficientFunds.
    """
    campaign = await store.read_campaign(conn, account.id, campaign_id, lock=True)
    if campaign.status is not Status.DRAFT:
        raise AlreadySent
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
    price_micros = account.price_micros if settings.billing else 0
    held = await wallet.hold(conn, account.id, stream_id, price_micros, recipients)
    started = await store.start_campaign(conn, campaign, stream_id, held.id, recipients)
    return Launch(started, held.id, held.amount_micros)


async def progress(conn: Connection, campaign: Campaign) -> Progress:
    """How far the send is; zeros for a draft."""
    if campaign.stream_id is None or campaign.audience_count is None:
        return Progress()
    return await store.read_progress(conn, campaign.account_id, campaign.stream_id, campaign.audience_count)


async def totals(conn: Connection, account_id: int) -> Totals:
    """Counts for the account's overview."""
    return await store.read_totals(conn, account_id)


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
