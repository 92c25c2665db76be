"""The door for Amazon SNS."""

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, empty

from mailrail.events.model import IntakeUnavailable, NotificationRefused
from mailrail.events.service import Intake

blueprint = Blueprint("events")


@blueprint.post("/events/sns")
async def take_notification(request: Request) -> HTTPResponse:
    """200 once stored, 403 for what no topic of ours signed. Overload answers 503, never 4xx: SNS drops on 4xx and
    repeats on 5xx (SNS guide, delivery retries).
    """
    intake: Intake = request.app.ctx.intake
    try:
        await intake.take(request.body)
    except NotificationRefused:
        return empty(403)
    except IntakeUnavailable:
        return empty(503, headers={"Retry-After": "5"})
    return empty(200)
