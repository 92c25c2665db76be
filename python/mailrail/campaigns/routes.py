"""/api/v1/campaigns and /api/v1/stats."""

from dataclasses import asdict
from typing import Any

from sanic.response import HTTPResponse

from mailrail import failpoints
from mailrail.accounts.model import Account
from mailrail.campaigns import form, service
from mailrail.campaigns.model import Campaign, CampaignDraft, Launch, TemplateInvalid
from mailrail.config import Settings
from mailrail.contacts import service as contacts
from mailrail.contacts.model import ListNotFound
from mailrail.db.pool import transaction
from mailrail.domains import service as domains
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.pages import page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none, shown_usd

PARAMS = {"html": "content"}


async def create(request: Request) -> HTTPResponse:
    """POST /api/v1/campaigns: a draft."""
    fields = Fields(read_object(request))
    draft = read_draft(fields, request.app.ctx.ids)
    fields.finish()
    campaign, audience_count = await save_draft(request, draft, PARAMS)
    return answer(_shown(campaign, audience_count, request), 201)


async def page(request: Request) -> HTTPResponse:
    """GET /api/v1/campaigns, newest first. Audiences of drafts are counted when one of them is asked for."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.CAMPAIGN, ctx.ids)
    async with transaction(ctx.pool, account_id) as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    items = [_shown(campaign, campaign.audience_count, request) for campaign in found]
    return answer(page_answer("campaigns", items, asked, total))


async def get(request: Request, campaign_id: str) -> HTTPResponse:
    """GET /api/v1/campaigns/:id, with how far it is."""
    ctx, account = request.app.ctx, request.ctx.account
    async with transaction(ctx.pool, account.id) as conn:
        campaign = await service.get(conn, account.id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        audience_count = await service.audience_count(conn, account, campaign)
        progress = await service.progress(conn, campaign)
    return answer({**_shown(campaign, audience_count, request), "progress": asdict(progress)})


async def launch(request: Request, campaign_id: str) -> HTTPResponse:
    """POST /api/v1/campaigns/:id/launch: sends the draft."""
    started = await launch_campaign(request, campaign_id)
    campaign = started.campaign
    return answer(
        {
            "success": True,
            "status": campaign.status.shown,
            "id": request.app.ctx.ids.encode(Kind.CAMPAIGN, campaign.id),
            "audienceCount": campaign.audience_count,
            "cost": cost(started, request.app.ctx.ids),
            "sentAt": shown_time_or_none(campaign.sent_at),
        }
    )


async def stats(request: Request) -> HTTPResponse:
    """GET /api/v1/stats: the account at a glance."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with transaction(ctx.pool, account_id) as conn:
        totals = await service.totals(conn, account_id)
        contact_count = await contacts.count(conn, account_id)
        domain_count = await domains.count(conn, account_id)
    return answer(
        {
            "contacts": contact_count,
            "campaigns": {"total": totals.total, "sending": totals.sending, "completed": totals.completed},
            "emailsThisMonth": totals.emails_this_month,
            "domains": domain_count,
        }
    )


# —— what both dialects do with a request ———————————————————————————————————————————————————————————————————————————————


async def save_draft(request: Request, draft: CampaignDraft, params: dict[str, str]) -> tuple[Campaign, int]:
    """Stores the draft and counts whom it would reach. `params` has the names of fields that differ in the dialect."""
    ctx, account = request.app.ctx, request.ctx.account
    try:
        async with transaction(ctx.pool, account.id) as conn:
            campaign = await service.create(conn, account, draft, ctx.settings)
            return campaign, await service.audience_count(conn, account, campaign)
    except (TemplateInvalid, ListNotFound) as error:
        raise form.blame_field(error, params) from error


async def launch_campaign(request: Request, campaign_id: str) -> Launch:
    """Sends the campaign of this public id."""
    ctx, account = request.app.ctx, request.ctx.account
    # No field is known: an option that would be ignored must not look like one that was obeyed.
    Fields(read_object(request)).finish()
    with failpoints.span("ledger"):
        async with transaction(ctx.pool, account.id) as conn:
            started = await service.launch(conn, account, ctx.ids.find(Kind.CAMPAIGN, campaign_id), ctx.settings)
            failpoints.hit("launch.held", stream_id=started.campaign.stream_id)
        failpoints.hit("launch.committed", stream_id=started.campaign.stream_id)
    return started


def estimated_micros(account: Account, settings: Settings, audience_count: int) -> int:
    """What sending to so many would cost; micro-dollars."""
    return audience_count * account.price_micros if settings.billing else 0


def cost(started: Launch, ids: Ids) -> dict[str, Any]:
    """What a send has set aside."""
    return {
        "estimated": shown_usd(started.amount_micros),
        "estimatedMicros": started.amount_micros,
        "currency": "USD",
        "holdId": ids.encode(Kind.HOLD, started.hold_id),
    }


def read_draft(fields: Fields, ids: Ids) -> CampaignDraft:
    """The fields of POST /api/v1/campaigns; `content` is the HTML. Without `listId` and `tags` it reaches everybody."""
    from_name, from_email = form.read_sender(fields)
    list_id, tags = form.read_audience(fields, ids)
    return CampaignDraft(
        name=fields.required_text("name", form.NAME_MAX_CHARS),
        subject=fields.required_text("subject", form.SUBJECT_MAX_CHARS),
        html=fields.required_text("content", form.PART_MAX_CHARS, lines=True),
        preheader=fields.text("preheader", form.PREHEADER_MAX_CHARS),
        text=fields.text("text", form.PART_MAX_CHARS, lines=True),
        from_name=from_name,
        from_email=from_email,
        reply_to=fields.addresses("replyTo", form.REPLY_TO_MAX),
        list_id=list_id,
        tags=tags,
    )


def _shown(campaign: Campaign, audience_count: int | None, request: Request) -> dict[str, Any]:
    ids, settings = request.app.ctx.ids, request.app.ctx.settings
    micros = None if audience_count is None else estimated_micros(request.ctx.account, settings, audience_count)
    return {
        "id": ids.encode(Kind.CAMPAIGN, campaign.id),
        "name": campaign.name,
        "status": campaign.status.shown,
        "reason": campaign.reason,
        "subject": campaign.subject,
        "preheader": campaign.preheader,
        "from": None if campaign.from_email is None else {"name": campaign.from_name, "email": campaign.from_email},
        "replyTo": campaign.reply_to,
        "listId": ids.encode_optional(Kind.LIST, campaign.list_id),
        "tags": campaign.tags,
        "audienceCount": audience_count,
        "estimatedCost": None if micros is None else shown_usd(micros),
        "estimatedCostMicros": micros,
        "warnings": campaign.warnings,
        "createdAt": shown_time(campaign.created_at),
        "sentAt": shown_time_or_none(campaign.sent_at),
        "submittedAt": shown_time_or_none(campaign.submitted_at),
        "completedAt": shown_time_or_none(campaign.completed_at),
    }
