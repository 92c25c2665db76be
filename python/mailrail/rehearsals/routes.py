"""…/campaigns/:id/preview, …/test, …/dry-run and …/preflight, in both dialects."""

import orjson
from sanic.response import HTTPResponse

from mailrail.campaigns import service as campaigns
from mailrail.campaigns.model import AlreadySent, CampaignNotFound, CampaignStateWrong
from mailrail.contacts.model import ContactNotFound
from mailrail.emails.answers import BatchAnswer, batch_answer
from mailrail.emails.keys import Replayed
from mailrail.emails.routes import ACCEPT_ERRORS, accept, answer_batch, kept, read_key
from mailrail.ids import Kind
from mailrail.rehearsals import form, service
from mailrail.rehearsals import preflight as checklist
from mailrail.rehearsals.answers import (
    DryRunAnswer,
    PreflightAnswer,
    PreviewAnswer,
    shown_dry_run,
    shown_preflight,
    shown_preview,
)
from mailrail.templates.model import TemplateInvalid
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import PER_RECIPIENT, Query, operation
from mailrail.web.query import read_flag


@operation(
    answers={200: PreviewAnswer},
    query=(Query("contactId", "The contact for whom the mail is rendered."),),
    raises=(CampaignNotFound, ContactNotFound, TemplateInvalid),
)
async def show_preview(request: Request, campaign_id: str) -> HTTPResponse:
    """GET …/campaigns/:id/preview: shows the mail as a contact would read it, or a made-up reader. Its links are not
    tracked and unsubscribe nobody.
    """
    return await _preview(request, campaign_id, Fields({"contactId": request.args.get("contactId")}))


@operation(
    answers={200: PreviewAnswer}, reads=form.read_cast, raises=(CampaignNotFound, ContactNotFound, TemplateInvalid)
)
async def preview(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/preview: shows the mail as a contact of the account would read it, or one that the request
    describes.
    """
    return await _preview(request, campaign_id, Fields(read_object(request)))


@operation(
    answers={200: BatchAnswer, 202: BatchAnswer},
    reads=form.read_test,
    raises=(*ACCEPT_ERRORS, CampaignNotFound, ContactNotFound, TemplateInvalid),
    price=PER_RECIPIENT,
    is_idempotent=True,
)
async def send_test(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/test: sends the mail to up to five addresses for a look at it. It is transactional mail,
    costs as much, and nothing in it is tracked.
    """
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    draft = form.read_test(fields, ctx.ids)
    number = ctx.ids.find(Kind.CAMPAIGN, campaign_id)
    async with request.transaction() as conn:
        campaign = await campaigns.get(conn, request.ctx.account.id, number)
        fields.finish()
        mails = await service.prepare_test(conn, request.ctx.account, campaign, draft, ctx.settings)
    key = read_key(request, lambda taken: kept(batch_answer(taken, ctx.ids)))
    try:
        taken = await accept(request, mails, key)
    except Replayed as replayed:
        return answer_batch(orjson.loads(replayed.body), is_replay=True)
    return answer_batch(batch_answer(taken, ctx.ids), is_replay=False)


@operation(answers={200: DryRunAnswer}, raises=(CampaignNotFound,))
async def dry_run(request: Request, campaign_id: str) -> HTTPResponse:
    """POST …/campaigns/:id/dry-run: tells what a launch would do now, what it would cost, and all that stands in its way.

    `finishAt` is reckoned from what Amazon SES allows at present, as if nothing else were sent.
    """
    ctx = request.app.ctx
    Fields(read_object(request)).finish()
    # Before the transaction: it takes a connection of its own.
    limits = await ctx.mailroom.limiter.look()
    async with request.transaction() as conn:
        number = ctx.ids.find(Kind.CAMPAIGN, campaign_id)
        found = await service.dry_run(conn, request.ctx.account, number, limits, ctx.settings)
    return answer(dict(shown_dry_run(found, ctx.ids)))


@operation(
    answers={200: PreflightAnswer},
    query=(Query("links", "`false` visits no link.", {"type": "boolean", "default": True}),),
    raises=(CampaignNotFound, CampaignStateWrong, AlreadySent),
)
async def preflight(request: Request, campaign_id: str) -> HTTPResponse:
    """GET …/campaigns/:id/preflight: checks a campaign that has not started, and says what to mend before it does.

    It looks at the sender and what DNS says of it, at whom it reaches, variables that nobody fills in, links that lead
    nowhere, the size for real recipients, what it costs and when it would be through. Takes up to 12 seconds, most of them for the links: those for which there was no time are told.
    """
    ctx = request.app.ctx
    visits_links = read_flag(request, "links", default=True)
    # Before the transaction: it takes a connection of its own.
    limits = await ctx.mailroom.limiter.look()
    number = ctx.ids.find(Kind.CAMPAIGN, campaign_id)
    found = await checklist.preflight(
        request.transaction,
        request.ctx.account,
        number,
        limits,
        ctx.link_checker,
        ctx.settings,
        visits_links=visits_links,
    )
    return answer(dict(shown_preflight(found, ctx.ids)))


async def _preview(request: Request, campaign_id: str, fields: Fields) -> HTTPResponse:
    ctx = request.app.ctx
    cast = form.read_cast(fields, ctx.ids)
    fields.finish()
    async with request.transaction() as conn:
        number = ctx.ids.find(Kind.CAMPAIGN, campaign_id)
        found = await service.preview(conn, request.ctx.account, number, cast, ctx.settings)
    return answer(dict(shown_preview(found, ctx.ids)))
