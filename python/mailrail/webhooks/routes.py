"""…/webhooks and their deliveries, the same in both dialects."""

from collections.abc import Sequence
from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.ids import Ids, Kind
from mailrail.web.answers import DeletedAnswer, answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields, FieldsInvalid
from mailrail.web.openapi import Query, operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none
from mailrail.webhooks import form, service
from mailrail.webhooks.destinations import WebhookUrlInvalid
from mailrail.webhooks.model import (
    TOTAL_CAP,
    Attempt,
    Delivery,
    DeliveryNotFound,
    Endpoint,
    Message,
    Secrets,
    WebhookInactive,
    WebhookLimitReached,
    WebhookNotFound,
)
from mailrail.webhooks.payload import body_of, headers_of


class WebhookAnswer(TypedDict):
    """A webhook endpoint and the events that it asks for. `failingSince` is when its attempts began to fail, all of them;
    `disabledAt` and `disabledReason` say when and why it was switched off for that.
    """

    id: str
    url: str
    events: list[str]
    isActive: bool
    description: str | None
    failingSince: str | None
    disabledAt: str | None
    disabledReason: str | None
    createdAt: str
    updatedAt: str


class NewWebhookAnswer(WebhookAnswer):
    """An endpoint when it is made: `secret` signs what is sent to it."""

    secret: str


class WebhooksAnswer(PageAnswer):
    """A page of webhook endpoints."""

    webhooks: list[WebhookAnswer]


class SecretAnswer(TypedDict):
    """What signs an endpoint's messages. After a rotation both secrets do, until `previousSecretUntil`."""

    id: str
    secret: str
    previousSecret: str | None
    previousSecretUntil: str | None


EXAMPLE_EVENTS = ["email.sent", "email.opened", "email.clicked", "email.bounced"]
EXAMPLE = (
    {"url": "https://your-app.com/webhook", "events": EXAMPLE_EVENTS},
    {
        "id": "whk_2k7f8x0q4m9d3w6z1r5t8y0u2i",
        "url": "https://your-app.com/webhook",
        "secret": "whsec_...",
        "events": EXAMPLE_EVENTS,
        "isActive": True,
        "description": None,
        "failingSince": None,
        "disabledAt": None,
        "disabledReason": None,
        "createdAt": "2026-04-08T10:15:00Z",
        "updatedAt": "2026-04-08T10:15:00Z",
    },
)


@operation(
    answers={201: NewWebhookAnswer},
    reads=form.read_endpoint,
    raises=(WebhookUrlInvalid, WebhookLimitReached),
    example=EXAMPLE,
)
async def create(request: Request) -> HTTPResponse:
    """POST …/webhooks: creates a webhook endpoint. The answer has the secret that signs what is sent to it."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    draft = form.read_endpoint(fields)
    fields.finish()
    async with request.transaction() as conn:
        created, secret = await service.create(conn, request.ctx.account.id, draft, ctx.settings)
    return answer(NewWebhookAnswer(**_shown(created, ctx.ids), secret=secret), 201)


@operation(answers={200: WebhooksAnswer}, query=PAGE_QUERY)
async def page(request: Request) -> HTTPResponse:
    """GET …/webhooks: webhook endpoints, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.WEBHOOK, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    return answer(page_answer("webhooks", [_shown(one, ctx.ids) for one in found], asked, total))


@operation(answers={200: WebhookAnswer}, raises=(WebhookNotFound,))
async def get(request: Request, webhook_id: str) -> HTTPResponse:
    """GET …/webhooks/:id: one webhook endpoint."""
    ids = request.app.ctx.ids
    async with request.transaction() as conn:
        found = await service.get(conn, request.ctx.account.id, ids.find(Kind.WEBHOOK, webhook_id))
    return answer(_shown(found, ids))


@operation(answers={200: WebhookAnswer}, reads=form.read_changes, raises=(WebhookNotFound, WebhookUrlInvalid))
async def change(request: Request, webhook_id: str) -> HTTPResponse:
    """PATCH …/webhooks/:id: changes what is given of an endpoint. Null clears `description`. With `isActive: false` nothing is
    sent, and what happens meanwhile is not kept for it; with true, what waited goes on.
    """
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    changes = form.read_changes(fields)
    fields.finish()
    async with request.transaction() as conn:
        row_id = ctx.ids.find(Kind.WEBHOOK, webhook_id)
        changed = await service.change(conn, request.ctx.account.id, row_id, changes, ctx.settings)
    return answer(_shown(changed, ctx.ids))


