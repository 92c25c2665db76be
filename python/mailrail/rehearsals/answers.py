"""What answers about rehearsals hold."""

import math
from typing import Literal, TypedDict

from mailrail.campaigns.answers import SenderAnswer
from mailrail.ids import Ids, Kind
from mailrail.rehearsals.model import HTML_SHOWN_MAX_BYTES, Check, DryRun, Preflight, Preview, Size
from mailrail.web.values import shown_time_or_none, shown_usd


class ReaderAnswer(TypedDict):
    """For whom a mail was rendered; `id` is null for a made-up reader."""

    id: str | None
    email: str


PreviewAnswer = TypedDict(
    "PreviewAnswer",
    {
        "id": str,
        "subject": str,
        "html": str,
        "text": str,
        "from": SenderAnswer | None,
        "replyTo": list[str],
        "contact": ReaderAnswer,
        "unresolved": list[str],
        "warnings": list[str],
    },
)


class ReachAnswer(TypedDict):
    """Whom an audience matches: matched = recipients + all that is skipped, which stands by reason."""

    matched: int
    recipients: int
    skipped: dict[str, int]


class RehearsedPriceAnswer(TypedDict):
    """What a send would set aside, in dollars and exactly."""

    estimated: float
    estimatedMicros: int
    perRecipientMicros: int
    currency: str


class RehearsedWalletAnswer(TypedDict):
    """What is there to pay with, and what would be left; the month's cap leaves null where there is none."""

    available: float
    availableMicros: int
    leftMicros: int
    monthlyCapLeftMicros: int | None


class RehearsedSenderAnswer(TypedDict):
    """Who the mail would be from; without an address there is nobody who may send."""

    name: str | None
    email: str | None
    verified: bool


class RehearsedSizeAnswer(TypedDict):
    """How much would be sent: a mail to a made-up reader, and all of them. Null where it cannot be rendered for one."""

    mailBytes: int | None
    totalBytes: int | None


class ProblemAnswer(TypedDict):
    """Why a launch would be refused, as its error would say."""

    code: str
    message: str
    param: str | None


DryRunAnswer = TypedDict(
    "DryRunAnswer",
    {
        "id": str,
        "status": str,
        "ready": bool,
        "problems": list[ProblemAnswer],
        "warnings": list[str],
        "audience": ReachAnswer,
        "price": RehearsedPriceAnswer,
        "wallet": RehearsedWalletAnswer,
        "enough": bool,
        "finishAt": str | None,
        "from": RehearsedSenderAnswer,
        "size": RehearsedSizeAnswer,
    },
)


class DetailAnswer(TypedDict):
    """One thing that a check found, and what it is about: a link, a variable, so many contacts and up to three of them. Null
    where it is about none.
    """

    code: str
    message: str
    url: str | None
    variable: str | None
    contacts: int | None
    contactIds: list[str]


class CheckAnswer(TypedDict):
    """One question of a pre-flight. A launch would be refused for what fails; what warns would go out as it is."""

    code: str
    status: Literal["pass", "warn", "fail"]
    message: str
    remedy: str | None
    details: list[DetailAnswer]


class FinishAnswer(TypedDict):
    """When the last mail would leave, if nothing else is sent: null where Amazon SES lets nothing be sent. `quotaLeft` is what
    campaigns may send today; null without a quota.
    """

    seconds: int | None
    at: str | None
    ratePerSecond: float
    quotaLeft: int | None


class PreflightSizeAnswer(TypedDict):
    """Bytes of the mail in the middle of those that were rendered, and of the largest HTML among them. Gmail shows the HTML up
    to `clippedAtBytes`.
    """

    htmlBytes: int
    textBytes: int
    totalBytes: int
    largestHtmlBytes: int
    clippedAtBytes: int


class PreflightAnswer(TypedDict):
    """All that can be known of a launch before it; it is ready where no check fails. `size` is null where no mail can be made."""

    id: str
    status: str
    ready: bool
    checks: list[CheckAnswer]
    audience: ReachAnswer
    price: RehearsedPriceAnswer
    wallet: RehearsedWalletAnswer
    enough: bool
    finishes: FinishAnswer
    size: PreflightSizeAnswer | None


