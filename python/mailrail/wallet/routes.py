"""…/wallet and …/pricing, the same in both dialects. Money comes in and goes back by an operator's key alone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.accounts import service as accounts
from mailrail.accounts.model import AccountNotFound
from mailrail.db.pool import Connection, in_the_name_of
from mailrail.ids import Ids, Kind
from mailrail.wallet import form, service
from mailrail.wallet.form import MoneyDraft
from mailrail.wallet.model import (
    TOTAL_CAP,
    Hold,
    HoldNotFound,
    RefundTooLarge,
    Transfer,
    TransferKeyUsed,
    TransferKind,
    Wallet,
)
from mailrail.wallet.pricing import Priced, price_list
from mailrail.web.answers import answer
from mailrail.web.auth import PUBLIC
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import FREE, Query, operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none, shown_usd

# Kind 0 of a stream is a campaign (migration 0001, new_stream_id).
KIND_SHIFT, KIND_MASK = 32, 7


class WalletAnswer(TypedDict):
    """What can be spent, what is set aside for mail under way, and what this month (UTC) cost so far; dollars are rounded,
    micro-dollars exact.
    """

    available: float
    availableMicros: int
    held: float
    heldMicros: int
    currency: str
    spentThisMonth: float
    spentThisMonthMicros: int
    monthlyCap: float | None
    monthlyCapMicros: int | None
    frozen: bool


class TransferAnswer(TypedDict):
    """Money that moved. `kind` is deposit, hold, capture, release or refund."""

    id: str
    kind: str
    amount: float
    amountMicros: int
    currency: str
    holdId: str | None
    campaignId: str | None
    createdAt: str


class TransfersAnswer(PageAnswer):
    """A page of transfers; `totalCapped` where they were not counted to the end."""

    transactions: list[TransferAnswer]
    totalCapped: bool  # noqa: N815  a key of JSON; ruff does not see that this is a TypedDict, too


class HoldAnswer(TypedDict):
    """Money set aside for one send, `recipients` times `priceMicros`: captured where mail was delivered, released where it was
    not, open where that is not known yet.
    """

    id: str
    type: str
    status: str
    campaignId: str | None
    recipients: int
    priceMicros: int
    amount: float
    amountMicros: int
    captured: float
    capturedMicros: int
    released: float
    releasedMicros: int
    refunded: float
    refundedMicros: int
    open: float
    openMicros: int
    currency: str
    createdAt: str
    closedAt: str | None


class HoldsAnswer(PageAnswer):
    """A page of holds; `totalCapped` where they were not counted to the end."""

    holds: list[HoldAnswer]
    totalCapped: bool  # noqa: N815  as above


class MovedAnswer(TypedDict):
    """What an operator moved, and the wallet after it. `created` is false where this key had moved it before."""

    accountId: str
    created: bool
    transaction: TransferAnswer
    wallet: WalletAnswer


class PriceAnswer(TypedDict):
    """The price of one operation; `unit` is what it is paid for."""

    endpoint: str
    method: str
    path: str
    price: str
    priceMicros: int
    unit: str | None


class PricingAnswer(TypedDict):
    """The prices of this account, paid operations first."""

    currency: str
    priceMicros: int
    pricing: list[PriceAnswer]


@operation(answers={200: WalletAnswer})
async def get(request: Request) -> HTTPResponse:
    """GET …/wallet: what can be spent, and what this month cost."""
    async with request.transaction() as conn:
        wallet = await service.get(conn, request.ctx.account.id)
    return answer(_shown(wallet))


@operation(answers={200: WalletAnswer}, reads=form.read_cap)
async def change(request: Request) -> HTTPResponse:
    """PATCH …/wallet: caps what a month may cost. `monthlyCapMicros` is what the sends of a month (UTC) may cost; null is no cap."""
    account_id = request.ctx.account.id
    fields = Fields(read_object(request))
    cap = form.read_cap(fields)
    fields.finish()
    async with request.transaction() as conn:
        if cap.is_given:
            await service.set_cap(conn, account_id, cap.micros)
        wallet = await service.get(conn, account_id)
    return answer(_shown(wallet))


@operation(
    answers={200: TransfersAnswer},
    query=(
        *PAGE_QUERY,
        Query("kind", "Only of this kind.", {"type": "string", "enum": [str(kind) for kind in TransferKind]}),
        Query("since", "Not before this time.", {"type": "string", "format": "date-time"}),
        Query("until", "Before this time.", {"type": "string", "format": "date-time"}),
    ),
)
async def page_transfers(request: Request) -> HTTPResponse:
    """GET …/wallet/transactions: money that moved, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.TRANSFER, ctx.ids)
    wanted = form.read_transfer_filter({name: request.args.get(name) for name in ("kind", "since", "until")})
    async with request.transaction() as conn:
        found = await service.transfers(conn, account_id, wanted, asked.limit, asked.offset, asked.after_id)
        total = await service.count_transfers(conn, account_id, wanted)
    items = [_shown_transfer(one, ctx.ids) for one in found]
    page = page_answer("transactions", items, asked, min(total, TOTAL_CAP))
    return answer({**page, "totalCapped": total > TOTAL_CAP})


