"""…/account and …/keys, the same in both dialects. PATCH …/account is in domains/routes.py: a sender needs a verified domain."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.accounts import form, service
from mailrail.accounts.model import (
    Account,
    ApiKey,
    KeyInUse,
    KeyLimitReached,
    KeyNotFound,
    ScopeTooWide,
)
from mailrail.config import Settings
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import Query, operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.query import read_flag
from mailrail.web.values import shown_price, shown_time, shown_time_or_none


class AccountAnswer(TypedDict):
    """An account. `sender…`, `postalAddress` and `track…` are the defaults of its mail; plan and price are the operator's."""

    id: str
    name: str
    plan: str
    price: str
    priceMicros: int
    currency: str
    senderName: str | None
    senderEmail: str | None
    postalAddress: str | None
    trackOpens: bool
    trackClicks: bool
    unknownPolicy: str
    createdAt: str


class KeyAnswer(TypedDict):
    """An API key without its text. `lastUsedAt` is right to the minute."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    test: bool
    createdAt: str
    revokedAt: str | None
    lastUsedAt: str | None


class NewKeyAnswer(KeyAnswer):
    """A key when it is made: `key` is its text, which is shown now and never again."""

    key: str


class KeysAnswer(PageAnswer):
    """A page of API keys."""

    keys: list[KeyAnswer]


@operation(answers={200: AccountAnswer})
async def get(request: Request) -> HTTPResponse:
    """GET …/account: who you are, what mail costs, and the defaults of mail."""
    return answer(shown_account(request.ctx.account, request.app.ctx.settings, request.app.ctx.ids))


@operation(answers={200: KeysAnswer}, query=PAGE_QUERY)
async def page_keys(request: Request) -> HTTPResponse:
    """GET …/keys: API keys, newest first, revoked ones included."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.KEY, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page_keys(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count_keys(conn, account_id)
    return answer(page_answer("keys", [_shown(key, ctx.ids) for key in found], asked, total))


@operation(answers={201: NewKeyAnswer}, reads=form.read_key, raises=(ScopeTooWide, KeyLimitReached))
async def create_key(request: Request) -> HTTPResponse:
    """POST …/keys: makes a key that may do no more than the one that makes it. Its text is shown this once."""
    caller = request.ctx.caller
    assert caller is not None
    fields = Fields(read_object(request))
    draft = form.read_key(fields)
    fields.finish()
    async with request.transaction() as conn:
        key, text = await service.make_key(conn, caller, draft)
    return answer(NewKeyAnswer(**_shown(key, request.app.ctx.ids), key=text), 201)


@operation(
    answers={200: KeyAnswer},
    query=(Query("self", "`true` revokes the very key that this request came with.", {"type": "boolean"}),),
    raises=(KeyNotFound, KeyInUse),
)
async def revoke_key(request: Request, key_id: str) -> HTTPResponse:
    """DELETE …/keys/:id: revokes a key. Within seconds it opens nothing any more; it stays in the list, with the time of its end."""
    ids, caller = request.app.ctx.ids, request.ctx.caller
    assert caller is not None
    even_itself = read_flag(request, "self")
    async with request.transaction() as conn:
        row_id = ids.find(Kind.KEY, key_id)
        revoked = await service.revoke_own_key(conn, caller, row_id, even_itself=even_itself)
    request.app.ctx.proven_keys.forget(caller.account.id)
    return answer(_shown(revoked, ids))


def shown_account(account: Account, settings: Settings, ids: Ids) -> AccountAnswer:
    """An account as it is printed."""
    price_micros = account.price_micros if settings.billing else 0
    return {
        "id": ids.encode(Kind.ACCOUNT, account.id),
        "name": account.name,
        "plan": account.plan,
        "price": shown_price(price_micros),
        "priceMicros": price_micros,
        "currency": "USD",
        "senderName": account.sender_name,
        "senderEmail": account.sender_email,
        "postalAddress": account.postal_address,
        "trackOpens": account.track_opens,
        "trackClicks": account.track_clicks,
        "unknownPolicy": account.unknown_policy,
        "createdAt": shown_time(account.created_at),
    }


def _shown(key: ApiKey, ids: Ids) -> KeyAnswer:
    return {
        "id": ids.encode(Kind.KEY, key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "test": key.is_test,
        "createdAt": shown_time(key.created_at),
        "revokedAt": shown_time_or_none(key.revoked_at),
        "lastUsedAt": shown_time_or_none(key.last_used_at),
    }
