"""/api/v1/emails: transactional mail."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from sanic.response import HTTPResponse

from mailrail.domains.model import NoDefaultSender, SenderNotVerified
from mailrail.emails import form, keys, service
from mailrail.emails.answers import (
    REJECTED,
    BatchAnswer,
    EmailDetailAnswer,
    EmailsAnswer,
    SentAnswer,
    batch_answer,
    sent_answer,
    shown_detail,
    shown_mail,
)
from mailrail.emails.desk_store import SHARD_SIZE
from mailrail.emails.form import MailDraft
from mailrail.emails.keys import Key, Replayed
from mailrail.emails.mail import (
    STATES_BY_STATUS,
    TOTAL_CAP,
    Mail,
    MailNotCancellable,
    MailNotFound,
    MailRejected,
    MailStatus,
    RecipientSuppressed,
)
from mailrail.emails.mails import MailFilter
from mailrail.emails.model import SendingHeld
from mailrail.emails.service import MailInvalid, ScheduleTooFar
from mailrail.emails.submission import Sent
from mailrail.errors import IdempotencyKeyInUse, IdempotencyKeyReused, MailrailError
from mailrail.ids import NO_ROW, Ids, Kind
from mailrail.reputation.model import ReputationStopped
from mailrail.templates import service as templates
from mailrail.templates.model import Ref, TemplateNotFound, Version
from mailrail.wallet.model import InsufficientFunds, SpendCapReached, WalletFrozen
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import FieldError, Fields, FieldsInvalid
from mailrail.web.idempotency import REPLAYED_HEADER, fingerprint, read_owner
from mailrail.web.openapi import PER_RECIPIENT, Query, operation
from mailrail.web.pages import PAGE_QUERY, page_answer, read_page_after

# Attachments travel inside the JSON, and a third larger.
BODY_MAX_BYTES = 40 * 1024 * 1024
FILTER_MAX_CHARS = 500
# What taking mail to send may end in.
ACCEPT_ERRORS = (
    MailInvalid,
    NoDefaultSender,
    SenderNotVerified,
    InsufficientFunds,
    SpendCapReached,
    WalletFrozen,
    SendingHeld,
    ReputationStopped,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
)


@operation(
    answers={200: SentAnswer, 202: SentAnswer},
    reads=form.read_mail,
    raises=(*ACCEPT_ERRORS, TemplateNotFound, ScheduleTooFar, MailRejected, RecipientSuppressed),
    price=PER_RECIPIENT,
    is_idempotent=True,
    body_max_bytes=BODY_MAX_BYTES,
    example=(
        {
            "to": "user@example.com",
            "from": "you@yourdomain.com",
            "subject": "Welcome!",
            "html": "<h1>Hello!</h1><p>Welcome aboard.</p>",
            "tags": {"type": "welcome"},
        },
        {
            "id": "eml_2k7f8x0q4m9d3w6z1r5t8y0u2i",
            "status": "sent",
            "messageId": "ses-message-id",
            "to": "user@example.com",
            "scheduledAt": None,
            "reason": None,
        },
    ),
)
async def send(request: Request) -> HTTPResponse:
    """POST /api/v1/emails: sends one mail. 200 once Amazon SES took it; 202 while it waits for its time or for capacity."""
    fields = Fields(read_object(request))
    draft = form.read_mail(fields, request.app.ctx.ids)
    fields.finish()
    key = read_key(request, lambda taken: kept(sent_answer(taken[0], request.app.ctx.ids)))
    try:
        taken = await accept(request, await prepare(request, [draft], key), key)
    except Replayed as replayed:
        return _answer_sent(orjson.loads(replayed.body), is_replay=True)
    return _answer_sent(sent_answer(taken[0], request.app.ctx.ids), is_replay=False)


@operation(
    answers={200: BatchAnswer, 202: BatchAnswer},
    reads=form.read_batch,
    raises=(*ACCEPT_ERRORS, TemplateNotFound, ScheduleTooFar),
    price=PER_RECIPIENT,
    is_idempotent=True,
    body_max_bytes=BODY_MAX_BYTES,
    example=(
        {
            "emails": [
                {"to": "a@example.com", "from": "you@domain.com", "subject": "Hi", "html": "<p>Hello A</p>"},
                {"to": "b@example.com", "from": "you@domain.com", "subject": "Hi", "html": "<p>Hello B</p>"},
            ]
        },
        {
            "results": [
                {
                    "to": "a@example.com",
                    "id": "eml_2k7f8x0q4m9d3w6z1r5t8y0u2i",
                    "status": "sent",
                    "messageId": "ses-message-id",
                    "reason": None,
                },
                {
                    "to": "b@example.com",
                    "id": "eml_7d3w6z1r5t8y0u2i2k7f8x0q4m",
                    "status": "sent",
                    "messageId": "ses-message-id",
                    "reason": None,
                },
            ],
            "total": 2,
            "sent": 2,
            "queued": 0,
            "failed": 0,
        },
    ),
)
async def send_batch(request: Request) -> HTTPResponse:
    """POST /api/v1/emails/batch: sends up to 100 mails. They are taken as a whole or not at all; each then has its own result."""
    fields = Fields(read_object(request))
    drafts = form.read_batch(fields, request.app.ctx.ids)
    fields.finish()
    key = read_key(request, lambda taken: kept(batch_answer(taken, request.app.ctx.ids)))
    try:
        taken = await accept(request, await prepare(request, drafts, key), key)
    except Replayed as replayed:
        return answer_batch(orjson.loads(replayed.body), is_replay=True)
    return answer_batch(batch_answer(taken, request.app.ctx.ids), is_replay=False)


@operation(
    answers={200: EmailsAnswer},
    query=(
        Query("status", "Only mail of this status; `sent` is all that Amazon SES took and that did not come back."),
        Query("to", "Only mail to this address."),
        Query("tag", "Only mail with this tag, as `name=value`."),
        Query("since", "Only mail from this time on."),
        Query("until", "Only mail before this time."),
        Query("campaign", "The mail of this campaign instead of transactional mail; only `status` narrows it further."),
        *PAGE_QUERY,
    ),
    raises=(FieldsInvalid, MailNotFound),
)
async def page(request: Request) -> HTTPResponse:
    """GET /api/v1/emails: transactional mail, newest first; with `campaign` that campaign's."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    wanted, campaign = read_filter(request)
    asked = read_page_after(request, lambda text: _position(ctx.ids, text))
    after = None if asked.after_id is None else _split(asked.after_id)
    async with request.transaction() as conn:
        if campaign is not None:
            campaign_id = ctx.ids.find(Kind.CAMPAIGN, campaign)
            found, total = await service.page_of_campaign(
                conn, account_id, campaign_id, wanted, asked.limit, asked.offset, after[1] if after else 0
            )
        else:
            found = await service.page(conn, account_id, wanted, asked.limit, asked.offset, after)
            total = await service.count(conn, account_id, wanted)
    is_capped = campaign is None and total > TOTAL_CAP
    items: list[dict[str, Any]] = [dict(shown_mail(mail, ctx.ids)) for mail in found]
    return answer({**page_answer("emails", items, asked, TOTAL_CAP if is_capped else total), "totalCapped": is_capped})