@operation(
    answers={200: HoldsAnswer},
    query=(*PAGE_QUERY, Query("status", "Only these.", {"type": "string", "enum": ["open", "closed"]})),
)
async def page_holds(request: Request) -> HTTPResponse:
    """GET …/wallet/holds: money set aside for sends, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.HOLD, ctx.ids)
    is_open = form.read_is_open({"status": request.args.get("status")})
    async with request.transaction() as conn:
        found = await service.holds(conn, account_id, is_open, asked.limit, asked.offset, asked.after_id)
        total = await service.count_holds(conn, account_id, is_open)
    page = page_answer("holds", [_shown_hold(one, ctx.ids) for one in found], asked, min(total, TOTAL_CAP))
    return answer({**page, "totalCapped": total > TOTAL_CAP})


@operation(answers={200: HoldAnswer}, raises=(HoldNotFound,))
async def get_hold(request: Request, hold_id: str) -> HTTPResponse:
    """GET …/wallet/holds/:id: money set aside for one send, and what became of it."""
    ids = request.app.ctx.ids
    async with request.transaction() as conn:
        hold = await service.get_hold(conn, request.ctx.account.id, ids.find(Kind.HOLD, hold_id))
    return answer(_shown_hold(hold, ids))


@operation(
    answers={201: MovedAnswer, 200: MovedAnswer},
    reads=form.read_deposit,
    raises=(AccountNotFound, TransferKeyUsed),
)
async def deposit(request: Request) -> HTTPResponse:
    """POST …/wallet/deposit: adds money to an account's wallet, once for each `key`. For operators."""
    fields = Fields(read_object(request))
    draft = form.read_deposit(fields, request.app.ctx.ids)
    fields.finish()
    async with _acting_for(request, draft.account_id) as conn:
        key = f"operator:{draft.key}"
        created = await service.deposit(conn, draft.account_id, draft.amount_micros, key)
        return await _answer_moved(request, conn, draft, key, created=created)


@operation(
    answers={201: MovedAnswer, 200: MovedAnswer},
    reads=form.read_refund,
    raises=(AccountNotFound, HoldNotFound, RefundTooLarge, TransferKeyUsed),
)
async def refund(request: Request) -> HTTPResponse:
    """POST …/wallet/refund: gives back what was captured from a hold, once for each `key`. For operators."""
    fields = Fields(read_object(request))
    draft = form.read_refund(fields, request.app.ctx.ids)
    fields.finish()
    assert draft.hold_id is not None
    async with _acting_for(request, draft.account_id) as conn:
        key = f"refund:{draft.key}"
        created = await service.refund(conn, draft.account_id, draft.hold_id, draft.amount_micros, key)
        return await _answer_moved(request, conn, draft, key, created=created)


@operation(answers={200: PricingAnswer})
async def show_pricing(request: Request) -> HTTPResponse:
    """GET …/pricing: what each operation of this dialect costs."""
    settings = request.app.ctx.settings
    price_micros = request.ctx.account.price_micros if settings.billing else 0
    listed = price_list(_operations(request), price_micros)
    return answer(
        PricingAnswer(currency="USD", priceMicros=price_micros, pricing=[_shown_price(one) for one in listed])
    )


