"""The verbs of transactional mail: prepare, look up, list, cancel. Taking and sending it is `mailroom.py`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from mailrail import _core
from mailrail.accounts.model import Account
from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.domains import service as domains
from mailrail.emails import mails, traces
from mailrail.emails.engagement import Event, judged
from mailrail.emails.form import Mailbox, MailDraft, addresses_of
from mailrail.emails.mail import (
    SCHEDULE_MAX,
    TOTAL_CAP,
    Mail,
    MailNotCancellable,
    MailNotFound,
    MailStatus,
    Role,
    status_of,
)
from mailrail.emails.mails import MailFilter
from mailrail.emails.model import SKIP_WORDS, Claim, EventKind, Outcome, Result, State, fold
from mailrail.errors import MailrailError
from mailrail.templates.model import Ref, TemplateNotFound, Version

EVENT_WORDS = {
    EventKind.SEND: "sent",
    EventKind.DELIVERY: "delivered",
    EventKind.BOUNCE_PERMANENT: "bounced",
    EventKind.BOUNCE_TRANSIENT: "bounced",
    EventKind.REJECT: "failed",
    EventKind.RENDERING_FAILURE: "failed",
    EventKind.COMPLAINT: "complained",
    EventKind.DELIVERY_DELAY: "delayed",
    EventKind.OPEN: "opened",
    EventKind.CLICK: "clicked",
    EventKind.UNSUBSCRIBE: "unsubscribed",
}


# The core's names of fields where the dialects have others.
PARAMS = {"reply_to": "replyTo", "content_type": "contentType", "content_id": "contentId"}
PARAM = re.compile(r"^reply_to|(?<=\]\.)content_(?:type|id)$")


class MailInvalid(MailrailError):
    """The mail cannot be sent as it is; `errors` has a code, a message and a param for each reason."""

    code = "email_invalid_content"

    def __init__(self, errors: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(errors[0][1] if len(errors) == 1 else f"{len(errors)} fields are not valid.")
        self.errors = tuple(errors)


class ScheduleTooFar(MailrailError):
    """A mail can be scheduled for up to 30 days from now."""

    code = "schedule_too_far"
    param = "scheduledAt"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One address of a mail."""

    seq: int
    role: Role
    email: str
    state: State
    ses_message_id: str | None
    reason: str | None
    events: tuple[Event, ...]

    def count(self, kind: EventKind, *, machines: bool = False) -> int:
        """Events of a kind, by people or by machines."""
        return sum(event.kind is kind and (event.machine is not None) is machines for event in self.events)


@dataclass(frozen=True, slots=True)
class FoundMail:
    """A mail as it stands now."""

    stream_id: int
    seq: int
    created_at: datetime
    scheduled_at: datetime | None
    sender: str
    subject: str
    tags: list[str]
    is_test: bool
    campaign_id: int | None
    recipients: tuple[Recipient, ...]
    content: bytes | None = None

    @property
    def status(self) -> MailStatus:
        """The one word for all its addresses."""
        return status_of((one.state for one in self.recipients), self.scheduled_at, datetime.now(UTC))


async def default_sender(conn: Connection, account: Account) -> Mailbox:
    """(name, address) of mail that names none. Raises NoDefaultSender, SenderNotVerified."""
    return await domains.default_sender(conn, account)


def filled(draft: MailDraft, found: Mapping[Ref, Version]) -> MailDraft:
    """The draft with what its template says, if it names one; a subject of its own stays. Raises TemplateNotFound."""
    if draft.template is None:
        return draft
    if draft.template not in found:
        raise TemplateNotFound
    content = found[draft.template].content
    return replace(
        draft,
        subject=draft.subject or content.subject,
        preheader=content.preheader,
        html=content.html,
        text=content.text,
        variables=draft.variables or {},
    )


