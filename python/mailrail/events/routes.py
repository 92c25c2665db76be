"""The door for Amazon SNS."""

from sanic.response import HTTPResponse, empty

from mailrail.events.model import IntakeUnavailable, NotificationRefused
from mailrail.web.context import Request
from mailrail.web.openapi import operation


@operation(answers={200: None}, raises=(NotificationRefused, IntakeUnavailable))
async def take_notification(request: Request) -> HTTPResponse:
    """POST /events/sns: takes a notification of Amazon SNS. 200 once stored, 403 for what no topic of ours signed.

    Overload answers 503, never 4xx: SNS drops on 4xx and repeats on 5xx (SNS guide, delivery retries).
    """
    await request.app.ctx.intake.take(request.body)
    return empty(200)
