"""…/account/reputation, the same in both dialects."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.config import Settings
from mailrail.reputation import service
from mailrail.reputation.model import Reputation, thresholds
from mailrail.web.answers import answer
from mailrail.web.context import Request
from mailrail.web.openapi import operation
from mailrail.web.values import shown_time_or_none


class ThresholdAnswer(TypedDict):
    """From which rates on an account has the level, in percent."""

    level: str
    bouncePercent: float
    complaintPercent: float


class ReputationAnswer(TypedDict):
    """How an account stands, and why. The rates are of `mails` on which Amazon SES has had its last word since `countedSince`;
    fewer than `mailsMin` are not judged.
    """

    level: str
    reason: str | None
    mails: int
    mailsMin: int
    bounced: int
    bouncePercent: float
    complained: int
    complaintPercent: float
    countedSince: str | None
    thresholds: list[ThresholdAnswer]


@operation(answers={200: ReputationAnswer})
async def get(request: Request) -> HTTPResponse:
    """GET …/account/reputation: how much of your mail bounces or is called spam, and from what on it is stopped."""
    async with request.transaction() as conn:
        found = await service.get(conn, request.ctx.account.id)
    return answer(shown_reputation(found, request.app.ctx.settings))


def shown_reputation(found: Reputation, settings: Settings) -> ReputationAnswer:
    """A reputation as both dialects print it."""
    figures = found.figures
    return {
        "level": found.verdict.level,
        "reason": found.verdict.reason,
        "mails": figures.mails,
        "mailsMin": settings.reputation_mails_min,
        "bounced": figures.bounced,
        "bouncePercent": round(figures.bounce_percent, 4),
        "complained": figures.complained,
        "complaintPercent": round(figures.complaint_percent, 4),
        "countedSince": shown_time_or_none(figures.since),
        "thresholds": [
            {"level": one.level, "bouncePercent": one.bounce_percent, "complaintPercent": one.complaint_percent}
            for one in thresholds(settings)
        ],
    }