def prepare(draft: MailDraft, sender: Mailbox, account: Account, settings: Settings) -> Mail:
    """Renders and checks the mail, so that nothing but SES can refuse it. It is tracked where account and draft have it so; what
    its domain and its readers say of that is known only once it is taken. Raises MailInvalid, ScheduleTooFar.
    """
    tracking = account.tracking & draft.tracking
    scheduled_at = draft.scheduled_at
    if scheduled_at is not None and scheduled_at > datetime.now(UTC) + SCHEDULE_MAX:
        raise ScheduleTooFar
    if draft.subject is None:
        raise MailInvalid([("field_missing", "The template has no subject: give one beside it.", "subject")])
    wanted = {
        "from": _box(sender),
        **_boxes(draft),
        "reply_to": list(map(_box, draft.reply_to)),
        "subject": draft.subject,
        "preheader": draft.preheader,
        "html": draft.html,
        "text": draft.text,
        "headers": draft.headers,
        "attachments": draft.attachments,
        "variables": draft.variables or {},
        "render": draft.variables is not None,
        "track_opens": tracking.opens,
        "track_clicks": tracking.clicks,
        "base_url": settings.public_url,
        "postal_address": account.postal_address,
    }
    try:
        prepared = _core.prepare_mail(orjson.dumps(wanted), orjson.dumps({"max_mail_bytes": settings.mail_max_bytes}))
    except _core.MailError as error:
        raise MailInvalid(
            [(one["code"], one["message"], written_param(one["param"])) for one in error.errors]
        ) from error
    made = orjson.loads(prepared)
    return Mail(
        sender=sender[1],
        subject=made["subject"],
        addresses=addresses_of(draft),
        content=prepared,
        links=made["links"],
        tags=[f"{name}={value}" for name, value in draft.tags.items()],
        # What is due is sent at once.
        scheduled_at=scheduled_at if scheduled_at is not None and scheduled_at > datetime.now(UTC) else None,
        tracking=tracking,
        remade=lambda kept: prepare(replace(draft, tracking=kept), sender, account, settings),
    )


def written_param(param: str) -> str:
    """The core's name for a field as the request has it; a header's name stays as it is."""
    return PARAM.sub(lambda found: PARAMS[found[0]], param)


def _boxes(draft: MailDraft) -> dict[str, list[dict[str, str | None]]]:
    """Everybody once, where he stands first."""
    taken = {address.lower(): role for role, address in addresses_of(draft)}
    boxes: dict[str, list[dict[str, str | None]]] = {}
    for role, given in ((Role.TO, draft.to), (Role.CC, draft.cc), (Role.BCC, draft.bcc)):
        boxes[role.value] = [_box(box) for box in given if taken.pop(box[1].lower(), None) is not None]
    return boxes


def _box(box: Mailbox) -> dict[str, str | None]:
    return {"name": box[0], "email": box[1]}


# —— looking up ——————————————————————————————————————————————————————————————————————————————————————————————————————————


async def get(conn: Connection, account_id: int, stream_id: int, seq: int) -> FoundMail:
    """The mail with all that is known of it, as of now. Raises MailNotFound."""
    row = await mails.read_mail(conn, account_id, stream_id, seq)
    if row is None:
        raise MailNotFound
    facts = await mails.read_facts(conn, account_id, [row])
    return _found(row, tuple(map(_recipient, facts)))


async def page(
    conn: Connection, account_id: int, wanted: MailFilter, limit: int, offset: int, after: tuple[int, int] | None
) -> list[FoundMail]:
    """Newest first."""
    return await _look_at(conn, account_id, await mails.read_page(conn, account_id, wanted, limit, offset, after))


async def page_of_campaign(
    conn: Connection, account_id: int, campaign_id: int, wanted: MailFilter, limit: int, offset: int, after_seq: int
) -> tuple[list[FoundMail], int]:
    """A campaign's mails in the order of its audience, and how many there are. Only states narrow them.

    Raises MailNotFound for a campaign that is not the account's.
    """
    total = await mails.count_campaign(conn, account_id, campaign_id, wanted.states)
    if total is None:
        raise MailNotFound("There is no such campaign.")
    rows = await mails.read_campaign_page(conn, account_id, campaign_id, wanted.states, limit, offset, after_seq)
    return await _look_at(conn, account_id, rows), total


