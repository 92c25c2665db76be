"""…/webhooks, the same in both dialects."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.ids import Ids, Kind
from mailrail.web.answers import DeletedAnswer, answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none
from mailrail.webhooks import form, service
from mailrail.webhooks.model import Endpoint, Secrets, WebhookLimitReached, WebhookNotFound, WebhookUrlInvalid


class WebhookAnswer(TypedDict):
    """A webhook endpoint and the events that it asks for."""

    id: str
    url: str
    events: list[str]
    isActive: bool
    description: str | None
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
    """PATCH …/webhooks/:id: changes what is given of an endpoint. `isActive: false` pauses deliveries, null clears `description`."""
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
