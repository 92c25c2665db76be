"""What the API shows of transactional mail: the forms of its answers, and how a mail gets into them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypedDict

import orjson

from mailrail.emails.mail import (
    STATUS_OF,
    MailRejected,
    MailStatus,
    RecipientSuppressed,
    Role,
    state_after,
    status_of,
)
from mailrail.emails.model import EventKind, State
from mailrail.emails.service import EVENT_WORDS, FoundMail
from mailrail.emails.submission import Sent
from mailrail.ids import Ids, Kind
from mailrail.web.values import shown_time, shown_time_or_none

REJECTED: dict[MailStatus, type[MailRejected] | type[RecipientSuppressed]] = {
    MailStatus.FAILED: MailRejected,
    MailStatus.SUPPRESSED: RecipientSuppressed,
}


class SentAnswer(TypedDict):
    """A mail that was taken. `messageId` is that of Amazon SES, null until it has one."""

    id: str
    status: str
    messageId: str | None
    to: str
    scheduledAt: str | None
    reason: str | None


class BatchItemAnswer(TypedDict):
    """One mail of a batch."""

    to: str
    id: str
    status: str
    messageId: str | None
    reason: str | None


class BatchAnswer(TypedDict):
    """A batch in the order of its request; total = sent + queued + failed."""

    results: list[BatchItemAnswer]
    total: int
    sent: int
    queued: int
    failed: int


EmailAnswer = TypedDict(
    "EmailAnswer",
    {
        "id": str,
        "to": str,
        "from": str,
        "subject": str,
        "status": str,
        "opens": int,
        "clicks": int,
        "machineOpens": int,
        "machineClicks": int,
        "tags": dict[str, str],
        "campaignId": str | None,
        "test": bool,
        "createdAt": str,
        "scheduledAt": str | None,
    },
)


class RecipientAnswer(TypedDict):
    """Where one address of a mail stands."""

    email: str
    role: str
    status: str
    reason: str | None
    messageId: str | None


class EmailDetail(EmailAnswer):
    """A mail with its addresses and, for transactional mail, what was sent."""

    recipients: list[RecipientAnswer]
    messageId: str | None  # noqa: N815  a key of JSON; ruff does not see that this is a TypedDict, too
    html: str | None
    text: str | None


class EventAnswer(TypedDict):
    """What happened to a mail. `machine` says of an open or a click how it shows that no person made it: `announced` as a look
    ahead, `privacy` (Apple's protection), `scanner`, `program`, `amazon` (by its judgement), `soon` (about when the mail
    arrived) or `burst` (several links at once); null where a person did.
    """

    type: str
    createdAt: str
    email: str
    detail: str | None
    machine: str | None


class EmailDetailAnswer(TypedDict):
    """A mail and all its events, oldest first."""

    email: EmailDetail
    events: list[EventAnswer]


class EmailsAnswer(TypedDict):
    """A page of mails, newest first; `totalCapped` says that there are more than `total`."""

    emails: list[EmailAnswer]
    total: int
    page: int
    pages: int
    limit: int
    after: str | None
    totalCapped: bool


def sent_answer(sent: Sent, ids: Ids) -> SentAnswer:
    """What came of one mail."""
    known = [one for one in sent.outcomes if one is not None]
    states = {State.PENDING if one is None else state_after(one.outcome) for one in sent.outcomes}
    # A mail that reached somebody is sent, whoever else it did not reach: its detail tells.
    reached = states & {State.PENDING, State.ACCEPTED} or states
    status = status_of(reached, sent.mail.scheduled_at, datetime.now(UTC))
    return {
        "id": ids.encode_email(sent.stream_id, sent.first_seq),
        "status": status,
        "messageId": next((one.ses_message_id for one in known if one.ses_message_id), None),
        "to": _joined(address for role, address in sent.mail.addresses if role is Role.TO),
        "scheduledAt": shown_time_or_none(sent.mail.scheduled_at),
        "reason": next((one.error for one in known if one.error), None)
        if status not in (MailStatus.SENT, MailStatus.SUPPRESSED)
        else None,
    }


def batch_answer(taken: Sequence[Sent], ids: Ids) -> BatchAnswer:
    """What came of mails that were taken together."""
    items = [sent_answer(sent, ids) for sent in taken]
    sent = sum(item["status"] == MailStatus.SENT for item in items)
    failed = sum(item["status"] in REJECTED for item in items)
    return {
        "results": [
            {
                "to": item["to"],
                "id": item["id"],
                "status": item["status"],
                "messageId": item["messageId"],
                "reason": item["reason"],
            }
            for item in items
        ],
        "total": len(items),
        "sent": sent,
        "queued": len(items) - sent - failed,
        "failed": failed,
    }


def shown_mail(mail: FoundMail, ids: Ids) -> EmailAnswer:
    """A mail as lists print it."""
    return {
        "id": ids.encode_email(mail.stream_id, mail.seq),
        "to": _joined(one.email for one in mail.recipients if one.role is Role.TO),
        "from": mail.sender,
        "subject": mail.subject,
        "status": mail.status,
        "opens": sum(one.count(EventKind.OPEN) for one in mail.recipients),
        "clicks": sum(one.count(EventKind.CLICK) for one in mail.recipients),
        "machineOpens": sum(one.count(EventKind.OPEN, machines=True) for one in mail.recipients),
        "machineClicks": sum(one.count(EventKind.CLICK, machines=True) for one in mail.recipients),
        "tags": dict(tag.split("=", 1) for tag in mail.tags),
        "campaignId": ids.encode_optional(Kind.CAMPAIGN, mail.campaign_id),
        "test": mail.is_test,
        "createdAt": shown_time(mail.created_at),
        "scheduledAt": shown_time_or_none(mail.scheduled_at),
    }


def shown_detail(mail: FoundMail, ids: Ids) -> EmailDetailAnswer:
    """A mail with each of its addresses, its content and all that happened to it."""
    content = orjson.loads(mail.content) if mail.content else {}
    return {
        "email": {
            **shown_mail(mail, ids),
            "recipients": [
                {
                    "email": one.email,
                    "role": one.role,
                    "status": STATUS_OF[one.state],
                    "reason": one.reason,
                    "messageId": one.ses_message_id,
                }
                for one in mail.recipients
            ],
            "messageId": next((one.ses_message_id for one in mail.recipients if one.ses_message_id), None),
            "html": content.get("html"),
            "text": content.get("text"),
        },
        "events": shown_events(mail),
    }


def shown_events(mail: FoundMail) -> list[EventAnswer]:
    """All that happened to a mail, oldest first."""
    events = sorted(
        ((event.at, event, one) for one in mail.recipients for event in one.events),
        key=lambda entry: (entry[0], entry[1].kind),
    )
    return [
        {
            "type": EVENT_WORDS[event.kind],
            "createdAt": shown_time(at),
            "email": one.email,
            "detail": event.detail,
            "machine": event.machine,
        }
        for at, event, one in events
    ]


def _joined(addresses: Iterable[str]) -> str:
    return ", ".join(addresses)