@operation(answers={200: EmailDetailAnswer}, raises=(MailNotFound,))
async def get(request: Request, email_id: str) -> HTTPResponse:
    """GET /api/v1/emails/:id: one mail as it stands now, with all its events."""
    async with request.transaction() as conn:
        found = await service.get(conn, request.ctx.account.id, *_numbers(request.app.ctx.ids, email_id))
    return answer(dict(shown_detail(found, request.app.ctx.ids)))


@operation(answers={200: EmailDetailAnswer}, raises=(MailNotFound, MailNotCancellable))
async def cancel(request: Request, email_id: str) -> HTTPResponse:
    """POST /api/v1/emails/:id/cancel: takes back a scheduled mail. Nothing is sent and nothing is paid."""
    Fields(read_object(request)).finish()
    async with request.transaction() as conn:
        found = await service.cancel(conn, request.ctx.account.id, *_numbers(request.app.ctx.ids, email_id))
    return answer(dict(shown_detail(found, request.app.ctx.ids)))


# —— what both dialects do with a request ———————————————————————————————————————————————————————————————————————————————


async def prepare(request: Request, drafts: Sequence[MailDraft], key: Key | None) -> list[Mail]:
    """The mails ready to be sent, or everything that is wrong with them. Raises FieldsInvalid and what `service` raises.

    What came before under this key is answered as it was then, though its template or its sender may be gone by now: raises
    what `keys.recall` does.
    """
    try:
        return await _prepare(request, drafts)
    except MailrailError:
        caller = request.ctx.caller
        if key is not None and caller is not None:
            async with request.transaction() as conn:
                await keys.recall(conn, caller.account.id, caller.is_test, key)
        raise


