"""/api/v1/campaigns and /api/v1/stats."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sanic.response import HTTPResponse

from mailrail import failpoints
from mailrail.accounts.model import Account
from mailrail.campaigns import form, links, recipients, service
from mailrail.campaigns.answers import (
    CampaignAnswer,
    CampaignDetailAnswer,
    CampaignsAnswer,
    DeletedCampaignAnswer,
    LaunchAnswer,
    LinksAnswer,
    RecipientsAnswer,
    RetryAnswer,
    StatsAnswer,
    cost,
    shown_campaign,
    shown_cost,
    shown_link,
    shown_progress,
    shown_recipient,
)
from mailrail.campaigns.model import (
    AlreadySent,
    Campaign,
    CampaignDraft,
    CampaignNotFound,
    CampaignStateWrong,
    EmptyAudience,
    Launch,
    NothingToRetry,
    ScheduleInvalid,
)
from mailrail.campaigns.recipients import WORDS
from mailrail.contacts import service as contacts
from mailrail.contacts.model import ListNotFound
from mailrail.db.pool import Connection
from mailrail.domains import service as domains
from mailrail.domains.model import NoDefaultSender, SenderNotVerified
from mailrail.emails.model import SendingHeld, State
from mailrail.ids import NO_ROW, Ids, Kind
from mailrail.reputation.model import ReputationStopped
from mailrail.templates.model import TemplateInvalid, TemplateNotFound
from mailrail.wallet.model import InsufficientFunds, WalletFrozen
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.csv_export import send_csv
from mailrail.web.fields import Fields
from mailrail.web.openapi import CSV, PER_RECIPIENT, Query, operation
from mailrail.web.pages import PAGE_QUERY, page_answer, read_page, read_page_after
from mailrail.web.values import shown_time_or_none

PARAMS = {"html": "content", "lists": "audience.lists", "exclude.lists": "audience.exclude.lists"}
# Why a retry leaves recipients out whom the statistics count as failed.
LEFT_OUT = {
    State.FAILED: "not asked for",
    State.UNRESOLVED: "not asked for",
    State.REJECTED: "Amazon SES accepted the mail, then refused to send it: the same mail would fail again",
    State.EXPIRED: "Amazon SES accepted the mail and told nothing more: it may have arrived",
}
# What may be wrong with a draft, and what may keep a campaign from sending.
DRAFT_ERRORS = (TemplateNotFound, TemplateInvalid, ListNotFound, ScheduleInvalid, SenderNotVerified)
SEND_ERRORS = (
    SendingHeld,
    ReputationStopped,
    SenderNotVerified,
    NoDefaultSender,
    ListNotFound,
    EmptyAudience,
    TemplateInvalid,
    InsufficientFunds,
    WalletFrozen,
)
STEER_ERRORS = (CampaignNotFound, CampaignStateWrong)
LAUNCH_ERRORS = (*STEER_ERRORS, AlreadySent, ScheduleInvalid, *SEND_ERRORS)


@operation(answers={201: CampaignAnswer}, reads=form.read_draft, raises=DRAFT_ERRORS)
async def create(request: Request) -> HTTPResponse:
    """POST /api/v1/campaigns: creates a draft, which is free."""
    fields = Fields(read_object(request))
    draft = form.read_draft(fields, request.app.ctx.ids)
    fields.finish()
    campaign, audience_count = await save_draft(request, draft, PARAMS)
    return answer(_shown(campaign, audience_count, request), 201)


@operation(answers={200: CampaignsAnswer}, query=PAGE_QUERY)
async def page(request: Request) -> HTTPResponse:
    """GET /api/v1/campaigns: campaigns, newest first. Audiences of drafts are counted when one of them is asked for."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.CAMPAIGN, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    items = [_shown(campaign, campaign.audience_count, request) for campaign in found]
    return answer(page_answer("campaigns", items, asked, total))


