"""/v1/mail/campaigns."""

from dataclasses import asdict
from typing import Any, TypedDict

from sanic.response import HTTPResponse

from mailrail.campaigns import form, service
from mailrail.campaigns.model import Campaign, CampaignDraft
from mailrail.campaigns.routes import CostAnswer, cost, estimated_micros, launch_campaign, save_draft
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import PER_RECIPIENT, operation
from mailrail.web.values import shown_time, shown_time_or_none, shown_usd

PARAMS = {"html": "content.html", "text": "content.text", "listId": "audience.listId"}


class SendAnswer(TypedDict):
    """A campaign that was sent or scheduled."""

    id: str
    status: str
    audienceCount: int
    cost: CostAnswer
    scheduledAt: str | None
    sentAt: str | None


async def create(request: Request) -> HTTPResponse:
    """POST /v1/mail/campaigns: a draft, with what sending it would cost."""
    fields = Fields(read_object(request))
    draft = read_draft(fields, request.app.ctx.ids)
    fields.finish()
    campaign, audience_count = await save_draft(request, draft, PARAMS)
    return answer(_shown(campaign, audience_count, request), 201)


async def get(request: Request, campaign_id: str) -> HTTPResponse:
    """GET /v1/mail/campaigns/:id."""
    ctx, account = request.app.ctx, request.ctx.account
    async with request.transaction() as conn:
        campaign = await service.get(conn, account.id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        audience_count = await service.audience_count(conn, account, campaign)
    return answer(_shown(campaign, audience_count, request) | _shown_sending(campaign))


@operation(answers={200: SendAnswer}, reads=form.read_launch, price=PER_RECIPIENT)
async def send(request: Request, campaign_id: str) -> HTTPResponse:
    """POST /v1/mail/campaigns/:id/send: sends the draft and says what it holds of the wallet, or schedules it."""
    started = await launch_campaign(request, campaign_id)
    campaign, ids = started.campaign, request.app.ctx.ids
    told: SendAnswer = {
        "id": ids.encode(Kind.CAMPAIGN, campaign.id),
        "status": campaign.status.shown,
        "audienceCount": started.audience_count,
        "cost": cost(started, ids),
        "scheduledAt": shown_time_or_none(campaign.scheduled_at),
        "sentAt": shown_time_or_none(campaign.sent_at),
    }
    return answer(told)


async def stats(request: Request, campaign_id: str) -> HTTPResponse:
    """GET /v1/mail/campaigns/:id/stats: recipients = delivered + bounced + failed + skipped + open."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with request.transaction() as conn:
        campaign = await service.get(conn, account_id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        progress = await service.progress(conn, campaign)
    return answer({"id": ctx.ids.encode(Kind.CAMPAIGN, campaign.id), **asdict(progress)})


def read_draft(fields: Fields, ids: Ids) -> CampaignDraft:
    """The fields of POST /v1/mail/campaigns. Without `audience` it reaches everybody."""
    from_name, from_email = fields.mailbox("from")
    list_id, tags = form.read_audience(fields.nested("audience"), ids)
    content = fields.nested("content")
    return CampaignDraft(
        name=fields.required_text("name", form.NAME_MAX_CHARS),
        subject=fields.required_text("subject", form.SUBJECT_MAX_CHARS),
        html=content.required_text("html", form.PART_MAX_CHARS, lines=True),
        preheader=fields.text("preheader", form.PREHEADER_MAX_CHARS),
        text=content.text("text", form.PART_MAX_CHARS, lines=True),
        from_name=from_name,
        from_email=from_email,
        reply_to=fields.addresses("replyTo", form.REPLY_TO_MAX),
        list_id=list_id,
        tags=tags,
        scheduled_at=fields.moment("scheduledAt"),
    )


def _shown(campaign: Campaign, audience_count: int, request: Request) -> dict[str, Any]:
    micros = estimated_micros(request.ctx.account, request.app.ctx.settings, audience_count)
    return {
        "id": request.app.ctx.ids.encode(Kind.CAMPAIGN, campaign.id),
        "name": campaign.name,
        "status": campaign.status.shown,
        "audienceCount": audience_count,
        "estimatedCost": shown_usd(micros),
        "estimatedCostMicros": micros,
        "warnings": campaign.warnings,
        "createdAt": shown_time(campaign.created_at),
        "scheduledAt": shown_time_or_none(campaign.scheduled_at),
    }


def _shown_sending(campaign: Campaign) -> dict[str, Any]:
    return {
        "subject": campaign.subject,
        "preheader": campaign.preheader,
        "from": None if campaign.from_email is None else {"name": campaign.from_name, "email": campaign.from_email},
        "reason": campaign.reason,
        "sentAt": shown_time_or_none(campaign.sent_at),
        "submittedAt": shown_time_or_none(campaign.submitted_at),
        "completedAt": shown_time_or_none(campaign.completed_at),
    }
