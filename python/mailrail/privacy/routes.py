"""DELETE …/contacts/:id, erasures and exports, the same in both dialects."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.contacts import service as contacts
from mailrail.contacts.model import ContactNotFound
from mailrail.contacts.routes import ConsentAnswer, ContactAnswer, shown_consent, shown_contact
from mailrail.emails.answers import EmailAnswer, EventAnswer, shown_events, shown_mail
from mailrail.ids import Ids, Kind
from mailrail.privacy import service
from mailrail.privacy.model import MAILS_MAX, Erasure, ErasureNotFound, Export
from mailrail.suppressions.routes import SuppressionAnswer, shown_suppression
from mailrail.web.answers import answer
from mailrail.web.context import Request
from mailrail.web.openapi import Query, operation
from mailrail.web.values import shown_time, shown_time_or_none


class RemovedAnswer(TypedDict):
    """What is gone. `erasureId` is there where the person is being erased as well."""

    id: str
    deleted: bool
    erasureId: str | None


class ErasureAnswer(TypedDict):
    """How far an erasure is: processing or completed."""

    id: str
    contactId: str
    status: str
    requestedAt: str
    completedAt: str | None


class MembershipAnswer(TypedDict):
    """A list that the contact is or was on."""

    listId: str
    list: str
    status: str
    subscribedAt: str


class ExportedMail(EmailAnswer):
    """A mail to the person, with what happened to it."""

    events: list[EventAnswer]


class ExportAnswer(TypedDict):
    """All that is held about a person; `emailsCapped` says that there are older mails, too."""

    contact: ContactAnswer
    lists: list[MembershipAnswer]
    consents: list[ConsentAnswer]
    suppression: SuppressionAnswer | None
    emails: list[ExportedMail]
    emailsCapped: bool


@operation(
    answers={200: RemovedAnswer, 202: RemovedAnswer},
    query=(
        Query(
            "erase",
            "Also takes the person out of all mail that was ever sent; answers 202 and goes on in the background.",
            {"type": "boolean", "default": False},
        ),
    ),
    raises=(ContactNotFound,),
)
async def delete_contact(request: Request, contact_id: str) -> HTTPResponse:
    """DELETE …/contacts/:id: the contact goes, and that the person wants no mail stays. `?erase=true` forgets the person."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    row_id = ctx.ids.find(Kind.CONTACT, contact_id)
    erases = request.args.get("erase", "").lower() in ("true", "1")
    erasure: Erasure | None = None
    async with request.transaction() as conn:
        if erases:
            erasure = await service.begin_erasure(conn, account_id, row_id, ctx.settings.secret_key)
        else:
            await contacts.remove(conn, account_id, row_id)
    shown = RemovedAnswer(
        id=ctx.ids.encode(Kind.CONTACT, row_id),
        deleted=True,
        erasureId=None if erasure is None else ctx.ids.encode(Kind.ERASURE, erasure.id),
    )
    return answer(shown, 202 if erases else 200)


@operation(answers={200: ErasureAnswer}, raises=(ErasureNotFound,))
async def get_erasure(request: Request, erasure_id: str) -> HTTPResponse:
    """GET …/erasures/:id: whether the person is forgotten everywhere."""
    ids = request.app.ctx.ids
    async with request.transaction() as conn:
        found = await service.get_erasure(conn, request.ctx.account.id, ids.find(Kind.ERASURE, erasure_id))
    shown = ErasureAnswer(
        id=ids.encode(Kind.ERASURE, found.id),
        contactId=ids.encode(Kind.CONTACT, found.contact_id),
        status="processing" if found.completed_at is None else "completed",
        requestedAt=shown_time(found.requested_at),
        completedAt=shown_time_or_none(found.completed_at),
    )
    return answer(shown)


@operation(answers={200: ExportAnswer}, raises=(ContactNotFound,))
async def export_contact(request: Request, contact_id: str) -> HTTPResponse:
    """GET …/contacts/:id/export: all that is held about one person, for that person."""
    ids = request.app.ctx.ids
    async with request.transaction() as conn:
        found = await service.export(conn, request.ctx.account.id, ids.find(Kind.CONTACT, contact_id))
    return answer(_shown(found, ids))


def _shown(found: Export, ids: Ids) -> ExportAnswer:
    return {
        "contact": shown_contact(found.contact, ids),
        "lists": [
            {
                "listId": ids.encode(Kind.LIST, one.list_id),
                "list": one.list_name,
                "status": one.status,
                "subscribedAt": shown_time(one.subscribed_at),
            }
            for one in found.memberships
        ],
        "consents": [shown_consent(entry, ids) for entry in found.consents],
        "suppression": None if found.suppression is None else shown_suppression(found.suppression, ids),
        "emails": [
            {
                **shown_mail(mail, ids),
                "id": ids.encode_email(mail.stream_id, first_seq),
                "to": ", ".join(one.email for one in mail.recipients),
                "events": shown_events(mail),
            }
            for first_seq, mail in found.mails
        ],
        "emailsCapped": len(found.mails) == MAILS_MAX,
    }
