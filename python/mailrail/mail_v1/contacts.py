"""/v1/mail/contacts."""

from typing import Any

from sanic.response import HTTPResponse

from mailrail.contacts.model import Contact
from mailrail.contacts.routes import contacts_answer, find_contacts, save_contact
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.context import Request
from mailrail.web.values import shown_time


async def create(request: Request) -> HTTPResponse:
    """POST /v1/mail/contacts: 201 for a new contact, 200 where a known one was put on a list or changed."""
    saved = await save_contact(request)
    return answer(_shown(saved.contact, request.app.ctx.ids), 201 if saved.created else 200)


async def page(request: Request) -> HTTPResponse:
    """GET /v1/mail/contacts, newest first."""
    asked, found, total = await find_contacts(request)
    return answer(contacts_answer([_shown(contact, request.app.ctx.ids) for contact in found], asked, total))


def _shown(contact: Contact, ids: Ids) -> dict[str, Any]:
    return {
        "id": ids.encode(Kind.CONTACT, contact.id),
        "email": contact.email,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "tags": contact.tags,
        "customFields": contact.custom_fields,
        "status": contact.status,
        "createdAt": shown_time(contact.created_at),
    }