def shown_preview(found: Preview, ids: Ids) -> PreviewAnswer:
    """As a reader sees it."""
    return {
        "id": ids.encode(Kind.CAMPAIGN, found.campaign.id),
        "subject": found.rendered.subject,
        "html": found.rendered.html,
        "text": found.rendered.text,
        "from": found.sender and {"name": found.sender[0], "email": found.sender[1]},
        "replyTo": found.campaign.reply_to,
        "contact": {"id": ids.encode_optional(Kind.CONTACT, found.reader.contact_id), "email": found.reader.email},
        "unresolved": found.unresolved,
        "warnings": found.warnings,
    }


def shown_dry_run(found: DryRun, ids: Ids) -> DryRunAnswer:
    """What a launch would do."""
    name, email = found.sender or (found.campaign.from_name, found.campaign.from_email)
    total = None if found.mail_bytes is None else found.mail_bytes * found.reach.recipients
    return {
        "id": ids.encode(Kind.CAMPAIGN, found.campaign.id),
        "status": found.campaign.status.shown,
        "ready": not found.problems,
        "problems": [{"code": one.code, "message": str(one), "param": one.param} for one in found.problems],
        "warnings": found.warnings,
        "audience": _shown_reach(found),
        "price": _shown_price(found),
        "wallet": _shown_wallet(found),
        "enough": found.is_affordable,
        "finishAt": shown_time_or_none(found.finish_at),
        "from": {"name": name, "email": email, "verified": found.sender is not None},
        "size": {"mailBytes": found.mail_bytes, "totalBytes": total},
    }


def shown_preflight(found: Preflight, ids: Ids) -> PreflightAnswer:
    """Every check, and the figures of a dry run."""
    run, limits = found.run, found.limits
    is_finite = not math.isinf(found.seconds)
    left = limits.day_left - limits.reserve
    return {
        "id": ids.encode(Kind.CAMPAIGN, run.campaign.id),
        "status": run.campaign.status.shown,
        "ready": found.is_ready,
        "checks": [_shown_check(check, ids) for check in found.checks],
        "audience": _shown_reach(run),
        "price": _shown_price(run),
        "wallet": _shown_wallet(run),
        "enough": run.is_affordable,
        "finishes": {
            "seconds": math.ceil(found.seconds) if is_finite else None,
            "at": shown_time_or_none(run.finish_at),
            "ratePerSecond": round(limits.rate, 3),
            "quotaLeft": None if math.isinf(left) else max(0, int(left)),
        },
        "size": None if found.size is None else _shown_size(found.size),
    }


def _shown_size(size: Size) -> PreflightSizeAnswer:
    return {
        "htmlBytes": size.html_bytes,
        "textBytes": size.text_bytes,
        "totalBytes": size.total_bytes,
        "largestHtmlBytes": size.largest_html_bytes,
        "clippedAtBytes": HTML_SHOWN_MAX_BYTES,
    }


def _shown_check(check: Check, ids: Ids) -> CheckAnswer:
    return {
        "code": check.code,
        "status": check.standing.value,
        "message": check.message,
        "remedy": check.remedy,
        "details": [
            {
                "code": one.code,
                "message": one.message,
                "url": one.url,
                "variable": one.variable,
                "contacts": one.contacts,
                "contactIds": [ids.encode(Kind.CONTACT, contact_id) for contact_id in one.contact_ids],
            }
            for one in check.details
        ],
    }


def _shown_reach(run: DryRun) -> ReachAnswer:
    return {"matched": run.reach.matched, "recipients": run.reach.recipients, "skipped": dict(run.reach.skipped)}


def _shown_price(run: DryRun) -> RehearsedPriceAnswer:
    return {
        "estimated": shown_usd(run.cost_micros),
        "estimatedMicros": run.cost_micros,
        "perRecipientMicros": run.price_micros,
        "currency": "USD",
    }


def _shown_wallet(run: DryRun) -> RehearsedWalletAnswer:
    return {
        "available": shown_usd(run.available_micros),
        "availableMicros": run.available_micros,
        "leftMicros": run.available_micros - run.cost_micros,
        "monthlyCapLeftMicros": run.cap_left_micros,
    }
