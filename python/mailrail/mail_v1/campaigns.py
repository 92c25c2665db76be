"""/v1/mail/campaigns."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.campaigns import service
from mailrail.campaigns.answers import (
    AudienceAnswer,
    CostAnswer,
    ProgressAnswer,
    SenderAnswer,
    TrackingAnswer,
    WireAnswer,
    cost,
    estimated_micros,
    shown_delivery,
    shown_progress,
    shown_tracking,
    written_audience,
)
from mailrail.campaigns.form import read_launch
from mailrail.campaigns.model import Campaign, CampaignNotFound
from mailrail.campaigns.routes import (
    DRAFT_ERRORS,
    LAUNCH_ERRORS,
    STEER_ERRORS,
    launch_campaign,
    save_change,
    save_draft,
)
from mailrail.ids import Ids, Kind
from mailrail.mail_v1.form import read_draft, write_draft
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import PER_RECIPIENT, operation
from mailrail.web.values import shown_time, shown_time_or_none, shown_usd

PARAMS = {
    "html": "content.html",
    "text": "content.text",
    **{name: f"audience.{name}" for name in ("listId", "lists", "exclude.lists")},
}


class MailCampaignAnswer(TypedDict):
    """A campaign, with what sending it would cost: in dollars, and exactly in millionths of one."""

    id: str
    name: str
    status: str
    audienceCount: int
    estimatedCost: float
    estimatedCostMicros: int
    template: str | None
    templateVersion: int | None
    warnings: list[str]
    createdAt: str
    scheduledAt: str | None


class ContentAnswer(TypedDict):
    """What a campaign says."""

    html: str
    text: str | None


_Sending = TypedDict(
    "_Sending",
    {
        "subject": str,
        "preheader": str | None,
        "from": SenderAnswer | None,
        "replyTo": list[str],
        "audience": AudienceAnswer,
        "tracking": TrackingAnswer,
        "content": ContentAnswer,
        "delivery": WireAnswer | None,
        "reason": str | None,
        "sentAt": str | None,
        "submittedAt": str | None,
        "completedAt": str | None,
    },
)


class MailCampaignDetailAnswer(MailCampaignAnswer, _Sending):
    """A campaign with its content and its times."""


class CampaignStatsAnswer(ProgressAnswer):
    """How far a send is, by counts of recipients and by rates."""

    id: str


class SendAnswer(TypedDict):
    """A campaign that was sent or scheduled."""

    id: str
    status: str
    audienceCount: int
    cost: CostAnswer
    scheduledAt: str | None
    sentAt: str | None


@operation(
    answers={201: MailCampaignAnswer},
    reads=read_draft,
    raises=DRAFT_ERRORS,
    example=(
        {
            "name": "March Newsletter",
            "subject": "What's new this month",
            "preheader": "Product updates, tips, and a surprise",
            "from": {"name": "Sarah at Acme", "email": "sarah@acme.com"},
            "audience": {"tags": ["newsletter"]},
            "content": {"html": "<html>...</html>"},
        },
        {
            "id": "cmp_xyz789",
            "name": "March Newsletter",
            "status": "draft",
            "audienceCount": 10240,
            "estimatedCost": 3.07,
            "estimatedCostMicros": 3072000,
            "template": None,
            "templateVersion": None,
            "warnings": [],
            "createdAt": "2026-04-08T10:30:00Z",
            "scheduledAt": None,
        },
    ),
)
async def create(request: Request) -> HTTPResponse:
    """POST /v1/mail/campaigns: creates a draft, which is free. The answer has what sending it would cost."""
    fields = Fields(read_object(request))
    draft = read_draft(fields, request.app.ctx.ids)
    fields.finish()
    campaign, audience_count = await save_draft(request, draft, PARAMS)
    return answer(_shown(campaign, audience_count, request), 201)


@operation(answers={200: MailCampaignDetailAnswer}, raises=(CampaignNotFound,))
async def get(request: Request, campaign_id: str) -> HTTPResponse:
    """GET /v1/mail/campaigns/:id: one campaign, and what it says."""
    ctx, account = request.app.ctx, request.ctx.account
    async with request.transaction() as conn:
        campaign = await service.get(conn, account.id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        audience_count = await service.audience_count(conn, account, campaign)
    return answer({**_shown(campaign, audience_count, request), **_shown_sending(campaign, ctx.ids)})


@operation(
    answers={200: MailCampaignDetailAnswer},
    reads=read_draft,
    is_partial=True,
    raises=(*STEER_ERRORS, *DRAFT_ERRORS),
)
async def change(request: Request, campaign_id: str) -> HTTPResponse:
    """PATCH /v1/mail/campaigns/:id: changes what is given of a campaign that has not started; null clears. A scheduled one
    stays scheduled.
    """
    campaign, audience_count = await save_change(request, campaign_id, write_draft, read_draft, PARAMS)
    return answer({**_shown(campaign, audience_count, request), **_shown_sending(campaign, request.app.ctx.ids)})


@operation(
    answers={200: SendAnswer},
    reads=read_launch,
    raises=LAUNCH_ERRORS,
    price=PER_RECIPIENT,
    example=(
        {},
        {
            "id": "cmp_xyz789",
            "status": "sending",
            "audienceCount": 10240,
            "cost": {"estimated": 3.07, "estimatedMicros": 3072000, "currency": "USD", "holdId": "hold_abc456"},
            "scheduledAt": None,
            "sentAt": "2026-04-08T10:35:00Z",
        },
    ),
)
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


@operation(answers={200: CampaignStatsAnswer}, raises=(CampaignNotFound,))
async def stats(request: Request, campaign_id: str) -> HTTPResponse:
    """GET /v1/mail/campaigns/:id/stats: how far a send is. recipients = delivered + bounced + failed + skipped + open."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with request.transaction() as conn:
        campaign = await service.get(conn, account_id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        progress = await service.progress(conn, campaign)
    return answer({"id": ctx.ids.encode(Kind.CAMPAIGN, campaign.id), **shown_progress(progress)})


def _shown(campaign: Campaign, audience_count: int, request: Request) -> MailCampaignAnswer:
    ids = request.app.ctx.ids
    micros = estimated_micros(request.ctx.account, request.app.ctx.settings, audience_count)
    return {
        "id": ids.encode(Kind.CAMPAIGN, campaign.id),
        "name": campaign.name,
        "status": campaign.status.shown,
        "audienceCount": audience_count,
        "estimatedCost": shown_usd(micros),
        "estimatedCostMicros": micros,
        "template": ids.encode_optional(Kind.TEMPLATE, campaign.template_id),
        "templateVersion": campaign.template_version,
        "warnings": campaign.warnings,
        "createdAt": shown_time(campaign.created_at),
        "scheduledAt": shown_time_or_none(campaign.scheduled_at),
    }


def _shown_sending(campaign: Campaign, ids: Ids) -> _Sending:
    return {
        "subject": campaign.subject,
        "preheader": campaign.preheader,
        "from": None if campaign.from_email is None else {"name": campaign.from_name, "email": campaign.from_email},
        "replyTo": campaign.reply_to,
        "audience": written_audience(campaign.audience, ids),
        "tracking": shown_tracking(campaign.tracking),
        "content": {"html": campaign.html, "text": campaign.text},
        "delivery": shown_delivery(campaign),
        "reason": campaign.reason,
        "sentAt": shown_time_or_none(campaign.sent_at),
        "submittedAt": shown_time_or_none(campaign.submitted_at),
        "completedAt": shown_time_or_none(campaign.completed_at),
    }