def _operations(request: Request) -> Sequence[tuple[str, str, str]]:
    """(method, path, price) of each route of the dialect in which was asked."""
    dialect = request.path.strip("/").rpartition("/")[0]
    return [
        (method, route.path, said.price if (said := getattr(route.handler, "operation", None)) else FREE)
        for route in request.app.router.routes
        if route.path.startswith(f"{dialect}/") and route.ctx.access != PUBLIC
        for method in route.methods
    ]


@asynccontextmanager
async def _acting_for(request: Request, account_id: int) -> AsyncIterator[Connection]:
    """The request's transaction in the name of another account. Raises AccountNotFound."""
    async with request.transaction() as conn, in_the_name_of(conn, account_id):
        await accounts.get(conn, account_id)
        yield conn


async def _answer_moved(
    request: Request, conn: Connection, draft: MoneyDraft, key: str, *, created: bool
) -> HTTPResponse:
    ids = request.app.ctx.ids
    moved = await service.find_transfer(conn, draft.account_id, key)
    wallet = await service.get(conn, draft.account_id)
    body: MovedAnswer = {
        "accountId": ids.encode(Kind.ACCOUNT, draft.account_id),
        "created": created,
        "transaction": _shown_transfer(moved, ids),
        "wallet": _shown(wallet),
    }
    return answer(body, 201 if created else 200)


def _shown(wallet: Wallet) -> WalletAnswer:
    balance, spending = wallet.balance, wallet.spending
    return {
        "available": shown_usd(balance.available_micros),
        "availableMicros": balance.available_micros,
        "held": shown_usd(balance.held_micros),
        "heldMicros": balance.held_micros,
        "currency": "USD",
        "spentThisMonth": shown_usd(spending.spent_micros),
        "spentThisMonthMicros": spending.spent_micros,
        "monthlyCap": None if spending.cap_micros is None else shown_usd(spending.cap_micros),
        "monthlyCapMicros": spending.cap_micros,
        "frozen": wallet.is_frozen,
    }


def _shown_transfer(one: Transfer, ids: Ids) -> TransferAnswer:
    return {
        "id": ids.encode(Kind.TRANSFER, one.id),
        "kind": one.kind,
        "amount": shown_usd(one.amount_micros),
        "amountMicros": one.amount_micros,
        "currency": "USD",
        "holdId": ids.encode_optional(Kind.HOLD, one.hold_id),
        "campaignId": ids.encode_optional(Kind.CAMPAIGN, one.campaign_id),
        "createdAt": shown_time(one.created_at),
    }


def _shown_hold(hold: Hold, ids: Ids) -> HoldAnswer:
    is_campaign = (hold.stream_id >> KIND_SHIFT) & KIND_MASK == 0
    return {
        "id": ids.encode(Kind.HOLD, hold.id),
        "type": "campaign" if is_campaign else "transactional",
        "status": "open" if hold.closed_at is None else "closed",
        "campaignId": ids.encode_optional(Kind.CAMPAIGN, hold.campaign_id),
        "recipients": hold.recipients,
        "priceMicros": hold.price_micros,
        "amount": shown_usd(hold.amount_micros),
        "amountMicros": hold.amount_micros,
        "captured": shown_usd(hold.captured_micros),
        "capturedMicros": hold.captured_micros,
        "released": shown_usd(hold.released_micros),
        "releasedMicros": hold.released_micros,
        "refunded": shown_usd(hold.refunded_micros),
        "refundedMicros": hold.refunded_micros,
        "open": shown_usd(hold.open_micros),
        "openMicros": hold.open_micros,
        "currency": "USD",
        "createdAt": shown_time(hold.created_at),
        "closedAt": shown_time_or_none(hold.closed_at),
    }


def _shown_price(one: Priced) -> PriceAnswer:
    return {
        "endpoint": f"{one.method} {one.path}",
        "method": one.method,
        "path": one.path,
        "price": one.price,
        "priceMicros": one.price_micros,
        "unit": one.unit,
    }