async def _look_at(conn: Connection, account_id: int, rows: Sequence[Any]) -> list[FoundMail]:
    facts = await mails.read_facts(conn, account_id, rows)
    found: dict[tuple[int, int], list[Recipient]] = {}
    for fact in facts:
        found.setdefault((fact["stream_id"], fact["first_seq"]), []).append(_recipient(fact))
    return [_found(row, tuple(found[row["stream_id"], row["seq"]])) for row in rows]


async def mails_of(
    conn: Connection, account_id: int, contact_id: int, folded: str, most: int
) -> list[tuple[int, FoundMail]]:
    """A person's own copies of mail, newest first, each with the first number of the whole mail."""
    rows = await traces.find_mails(conn, account_id, contact_id, folded, most)
    found = await _look_at(conn, account_id, rows)
    return [(row["first_seq"], mail) for row, mail in zip(rows, found, strict=True)]


async def address_of(conn: Connection, account_id: int, stream_id: int, seq: int) -> str | None:
    """The address that a mail went to; None where its records are gone, or its recipient was erased."""
    return await traces.read_address(conn, account_id, stream_id, seq)


async def count(conn: Connection, account_id: int, wanted: MailFilter) -> int:
    """How many there are; TOTAL_CAP + 1 stands for more."""
    return await mails.count(conn, account_id, wanted, TOTAL_CAP + 1)


async def cancel(conn: Connection, account_id: int, stream_id: int, seq: int) -> FoundMail:
    """Takes back a scheduled mail. A second time changes nothing. Raises MailNotFound, MailNotCancellable."""
    if not await mails.cancel(conn, account_id, stream_id, seq):
        found = await get(conn, account_id, stream_id, seq)
        if found.status is not MailStatus.CANCELLED:
            raise MailNotCancellable
        return found
    return await get(conn, account_id, stream_id, seq)


def _found(row: Any, recipients: tuple[Recipient, ...]) -> FoundMail:
    return FoundMail(
        stream_id=row["stream_id"],
        seq=row["seq"],
        created_at=row["created_at"],
        scheduled_at=row["scheduled_at"],
        sender=row["sender"],
        subject=row["subject"],
        tags=row["tags"],
        is_test=row["is_test"],
        campaign_id=row["campaign_id"],
        recipients=recipients,
        content=row.get("content"),
    )


def _recipient(fact: Any) -> Recipient:
    results = [Result(attempt, Outcome(outcome), _moment(at)) for attempt, outcome, at, _, _ in fact["results"]]
    heard = judged(
        [
            Event(EventKind(kind), _moment(at or received_at), detail, machine)
            for kind, received_at, at, detail, machine in fact["events"]
        ]
    )
    state = fold(
        [Claim(attempt, live) for attempt, live in fact["claims"]],
        results,
        [event.kind for event in heard],
        fact["now"],
        heard_at=min((_moment(received_at) for _, received_at, *_ in fact["events"]), default=None),
        permits=fact["permits"],
        cancelled=fact["cancelled"],
    )
    accepted = [Event(EventKind.SEND, result.at, None) for result in results if result.outcome is Outcome.ACCEPTED][:1]
    return Recipient(
        seq=fact["seq"],
        role=Role(fact["role"]),
        email=fact["email"],
        state=state,
        ses_message_id=next((message_id for *_, message_id, _ in fact["results"] if message_id), None),
        reason=_reason(state, fact["results"], heard),
        events=tuple(accepted + [event for event in heard if event.kind is not EventKind.SEND or not accepted]),
    )


def _reason(state: State, results: list[Any], heard: list[Event]) -> str | None:
    """Why it did not arrive, or not yet."""
    if state in (State.ACCEPTED, State.DELIVERED):
        return None
    if state is State.SKIPPED:
        return next(
            (error or SKIP_WORDS[outcome] for _, outcome, _, _, error in reversed(results) if outcome in SKIP_WORDS),
            None,
        )
    if state is State.EXPIRED:
        return "no word from SES within 72 hours"
    told = next((event.detail for event in reversed(heard) if event.detail and event.kind in EVENT_WORDS), None)
    return told or next((error for *_, error in reversed(results) if error), None)


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