@operation(answers={200: DeletedAnswer}, raises=(WebhookNotFound,))
async def delete(request: Request, webhook_id: str) -> HTTPResponse:
    """DELETE …/webhooks/:id: deletes an endpoint. Nothing more is sent to it."""
    ids = request.app.ctx.ids
    row_id = ids.find(Kind.WEBHOOK, webhook_id)
    async with request.transaction() as conn:
        await service.delete(conn, request.ctx.account.id, row_id)
    return answer(DeletedAnswer(id=ids.encode(Kind.WEBHOOK, row_id), deleted=True))


@operation(answers={200: SecretAnswer}, raises=(WebhookNotFound,))
async def show_secret(request: Request, webhook_id: str) -> HTTPResponse:
    """GET …/webhooks/:id/secret: what signs the messages of an endpoint."""
    ctx = request.app.ctx
    async with request.transaction() as conn:
        found = await service.get(conn, request.ctx.account.id, ctx.ids.find(Kind.WEBHOOK, webhook_id))
        secrets = await service.secrets_of(conn, found, ctx.settings)
    return answer(_shown_secrets(found, secrets, ctx.ids))


@operation(answers={200: SecretAnswer}, raises=(WebhookNotFound,))
async def rotate_secret(request: Request, webhook_id: str) -> HTTPResponse:
    """POST …/webhooks/:id/rotate-secret: makes a new secret. The one so far signs beside it for 24 hours."""
    ctx = request.app.ctx
    Fields(read_object(request)).finish()
    async with request.transaction() as conn:
        row_id = ctx.ids.find(Kind.WEBHOOK, webhook_id)
        rotated, secrets = await service.rotate_secret(conn, request.ctx.account.id, row_id, ctx.settings)
    return answer(_shown_secrets(rotated, secrets, ctx.ids))


def _shown(endpoint: Endpoint, ids: Ids) -> WebhookAnswer:
    return {
        "id": ids.encode(Kind.WEBHOOK, endpoint.id),
        "url": endpoint.url,
        "events": endpoint.events,
        "isActive": endpoint.is_active,
        "description": endpoint.description,
        "failingSince": shown_time_or_none(endpoint.failing_since),
        "disabledAt": shown_time_or_none(endpoint.disabled_at),
        "disabledReason": endpoint.disabled_reason,
        "createdAt": shown_time(endpoint.created_at),
        "updatedAt": shown_time(endpoint.updated_at),
    }


def _shown_secrets(endpoint: Endpoint, secrets: Secrets, ids: Ids) -> SecretAnswer:
    return {
        "id": ids.encode(Kind.WEBHOOK, endpoint.id),
        "secret": secrets.current,
        "previousSecret": secrets.previous,
        "previousSecretUntil": shown_time_or_none(secrets.previous_until),
    }


# —— deliveries ————————————————————————————————————————————————————————————————————————————————————————————————————————


class DeliveryAnswer(TypedDict):
    """A message on its way to an endpoint. `eventId` is its `webhook-id`, the same in every attempt and replay."""

    id: str
    webhookId: str
    eventId: str
    type: str
    status: str
    attempts: int
    nextAttemptAt: str | None
    createdAt: str
    endedAt: str | None


class DeliveriesAnswer(TypedDict):
    """A page of deliveries, newest first; `totalCapped` says that there are more than `total`."""

    deliveries: list[DeliveryAnswer]
    total: int
    page: int
    pages: int
    limit: int
    after: str | None
    totalCapped: bool


class DeliveryRequestAnswer(TypedDict):
    """What is sent: `body` is the text that is signed. The headers of signatures are left out."""

    url: str
    headers: dict[str, str]
    body: str


class AttemptAnswer(TypedDict):
    """One try: the status and the first 4 KB of the answer, or in `error` why there was none."""

    attempt: int
    at: str
    durationMs: int
    httpStatus: int | None
    error: str | None
    answer: str | None


class DeliveryDetailAnswer(DeliveryAnswer):
    """A delivery with what is sent and how each attempt went, oldest first."""

    request: DeliveryRequestAnswer
    log: list[AttemptAnswer]


class ReplayAnswer(TypedDict):
    """How many deliveries are due again; `moreFrom` is the `from` with which to go on where there are more, else null."""

    replayed: int
    moreFrom: str | None


DELIVERY_QUERY = (
    Query("status", "Only of this status.", {"type": "string", "enum": list(form.DELIVERY_STATUSES)}),
    Query("type", "Only of this type.", {"type": "string", "enum": list(form.DELIVERY_TYPES)}),
    *PAGE_QUERY,
)


