"""…/campaigns/:id/preview, …/test and …/dry-run, in both dialects."""

from typing import TypedDict

import orjson
from sanic.response import HTTPResponse

from mailrail.campaigns import service as campaigns
from mailrail.campaigns.answers import SenderAnswer
from mailrail.campaigns.model import CampaignNotFound
from mailrail.contacts.model import ContactNotFound
from mailrail.emails.answers import BatchAnswer, batch_answer
from mailrail.emails.keys import Replayed
from mailrail.emails.routes import ACCEPT_ERRORS, accept, answer_batch, kept, read_key
from mailrail.ids import Ids, Kind
from mailrail.rehearsals import form, service
from mailrail.rehearsals.model import DryRun, Preview
from mailrail.templates.model import TemplateInvalid
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import PER_RECIPIENT, Query, operation
from mailrail.web.values import shown_time_or_none, shown_usd


class ReaderAnswer(TypedDict):
    """For whom a mail was rendered; `id` is null for a made-up reader."""

    id: str | None
    email: str


PreviewAnswer = TypedDict(
    "PreviewAnswer",
    {
        "id": str,
        "subject": str,
        "html": str,
        "text": str,
        "from": SenderAnswer | None,
        "replyTo": list[str],
        "contact": ReaderAnswer,
        "unresolved": list[str],
        "warnings": list[str],
    },
)


class ReachAnswer(TypedDict):
    """Whom an audience matches: matched = recipients + all that is skipped, which stands by reason."""

    matched: int
    recipients: int
    skipped: dict[str, int]


class RehearsedPriceAnswer(TypedDict):
    """What a send would set aside, in dollars and exactly."""

    estimated: float
    estimatedMicros: int
    perRecipientMicros: int
    currency: str


class RehearsedWalletAnswer(TypedDict):
    """What is there to pay with, and what would be left; the month's cap leaves null where there is none."""

    available: float
    availableMicros: int
    leftMicros: int
    monthlyCapLeftMicros: int | None


class RehearsedSenderAnswer(TypedDict):
    """Who the mail would be from; without an address there is nobody who may send."""

    name: str | None
    email: str | None
    verified: bool


class RehearsedSizeAnswer(TypedDict):
    """How much would be sent: a mail to a made-up reader, and all of them. Null where it cannot be rendered for one."""

    mailBytes: int | None
    totalBytes: int | None


class ProblemAnswer(TypedDict):
    """Why a launch would be refused, as its error would say."""

    code: str
    message: str
    param: str | None


DryRunAnswer = TypedDict(
    "DryRunAnswer",
    {
        "id": str,
        "status": str,
        "ready": bool,
        "problems": list[ProblemAnswer],
        "warnings": list[str],
        "audience": ReachAnswer,
        "price": RehearsedPriceAnswer,
        "wallet": RehearsedWalletAnswer,
        "enough": bool,
        "finishAt": str | None,
        "from": RehearsedSenderAnswer,
        "size": RehearsedSizeAnswer,
    },
)


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
    return answer(dict(_shown_dry_run(found, ctx.ids)))


async def _preview(request: Request, campaign_id: str, fields: Fields) -> HTTPResponse:
    ctx = request.app.ctx
    cast = form.read_cast(fields, ctx.ids)
    fields.finish()
    async with request.transaction() as conn:
        number = ctx.ids.find(Kind.CAMPAIGN, campaign_id)
        found = await service.preview(conn, request.ctx.account, number, cast, ctx.settings)
    return answer(dict(_shown_preview(found, ctx.ids)))


def _shown_preview(found: Preview, ids: Ids) -> PreviewAnswer:
    return {
        "id": ids.encode(Kind.CAMPAIGN, found.campaign.id),
        "subject": found.rendered.subject,
        "html": found.rendered.html,
        "text": found.rendered.text,
        "from": found.sender and {"name": found.sender[0], "email": found.sender[1]},
        "replyTo": found.campaign.reply_to,
        "contact": {"id": ids.encode_optional(Kind.CONTACT, found.reader.contact_id), "email": found.reader.email},
        "unresolved": found.unresolved,
        "warnings": found.warnings,
    }


def _shown_dry_run(found: DryRun, ids: Ids) -> DryRunAnswer:
    name, email = found.sender or (found.campaign.from_name, found.campaign.from_email)
    total = None if found.mail_bytes is None else found.mail_bytes * found.reach.recipients
    return {
        "id": ids.encode(Kind.CAMPAIGN, found.campaign.id),
        "status": found.campaign.status.shown,
        "ready": not found.problems,
        "problems": [{"code": one.code, "message": str(one), "param": one.param} for one in found.problems],
        "warnings": found.warnings,
        "audience": {
            "matched": found.reach.matched,
            "recipients": found.reach.recipients,
            "skipped": dict(found.reach.skipped),
        },
        "price": {
            "estimated": shown_usd(found.cost_micros),
            "estimatedMicros": found.cost_micros,
            "perRecipientMicros": found.price_micros,
            "currency": "USD",
        },
        "wallet": {
            "available": shown_usd(found.available_micros),
            "availableMicros": found.available_micros,
            "leftMicros": found.available_micros - found.cost_micros,
            "monthlyCapLeftMicros": found.cap_left_micros,
        },
        "enough": found.is_affordable,
        "finishAt": shown_time_or_none(found.finish_at),
        "from": {"name": name, "email": email, "verified": found.sender is not None},
        "size": {"mailBytes": found.mail_bytes, "totalBytes": total},
    }