async def _prepare(request: Request, drafts: Sequence[MailDraft]) -> list[Mail]:
    account, settings = request.ctx.account, request.app.ctx.settings
    errors: list[FieldError] = []
    prepared: list[Mail] = []
    default, found = await _look_up(request, drafts)
    for n, draft in enumerate(drafts):
        sender = draft.sender or default
        assert sender is not None
        path = f"emails[{n}]." if len(drafts) > 1 else ""
        try:
            prepared.append(service.prepare(service.filled(draft, found), sender, account, settings))
        except MailInvalid as error:
            errors += [FieldError(code, message, path + param) for code, message, param in error.errors]
        except TemplateNotFound as error:
            error.param = f"{path}template"
            raise
    if errors:
        raise FieldsInvalid(errors)
    if sum(len(mail.addresses) for mail in prepared) > SHARD_SIZE:
        message = f"A batch has at most {SHARD_SIZE} addresses in all."
        raise FieldsInvalid([FieldError("list_too_long", message, "emails")])
    return prepared


async def _look_up(
    request: Request, drafts: Sequence[MailDraft]
) -> tuple[tuple[str | None, str] | None, dict[Ref, Version]]:
    """The account's default sender and the templates, if one of the mails needs them."""
    needs_sender = any(draft.sender is None for draft in drafts)
    refs = [draft.template for draft in drafts if draft.template is not None]
    if not needs_sender and not refs:
        return None, {}
    async with request.transaction() as conn:
        default = await service.default_sender(conn, request.ctx.account) if needs_sender else None
        return default, await templates.find(conn, request.ctx.account.id, refs) if refs else {}


async def accept(request: Request, mails: Sequence[Mail], key: Key | None) -> list[Sent]:
    """Has them sent. Raises what `Mailroom.accept` does."""
    caller = request.ctx.caller
    assert caller is not None
    return await request.app.ctx.mailroom.accept(caller.account, mails, key=key, is_test=caller.is_test)


def read_key(request: Request, make_answer: Callable[[Sequence[Sent]], tuple[int, bytes]]) -> Key | None:
    """The request's Idempotency-Key, with what a repetition of it is answered. Raises FieldsInvalid."""
    owner = read_owner(request)
    return None if owner is None else Key(owner.key, fingerprint(request), make_answer)


def read_filter(request: Request) -> tuple[MailFilter, str | None]:
    """The filters of the query, and the campaign whose mail is asked for. Raises FieldsInvalid."""
    names = ("status", "to", "tag", "since", "until", "campaign")
    fields = Fields({name: request.args.get(name) for name in names})
    status = form.read_status(fields)
    to, tag = fields.text("to", FILTER_MAX_CHARS), fields.text("tag", FILTER_MAX_CHARS)
    since, until = fields.moment("since"), fields.moment("until")
    campaign = fields.text("campaign", FILTER_MAX_CHARS)
    fields.finish()
    caller = request.ctx.caller
    wanted = MailFilter(
        states=frozenset(map(int, STATES_BY_STATUS[status])) if status is not None else frozenset(),
        is_scheduled={MailStatus.SCHEDULED: True, MailStatus.QUEUED: False}.get(status) if status is not None else None,
        to=to,
        tag=tag,
        since=since,
        until=until,
        is_test=caller is not None and caller.is_test,
    )
    return wanted, campaign


# —— ids: a mail's position in a list is its stream and number in one ————————————————————————————————————————————————————


def _numbers(ids: Ids, text: str) -> tuple[int, int]:
    return ids.decode_email(text) or (NO_ROW, NO_ROW)


def _position(ids: Ids, text: str) -> int | None:
    found = ids.decode_email(text)
    return None if found is None else found[0] << 32 | found[1]


def _split(position: int) -> tuple[int, int]:
    return position >> 32, position & 0xFFFFFFFF


# —— answers ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


def kept(body: SentAnswer | BatchAnswer) -> tuple[int, bytes]:
    """The answer as an Idempotency-Key keeps it."""
    return 200, orjson.dumps(body)


def _answer_sent(body: SentAnswer, *, is_replay: bool) -> HTTPResponse:
    """200 for what was sent, 202 for what will be, an error for what was refused. Raises MailRejected, RecipientSuppressed."""
    refusal = REJECTED.get(MailStatus(body["status"]))
    if refusal is not None:
        error = refusal(f"{refusal()!s} ({body['reason']})" if body["reason"] else "")
        error.id = body["id"]
        raise error
    return _marked(answer(dict(body), 200 if body["status"] == MailStatus.SENT else 202), is_replay)


def answer_batch(body: BatchAnswer, *, is_replay: bool) -> HTTPResponse:
    """202 while nothing of it was sent yet, else 200."""
    return _marked(answer(dict(body), 202 if body["queued"] == body["total"] else 200), is_replay)


def _marked(response: HTTPResponse, is_replay: bool) -> HTTPResponse:
    if is_replay:
        response.headers[REPLAYED_HEADER] = "true"
    return response
