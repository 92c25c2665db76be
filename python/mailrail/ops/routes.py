"""/healthz, /readyz and /metrics of the API; those of a worker are in `health.py`."""

import asyncio
from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.db.pool import DATABASE_ERRORS
from mailrail.ops import store
from mailrail.ops.metrics import CONTENT_TYPE, MetricsRefused, check_public
from mailrail.web.answers import answer
from mailrail.web.context import Request
from mailrail.web.openapi import TEXT, operation

READY_TIMEOUT_S = 2.0


class StateAnswer(TypedDict):
    """How the process is, in a word or two."""

    status: str


@operation(answers={200: StateAnswer})
async def health(request: Request) -> HTTPResponse:
    """GET /healthz: the process lives."""
    return answer(StateAnswer(status="ok"))


@operation(answers={200: StateAnswer, 503: StateAnswer})
async def readiness(request: Request) -> HTTPResponse:
    """GET /readyz: whether requests are welcome. 503 without the database and while the process goes down."""
    ctx = request.app.ctx
    if ctx.draining:
        return answer(StateAnswer(status="draining"), 503)
    try:
        async with asyncio.timeout(READY_TIMEOUT_S), ctx.pool.acquire() as conn:
            await store.ping(conn)
    except DATABASE_ERRORS:
        return answer(StateAnswer(status="no database"), 503)
    return answer(StateAnswer(status="ready"))


@operation(answers={200: TEXT}, raises=(MetricsRefused,))
async def metrics(request: Request) -> HTTPResponse:
    """GET /metrics: figures in Prometheus's text form, for operators; they need `MAILRAIL_METRICS_TOKEN` as bearer token."""
    ctx = request.app.ctx
    check_public(ctx.settings, request.headers.get("authorization"))
    return HTTPResponse(await ctx.metrics.text(ctx.pool), content_type=CONTENT_TYPE)