@operation(answers={200: DeliveriesAnswer}, query=DELIVERY_QUERY, raises=(FieldsInvalid, WebhookNotFound))
async def page_deliveries(request: Request, webhook_id: str) -> HTTPResponse:
    """GET …/webhooks/:id/deliveries: lists what went to an endpoint in the last 30 days and what waits, newest first."""
    ids, account_id = request.app.ctx.ids, request.ctx.account.id
    wanted = form.read_filter({name: request.args.get(name) for name in ("status", "type")})
    asked = read_page(request, Kind.DELIVERY, ids)
    async with request.transaction() as conn:
        found, total = await service.page_deliveries(
            conn, account_id, ids.find(Kind.WEBHOOK, webhook_id), wanted, asked.limit, asked.offset, asked.after_id
        )
    items = [_shown_delivery(one, ids) for one in found]
    return answer({**page_answer("deliveries", items, asked, min(total, TOTAL_CAP)), "totalCapped": total > TOTAL_CAP})


@operation(answers={200: DeliveryDetailAnswer}, raises=(DeliveryNotFound, WebhookNotFound))
async def get_delivery(request: Request, delivery_id: str) -> HTTPResponse:
    """GET …/webhooks/deliveries/:id: returns a delivery with what is sent and how each attempt went."""
    ids = request.app.ctx.ids
    async with request.transaction() as conn:
        delivery, message, attempts, endpoint = await service.get_delivery(
            conn, request.ctx.account.id, ids.find(Kind.DELIVERY, delivery_id)
        )
    return answer(
        DeliveryDetailAnswer(
            **_shown_delivery(delivery, ids),
            request=_shown_request(message, attempts, endpoint, ids),
            log=[_shown_attempt(one) for one in attempts],
        )
    )


@operation(answers={202: DeliveryAnswer}, raises=(DeliveryNotFound, WebhookNotFound, WebhookInactive))
async def replay(request: Request, delivery_id: str) -> HTTPResponse:
    """POST …/webhooks/deliveries/:id/replay: makes a delivery once more, however it ended, with the same `webhook-id`."""
    ids = request.app.ctx.ids
    Fields(read_object(request)).finish()
    async with request.transaction() as conn:
        found = await service.replay(conn, request.ctx.account.id, ids.find(Kind.DELIVERY, delivery_id))
    return answer(_shown_delivery(found, ids), 202)


@operation(answers={202: ReplayAnswer}, reads=form.read_range, raises=(WebhookNotFound, WebhookInactive))
async def replay_range(request: Request, webhook_id: str) -> HTTPResponse:
    """POST …/webhooks/:id/replay: makes an endpoint's deliveries of a time once more. They are those `from` a moment on, `to`
    another, of `types` and of `status`; at most 10,000 at once, oldest first. What has attempts before it is left to those.
    """
    account_id = request.ctx.account.id
    row_id = request.app.ctx.ids.find(Kind.WEBHOOK, webhook_id)
    fields = Fields(read_object(request))
    async with request.transaction() as conn:
        await service.get(conn, account_id, row_id)
        wanted = form.read_range(fields)
        fields.finish()
        replayed, more_from = await service.replay_range(conn, account_id, row_id, wanted)
    return answer(ReplayAnswer(replayed=replayed, moreFrom=None if more_from is None else more_from.isoformat()), 202)


@operation(answers={202: DeliveryAnswer}, raises=(WebhookNotFound, WebhookInactive))
async def send_test(request: Request, webhook_id: str) -> HTTPResponse:
    """POST …/webhooks/:id/test: sends an event of type `webhook.test`, whatever the endpoint asks for."""
    ids = request.app.ctx.ids
    Fields(read_object(request)).finish()
    async with request.transaction() as conn:
        found = await service.send_test(conn, request.ctx.account.id, ids.find(Kind.WEBHOOK, webhook_id))
    return answer(_shown_delivery(found, ids), 202)


def _shown_delivery(one: Delivery, ids: Ids) -> DeliveryAnswer:
    return {
        "id": ids.encode(Kind.DELIVERY, one.id),
        "webhookId": ids.encode(Kind.WEBHOOK, one.endpoint_id),
        "eventId": ids.encode(Kind.WEBHOOK_MESSAGE, one.message_id),
        "type": one.type,
        "status": one.status,
        "attempts": one.attempts,
        "nextAttemptAt": shown_time_or_none(one.due_at),
        "createdAt": shown_time(one.created_at),
        "endedAt": shown_time_or_none(one.ended_at),
    }


def _shown_request(
    message: Message, attempts: Sequence[Attempt], endpoint: Endpoint, ids: Ids
) -> DeliveryRequestAnswer:
    # The last try's; before the first one, as it would be if it were now.
    at = attempts[-1].at if attempts else message.at
    return {
        "url": endpoint.url,
        "headers": headers_of(ids.encode(Kind.WEBHOOK_MESSAGE, message.id), at),
        "body": body_of(message, ids).decode(),
    }


def _shown_attempt(one: Attempt) -> AttemptAnswer:
    return {
        "attempt": one.attempt,
        "at": shown_time(one.at),
        "durationMs": one.duration_ms,
        "httpStatus": one.http_status,
        "error": one.error,
        "answer": one.answer,
    }
