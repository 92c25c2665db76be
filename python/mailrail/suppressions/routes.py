"""…/suppressions, the same in both dialects."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypedDict
from urllib.parse import unquote

from sanic.response import HTTPResponse

from mailrail.ids import Ids, Kind
from mailrail.suppressions import files, form, service
from mailrail.suppressions.model import Reason, Suppression, SuppressionFilter, SuppressionNotFound, SuppressionStays
from mailrail.web.admission import MediaTypeRefused
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.csv_export import send_csv
from mailrail.web.fields import Fields
from mailrail.web.openapi import CSV, Query, operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time

# Suppressions that one statement of an export reads.
SLICE = 5000


class SuppressionAnswer(TypedDict):
    """An address that gets no mail. `emailId` is the mail that it came of, `keyId` the API key that entered it, `detail` the class
    of what its server said.
    """

    id: str
    email: str
    reason: str
    detail: str | None
    emailId: str | None
    keyId: str | None
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
    """What is suppressed no more. `sesAsked` says that Amazon SES is asked to deliver to it again, which takes some seconds; without
    an `id` that is all that kept mail from it.
    """

    id: str | None
    email: str
    deleted: bool
    sesAsked: bool


class SuppressionFailureAnswer(TypedDict):
    """A row that was left out; the header is row 1."""

    row: int
    problem: str


class SuppressionListAnswer(TypedDict):
    """What a list came to: rows = added + known + duplicates + failed. `failures` has the first hundred that failed."""

    rows: int
    added: int
    known: int
    duplicates: int
    failed: int
    failures: list[SuppressionFailureAnswer]


@operation(
    answers={200: (SuppressionsAnswer, CSV)},
    query=(
        Query("reason", "Only bounce, soft_bounces, complaint, manual, imported or unsubscribe."),
        Query("email", "Only this address."),
        Query("format", "JSON by pages, or CSV with all at once.", {"type": "string", "enum": ["json", "csv"]}),
        *PAGE_QUERY,
    ),
)
async def page(request: Request) -> HTTPResponse | None:
    """GET …/suppressions: addresses that get no mail, newest first. As CSV with `format=csv`, and then all at once."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    fields = Fields({name: request.args.get(name) for name in ("reason", "email", "format")})
    wanted, as_csv = form.read_filter(fields), fields.word("format", ("json", "csv")) == "csv"
    fields.finish()
    if as_csv:
        await send_csv(request, "suppressions.csv", files.write_header(), _slices(request, wanted))
        return None
    asked = read_page(request, Kind.SUPPRESSION, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, wanted, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id, wanted)
    return answer(page_answer("suppressions", [shown_suppression(one, ctx.ids) for one in found], asked, total))


@operation(answers={200: AddedAnswer, 201: AddedAnswer}, reads=form.read_entries)
async def create(request: Request) -> HTTPResponse:
    """POST …/suppressions: addresses that get no mail from now on. 201 if any was new; one that was suppressed before keeps its
    reason.
    """
    ctx, caller = request.app.ctx, request.ctx.caller
    assert caller is not None
    fields = Fields(read_object(request))
    emails = form.read_entries(fields)
    fields.finish()
    async with request.transaction() as conn:
        added = await service.add(conn, caller.account.id, emails, ctx.settings.secret_key, caller.key_id)
    distinct = len({email.lower() for email in emails})
    shown = AddedAnswer(
        suppressions=[shown_suppression(one, ctx.ids) for one in added],
        total=distinct,
        added=len(added),
        known=distinct - len(added),
    )
    return answer(shown, 201 if added else 200)


async def _slices(request: Request, wanted: SuppressionFilter) -> AsyncIterator[bytes]:
    after_id: int | None = None
    while True:
        async with request.transaction() as conn:
            found = await service.page(conn, request.ctx.account.id, wanted, SLICE, 0, after_id)
        if not found:
            return
        yield files.write_lines(found)
        after_id = found[-1].id


@operation(
    answers={200: SuppressionListAnswer},
    query=(
        Query(
            "reason",
            "Of rows that give none; imported without it.",
            {"type": "string", "enum": [str(one) for one in Reason if one is not Reason.UNSUBSCRIBE]},
        ),
    ),
    also_reads=(CSV,),
    body_max_bytes=files.LIST_MAX_BYTES,
    raises=(files.ListUnreadable, MediaTypeRefused),
)
async def import_list(request: Request) -> HTTPResponse:
    """POST …/suppressions/import: a suppression list in CSV, as Amazon SES, SendGrid, Postmark or Mailgun export it. A column `email`,
    and one that tells the reason, if there is one; what was suppressed before keeps its reason.
    """
    caller = request.ctx.caller
    assert caller is not None
    if (request.content_type or "").partition(";")[0].strip().lower() != CSV:
        raise MediaTypeRefused("Send the list as it is, with `Content-Type: text/csv`.")
    otherwise = form.read_reason_otherwise(request.args.get("reason"))
    read = await asyncio.to_thread(files.read_list, request.body, otherwise)
    async with request.transaction() as conn:
        added = await service.add_list(
            conn, caller.account.id, read.entries, request.app.ctx.settings.secret_key, caller.key_id
        )
    return answer(
        SuppressionListAnswer(
            rows=read.rows,
            added=added,
            known=len(read.entries) - added,
            duplicates=read.rows - read.failed - len(read.entries),
            failed=read.failed,
            failures=[{"row": one.row, "problem": one.problem} for one in read.failures],
        )
    )


@operation(answers={200: SuppressionAnswer}, raises=(SuppressionNotFound,))
async def get(request: Request, suppression: str) -> HTTPResponse:
    """GET …/suppressions/:suppression: why an address gets no mail, named by itself or its id."""
    ids = request.app.ctx.ids
    async with request.transaction() as conn:
        found = await service.get(conn, request.ctx.account.id, **_named(suppression, ids))
    return answer(shown_suppression(found, ids))


@operation(
    answers={200: LiftedAnswer},
    query=(Query("force", "Also lifts a complaint.", {"type": "boolean", "default": False}),),
    raises=(SuppressionNotFound, SuppressionStays),
)
async def delete(request: Request, suppression: str) -> HTTPResponse:
    """DELETE …/suppressions/:suppression: the address may get mail again, named by itself or its id. A complaint needs
    `?force=true`. Amazon SES is asked to lift it from its own list, too.
    """
    ids = request.app.ctx.ids
    force = request.args.get("force", "").lower() in ("true", "1")
    async with request.transaction() as conn:
        lifted = await service.lift(conn, request.ctx.account.id, **_named(suppression, ids), force=force)
    shown_id = ids.encode_optional(Kind.SUPPRESSION, lifted.id)
    return answer(LiftedAnswer(id=shown_id, email=lifted.email, deleted=True, sesAsked=lifted.asked_ses))


def _named(suppression: str, ids: Ids) -> dict[str, Any]:
    """What the path says, as the service takes it."""
    named = unquote(suppression)
    return {"email": named} if "@" in named else {"row_id": ids.find(Kind.SUPPRESSION, named)}


def shown_suppression(one: Suppression, ids: Ids) -> SuppressionAnswer:
    """A suppression as both dialects print it."""
    return {
        "id": ids.encode(Kind.SUPPRESSION, one.id),
        "email": one.email,
        "reason": one.reason,
        "detail": one.detail,
        "emailId": None if one.stream_id is None or one.seq is None else ids.encode_email(one.stream_id, one.seq),
        "keyId": ids.encode_optional(Kind.KEY, one.key_id),
        "createdAt": shown_time(one.created_at),
    }
