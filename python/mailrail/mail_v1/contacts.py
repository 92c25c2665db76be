"""/v1/mail/contacts: lists, consents and whatever else is the same in both dialects is not here."""

from typing import Any, TypedDict

from sanic.response import HTTPResponse

from mailrail.contacts import form
from mailrail.contacts.model import Contact, ContactNotFound, ListNotFound
from mailrail.contacts.routes import (
    CHANGE_ERRORS,
    FILTERS,
    SAVE_ERRORS,
    UPSERT,
    change_contact,
    contacts_answer,
    find_contact,
    find_contacts,
    save_contact,
)
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.context import Request
from mailrail.web.openapi import operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer
from mailrail.web.values import shown_time


class MailContactAnswer(TypedDict):
    """A contact."""

    id: str
    email: str
    firstName: str | None
    lastName: str | None
    tags: list[str]
    customFields: dict[str, Any]
    tracking: bool
    status: str
    createdAt: str


class MailContactsAnswer(PageAnswer):
    """A page of contacts, newest first; `totalCapped` says that there are more than `total`."""

    contacts: list[MailContactAnswer]
    totalCapped: bool  # noqa: N815  a key of JSON; ruff does not see that this is a TypedDict, too


SARAH = {
    "email": "sarah@example.com",
    "firstName": "Sarah",
    "lastName": "Chen",
    "tags": ["newsletter", "product-updates"],
    "customFields": {"company": "Acme Corp", "plan": "enterprise"},
}


@operation(
    answers={200: MailContactAnswer, 201: MailContactAnswer},
    reads=form.read_contact,
    query=(UPSERT,),
    raises=SAVE_ERRORS,
    example=(
        SARAH,
        {"id": "con_abc123", **SARAH, "status": "subscribed", "createdAt": "2026-04-08T10:15:00Z"},
    ),
)
async def create(request: Request) -> HTTPResponse:
    """POST /v1/mail/contacts: adds a contact to the audience. 201 for a new one, 200 where a known one was put on a list or
    changed. Contacts are free to store.
    """
    saved = await save_contact(request)
    return answer(_shown(saved.contact, request.app.ctx.ids), 201 if saved.created else 200)


@operation(answers={200: MailContactsAnswer}, query=(*FILTERS, *PAGE_QUERY), raises=(ListNotFound,))
async def page(request: Request) -> HTTPResponse:
    """GET /v1/mail/contacts: contacts, newest first."""
    asked, found, total = await find_contacts(request)
    return answer(contacts_answer([_shown(contact, request.app.ctx.ids) for contact in found], asked, total))


@operation(answers={200: MailContactAnswer}, raises=(ContactNotFound,))
async def get(request: Request, contact_id: str) -> HTTPResponse:
    """GET /v1/mail/contacts/:id: one contact."""
    return answer(_shown(await find_contact(request, contact_id), request.app.ctx.ids))


@operation(answers={200: MailContactAnswer}, reads=form.read_changes, raises=CHANGE_ERRORS)
async def change(request: Request, contact_id: str) -> HTTPResponse:
    """PATCH /v1/mail/contacts/:id: changes what is given. Tags are replaced, custom fields merged, null clears a name."""
    return answer(_shown(await change_contact(request, contact_id), request.app.ctx.ids))


def _shown(contact: Contact, ids: Ids) -> MailContactAnswer:
    return {
        "id": ids.encode(Kind.CONTACT, contact.id),
        "email": contact.email,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "tags": contact.tags,
        "customFields": contact.custom_fields,
        "tracking": contact.tracking,
        "status": contact.status,
        "createdAt": shown_time(contact.created_at),
    }
