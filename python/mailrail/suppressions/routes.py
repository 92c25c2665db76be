"""…/suppressions, the same in both dialects."""

from typing import TypedDict
from urllib.parse import unquote

from sanic.response import HTTPResponse

from mailrail.ids import Ids, Kind
from mailrail.suppressions import form, service
from mailrail.suppressions.model import Suppression, SuppressionNotFound, SuppressionStays
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import Query, operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time


class SuppressionAnswer(TypedDict):
    """An address that gets no mail."""

    id: str
    email: str
    reason: str
    createdAt: str


class SuppressionsAnswer(PageAnswer):
    """A page of suppressions."""

    suppressions: list[SuppressionAnswer]


class AddedAnswer(TypedDict):
    """What was suppressed now; total = added + known."""

    suppressions: list[SuppressionAnswer]
    total: int
    added: int
    known: int


class LiftedAnswer(TypedDict):
    """What is suppressed no more."""

    id: str
    email: str
    deleted: bool


@operation(
    answers={200: SuppressionsAnswer},
    query=(
        Query("reason", "Only bounce, complaint, manual or unsubscribe."),
        Query("email", "Only this address."),
        *PAGE_QUERY,
    ),
)
async def page(request: Request) -> HTTPResponse:
    """GET …/suppressions: addresses that get no mail, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.SUPPRESSION, ctx.ids)
    fields = Fields({name: request.args.get(name) for name in ("reason", "email")})
    wanted = form.read_filter(fields)
    fields.finish()
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, wanted, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id, wanted)
    return answer(page_answer("suppressions", [shown_suppression(one, ctx.ids) for one in found], asked, total))


@operation(answers={200: AddedAnswer, 201: AddedAnswer}, reads=form.read_entries)
async def create(request: Request) -> HTTPResponse:
    """POST …/suppressions: addresses that get no mail from now on. 201 if any was new; one that was suppressed before keeps its
    reason.
    """
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    emails = form.read_entries(fields)
    fields.finish()
    async with request.transaction() as conn:
        added = await service.add(conn, request.ctx.account.id, emails, ctx.settings.secret_key)
    distinct = len({email.lower() for email in emails})
    shown = AddedAnswer(
        suppressions=[shown_suppression(one, ctx.ids) for one in added],
        total=distinct,
        added=len(added),
        known=distinct - len(added),
    )
    return answer(shown, 201 if added else 200)


@operation(
    answers={200: LiftedAnswer},
    query=(Query("force", "Also lifts a complaint.", {"type": "boolean", "default": False}),),
    raises=(SuppressionNotFound, SuppressionStays),
)
async def delete(request: Request, suppression: str) -> HTTPResponse:
    """DELETE …/suppressions/:suppression: the address may get mail again, named by itself or its id. A complaint needs
    `?force=true`.
    """
    ctx = request.app.ctx
    named = unquote(suppression)
    force = request.args.get("force", "").lower() in ("true", "1")
    by = {"email": named} if "@" in named else {"row_id": ctx.ids.find(Kind.SUPPRESSION, named)}
    async with request.transaction() as conn:
        lifted = await service.lift(conn, request.ctx.account.id, **by, force=force)
    return answer(LiftedAnswer(id=ctx.ids.encode(Kind.SUPPRESSION, lifted.id), email=lifted.email, deleted=True))


def shown_suppression(one: Suppression, ids: Ids) -> SuppressionAnswer:
    """A suppression as both dialects print it."""
    return {
        "id": ids.encode(Kind.SUPPRESSION, one.id),
        "email": one.email,
        "reason": one.reason,
        "createdAt": shown_time(one.created_at),
    }