@operation(answers={200: CampaignDetailAnswer}, raises=(CampaignNotFound,))
async def get(request: Request, campaign_id: str) -> HTTPResponse:
    """GET /api/v1/campaigns/:id: one campaign, and how far it is."""
    ctx, account = request.app.ctx, request.ctx.account
    async with request.transaction() as conn:
        campaign = await service.get(conn, account.id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        audience_count = await service.audience_count(conn, account, campaign)
        progress = await service.progress(conn, campaign)
    says = {"content": campaign.html, "text": campaign.text}
    return answer({**_shown(campaign, audience_count, request), **says, "progress": shown_progress(progress)})


@operation(
    answers={200: CampaignAnswer},
    reads=form.read_draft,
    is_partial=True,
    raises=(*STEER_ERRORS, *DRAFT_ERRORS),
)
async def change(request: Request, campaign_id: str) -> HTTPResponse:
    """PATCH /api/v1/campaigns/:id: changes what is given of a campaign that has not started; null clears. A scheduled one
    stays scheduled.
    """
    campaign, audience_count = await save_change(request, campaign_id, form.write_draft, form.read_draft, PARAMS)
    return answer(_shown(campaign, audience_count, request))


@operation(answers={200: DeletedCampaignAnswer}, raises=STEER_ERRORS)
async def delete(request: Request, campaign_id: str) -> HTTPResponse:
    """DELETE …/campaigns/:id: forgets a campaign that nobody got. One that was sent is kept for its figures."""
    ids = request.app.ctx.ids
    number = ids.find(Kind.CAMPAIGN, campaign_id)
    async with request.transaction() as conn:
        await service.delete(conn, request.ctx.account.id, number)
    return answer(DeletedCampaignAnswer(id=ids.encode(Kind.CAMPAIGN, number), deleted=True))


@operation(answers={201: CampaignAnswer}, reads=form.read_duplicate, raises=(CampaignNotFound,))
async def duplicate(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/duplicate: a new draft that says the same to the same audience. `name` may name it."""
    ctx, account = request.app.ctx, request.ctx.account
    fields = Fields(read_object(request))
    name = form.read_duplicate(fields)
    fields.finish()
    async with request.transaction() as conn:
        made = await service.duplicate(conn, account.id, ctx.ids.find(Kind.CAMPAIGN, campaign_id), name)
        audience_count = await service.audience_count(conn, account, made)
    return answer(_shown(made, audience_count, request), 201)


@operation(answers={200: LaunchAnswer}, reads=form.read_launch, raises=LAUNCH_ERRORS, price=PER_RECIPIENT)
async def launch(request: Request, campaign_id: str) -> HTTPResponse:
    """POST /api/v1/campaigns/:id/launch: sends the draft, or schedules it."""
    started = await launch_campaign(request, campaign_id)
    campaign = started.campaign
    told: LaunchAnswer = {
        "success": True,
        "status": campaign.status.shown,
        "id": request.app.ctx.ids.encode(Kind.CAMPAIGN, campaign.id),
        "audienceCount": started.audience_count,
        "cost": cost(started, request.app.ctx.ids),
        "scheduledAt": shown_time_or_none(campaign.scheduled_at),
        "sentAt": shown_time_or_none(campaign.sent_at),
    }
    return answer(told)


@operation(answers={200: CampaignAnswer}, raises=STEER_ERRORS)
async def pause(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/pause: pauses a campaign, so that nobody else is written to until it is resumed."""
    async with _steering(request) as (conn, account):
        campaign = await service.pause(conn, account.id, request.app.ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        return await _answer_campaign(request, conn, campaign)


@operation(answers={200: CampaignAnswer}, raises=(*STEER_ERRORS, *SEND_ERRORS))
async def resume(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/resume: goes on where the campaign was paused."""
    ctx = request.app.ctx
    async with _steering(request) as (conn, account):
        campaign = await service.resume(conn, account, ctx.ids.find(Kind.CAMPAIGN, campaign_id), ctx.settings)
        return await _answer_campaign(request, conn, campaign)


@operation(answers={200: CampaignAnswer}, raises=STEER_ERRORS)
async def cancel(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/cancel: ends a campaign for everybody who was not written to."""
    async with _steering(request) as (conn, account):
        campaign = await service.cancel(conn, account.id, request.app.ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        return await _answer_campaign(request, conn, campaign)


@operation(
    answers={200: RetryAnswer},
    reads=form.read_retried,
    raises=(*STEER_ERRORS, SendingHeld, ReputationStopped, NothingToRetry, InsufficientFunds, WalletFrozen),
    price=PER_RECIPIENT,
)
async def retry(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/retry: sends once more to those whose mail failed. `states` chooses among failed
    (never accepted by SES) and unresolved (nobody knows; who got it after all gets it twice).
    """
    ctx, account = request.app.ctx, request.ctx.account
    fields = Fields(read_object(request))
    states = form.read_retried(fields)
    fields.finish()
    async with request.transaction() as conn:
        done = await service.retry(conn, account, ctx.ids.find(Kind.CAMPAIGN, campaign_id), ctx.settings, states)
    return answer(
        {
            "id": ctx.ids.encode(Kind.CAMPAIGN, done.campaign.id),
            "status": done.campaign.status.shown,
            "retried": done.recipients,
            "cost": shown_cost(done.amount_micros, done.hold_id, ctx.ids),
            "leftOut": [
                {"state": state.name.lower(), "recipients": count, "why": LEFT_OUT[state]}
                for state, count in done.left_out.items()
            ],
        }
    )


@operation(
    answers={200: (RecipientsAnswer, CSV)},
    query=(
        *PAGE_QUERY,
        Query(
            "state",
            f"Only these, in one or several words: {', '.join(WORDS)}.",
            {"type": "array", "items": {"enum": list(WORDS)}},
        ),
        Query("format", "JSON by pages, or CSV with all at once.", {"type": "string", "enum": ["json", "csv"]}),
    ),
    raises=(CampaignNotFound,),
)
async def page_recipients(request: Request, campaign_id: str) -> HTTPResponse | None:
    """GET …/campaigns/:id/recipients: where each recipient stands and why. As CSV with `format=csv`
    or `Accept: text/csv`, and then all at once.
    """
    ctx, account_id = request.app.ctx, request.ctx.account.id
    states = form.read_states(request.args.getlist("state") or [])
    as_csv = form.read_wants_csv(request.args.get("format"), request.headers.get("accept"))
    async with request.transaction() as conn:
        campaign = await service.get(conn, account_id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        # A draft has no stream, and no stream has this number.
        stream_id = campaign.stream_id or NO_ROW
        if not as_csv:
            asked = read_page_after(request, lambda text: form.seq_after(ctx.ids, stream_id, text))
            found = await recipients.read_page(
                conn, account_id, stream_id, states, asked.limit, asked.offset, asked.after_id or 0
            )
            total = await recipients.count(conn, account_id, stream_id, states)
            items = [shown_recipient(one, stream_id, ctx.ids) for one in found]
            return answer(page_answer("recipients", items, asked, total))
        slices = await recipients.read_slices(conn, account_id, stream_id, states)
    name = f"{ctx.ids.encode(Kind.CAMPAIGN, campaign.id)}-recipients.csv"
    await send_csv(request, name, recipients.CSV_HEADER, _csv_slices(request, campaign, slices, states))
    return None


@operation(answers={200: LinksAnswer}, query=PAGE_QUERY, raises=(CampaignNotFound,))
async def page_links(request: Request, campaign_id: str) -> HTTPResponse:
    """GET …/campaigns/:id/links: the links of a campaign that was sent, and who followed them."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page_after(request, form.link_after)
    async with request.transaction() as conn:
        campaign = await service.get(conn, account_id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
        # A draft has no stream, and no stream has this number.
        stream_id = campaign.stream_id or NO_ROW
        found = await links.read_page(conn, account_id, stream_id, asked.limit, asked.offset, asked.after_id or 0)
        total = await links.count(conn, account_id, stream_id)
    return answer(page_answer("links", [shown_link(link) for link in found], asked, total))


@operation(answers={200: StatsAnswer})
async def account_stats(request: Request) -> HTTPResponse:
    """GET …/stats: the account at a glance."""
    account_id = request.ctx.account.id
    async with request.transaction() as conn:
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
        async with request.transaction() as conn:
            campaign = await service.create(conn, account, draft, ctx.settings)
            return campaign, await service.audience_count(conn, account, campaign)
    except (TemplateInvalid, ListNotFound) as error:
        raise form.blame_field(error, params) from error


async def save_change(
    request: Request,
    campaign_id: str,
    write: Callable[[Campaign, Ids], dict[str, Any]],
    read: Callable[[Fields, Ids], CampaignDraft],
    params: dict[str, str],
) -> tuple[Campaign, int]:
    """Reads the request over what the campaign says, both in the dialect's words, and stores it like a draft."""
    ctx, account = request.app.ctx, request.ctx.account
    given = read_object(request)
    try:
        async with request.transaction() as conn:
            campaign = await service.open_for_change(conn, account.id, ctx.ids.find(Kind.CAMPAIGN, campaign_id))
            fields = Fields(form.changed(write(campaign, ctx.ids), given))
            draft = read(fields, ctx.ids)
            fields.finish()
            changed = await service.change(conn, account, campaign, draft, ctx.settings)
            return changed, await service.audience_count(conn, account, changed)
    except (TemplateInvalid, ListNotFound) as error:
        raise form.blame_field(error, params) from error


async def launch_campaign(request: Request, campaign_id: str) -> Launch:
    """Sends the campaign of this public id, or schedules it: `scheduledAt` is the only field."""
    ctx, account = request.app.ctx, request.ctx.account
    fields = Fields(read_object(request))
    scheduled_at = form.read_launch(fields)
    fields.finish()
    number = ctx.ids.find(Kind.CAMPAIGN, campaign_id)
    with failpoints.span("ledger"):
        async with request.transaction() as conn:
            started = await service.launch(conn, account, number, ctx.settings, scheduled_at)
            failpoints.hit("launch.held", stream_id=started.campaign.stream_id)
        failpoints.hit("launch.committed", stream_id=started.campaign.stream_id)
    return started


@asynccontextmanager
async def _steering(request: Request) -> AsyncIterator[tuple[Connection, Account]]:
    """A transaction of the account that asks; the request has no fields."""
    Fields(read_object(request)).finish()
    async with request.transaction() as conn:
        yield conn, request.ctx.account


async def _answer_campaign(request: Request, conn: Connection, campaign: Campaign) -> HTTPResponse:
    audience_count = await service.audience_count(conn, request.ctx.account, campaign)
    return answer(_shown(campaign, audience_count, request))


async def _csv_slices(
    request: Request, campaign: Campaign, slices: list[tuple[int, int]], states: frozenset[State]
) -> AsyncIterator[bytes]:
    for first, last in slices:
        async with request.transaction() as conn:
            assert campaign.stream_id is not None
            lines = await recipients.read_csv(conn, request.ctx.account.id, campaign.stream_id, states, first, last)
        if lines:
            yield lines


def _shown(campaign: Campaign, audience_count: int | None, request: Request) -> CampaignAnswer:
    ctx = request.app.ctx
    return shown_campaign(campaign, audience_count, request.ctx.account, ctx.settings, ctx.ids)
