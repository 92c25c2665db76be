"""/api/v1/contacts and /api/v1/lists."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sanic.response import HTTPResponse

from mailrail.contacts import service
from mailrail.contacts.form import NAME_MAX_CHARS, read_contact, read_list
from mailrail.contacts.model import (
    TOTAL_CAP,
    Contact,
    ContactExists,
    ContactFilter,
    ContactList,
    ContactNotFound,
    ContactStatus,
    ListExists,
    ListNotFound,
    Saved,
)
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import Query, operation
from mailrail.web.pages import PAGE_QUERY, Page, PageAnswer, page_answer, read_page
from mailrail.web.query import read_flag
from mailrail.web.values import shown_time


class ContactAnswer(TypedDict):
    """A contact. `status` says whether the person may be written to."""

    id: str
    email: str
    name: str | None
    firstName: str | None
    lastName: str | None
    status: str
    tags: list[str]
    customFields: dict[str, Any]
    createdAt: str
    updatedAt: str


class ContactsAnswer(PageAnswer):
    """A page of contacts; `totalCapped` where they were not counted to the end."""

    contacts: list[ContactAnswer]
    totalCapped: bool  # noqa: N815  a key of JSON; ruff does not see that this is a TypedDict, too


class ListAnswer(TypedDict):
    """A list, with how many contacts are subscribed to it."""

    id: str
    name: str
    contacts: int
    createdAt: str


class ListsAnswer(PageAnswer):
    """A page of lists."""

    lists: list[ListAnswer]


UPSERT = Query("upsert", "`true` changes the contact that has this address.", {"type": "boolean"})
FILTERS = (
    Query("listId", "Only members of this list."),
    Query(
        "tag",
        "Only those with this tag; several times for several tags.",
        {"type": "array", "items": {"type": "string"}},
    ),
    Query("status", "Only of this status.", {"type": "string", "enum": [str(word) for word in ContactStatus]}),
    Query("email", "Only the one with this address."),
)
EXAMPLE = (
    {"email": "new@example.com", "name": "John Doe", "listId": "lst_2k7f8x0q4m9d3w6z1r5t8y0u2i"},
    {
        "id": "con_7d3w6z1r5t8y0u2i2k7f8x0q4m",
        "email": "new@example.com",
        "name": "John Doe",
        "firstName": "John",
        "lastName": "Doe",
        "status": "subscribed",
        "tags": [],
        "customFields": {},
        "createdAt": "2026-04-08T10:15:00Z",
        "updatedAt": "2026-04-08T10:15:00Z",
    },
)


@operation(
    answers={201: ContactAnswer, 200: ContactAnswer},
    reads=read_contact,
    query=(UPSERT,),
    raises=(ListNotFound, ContactExists),
    example=EXAMPLE,
)
async def create(request: Request) -> HTTPResponse:
    """POST /api/v1/contacts: creates a contact. 201 for a new one, 200 where a known one was put on the list or changed."""
    saved = await save_contact(request)
    return answer(_shown(saved.contact, request.app.ctx.ids), 201 if saved.created else 200)


@operation(answers={200: ContactsAnswer}, query=(*PAGE_QUERY, *FILTERS), raises=(ListNotFound,))
async def page(request: Request) -> HTTPResponse:
    """GET /api/v1/contacts: contacts, newest first."""
    asked, found, total = await find_contacts(request)
    return answer(contacts_answer([_shown(contact, request.app.ctx.ids) for contact in found], asked, total))


@operation(answers={200: ContactAnswer}, raises=(ContactNotFound,))
async def get(request: Request, contact_id: str) -> HTTPResponse:
    """GET /api/v1/contacts/:id: one contact."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with request.transaction() as conn:
        found = await service.get(conn, account_id, ctx.ids.find(Kind.CONTACT, contact_id))
    return answer(_shown(found, ctx.ids))


@operation(answers={201: ListAnswer}, reads=read_list, raises=(ListExists,))
async def create_list(request: Request) -> HTTPResponse:
    """POST /api/v1/lists: creates an empty list."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    fields = Fields(read_object(request))
    name = read_list(fields)
    fields.finish()
    async with request.transaction() as conn:
        created = await service.create_list(conn, account_id, name)
    return answer(_shown_list(created, ctx.ids), 201)


@operation(answers={200: ListsAnswer}, query=PAGE_QUERY)
async def page_lists(request: Request) -> HTTPResponse:
    """GET /api/v1/lists: lists, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.LIST, ctx.ids)
    async with request.transaction() as conn:
        found = await service.lists(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count_lists(conn, account_id)
    return answer(page_answer("lists", [_shown_list(item, ctx.ids) for item in found], asked, total))


@operation(answers={200: ListAnswer}, raises=(ListNotFound,))
async def get_list(request: Request, list_id: str) -> HTTPResponse:
    """GET /api/v1/lists/:id: one list."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with request.transaction() as conn:
        found = await service.get_list(conn, account_id, ctx.ids.find(Kind.LIST, list_id))
    return answer(_shown_list(found, ctx.ids))


# —— what both dialects do with a request ———————————————————————————————————————————————————————————————————————————————


async def save_contact(request: Request) -> Saved:
    """Reads and saves the contact of a POST."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    fields = Fields(read_object(request))
    draft, list_id = read_contact(fields, ctx.ids)
    fields.finish()
    upsert = read_flag(request, "upsert")
    async with request.transaction() as conn:
        return await service.save(conn, account_id, draft, list_id=list_id, upsert=upsert)


async def find_contacts(request: Request) -> tuple[Page, list[Contact], int]:
    """The page asked for, its contacts, and how many there are in all."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.CONTACT, ctx.ids)
    wanted = read_filter(request, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, wanted, asked.limit, asked.offset, asked.after_id)
        return asked, found, await service.count(conn, account_id, wanted)


def read_filter(request: Request, ids: Ids) -> ContactFilter:
    """The filters of the query, read like fields so that a wrong one is told the same way."""
    names = ("listId", "status", "email")
    fields = Fields({name: request.args.get(name) for name in names} | {"tag": request.args.getlist("tag")})
    list_text = fields.text("listId", NAME_MAX_CHARS)
    status = fields.word("status", [str(word) for word in ContactStatus])
    email = fields.text("email", NAME_MAX_CHARS * 2)
    tags = fields.texts("tag", 10, NAME_MAX_CHARS) or []
    fields.finish()
    list_id = None if list_text is None else ids.find(Kind.LIST, list_text)
    return ContactFilter(list_id, tags, None if status is None else ContactStatus(status), email)


def contacts_answer(items: Sequence[Mapping[str, Any]], asked: Page, total: int) -> dict[str, Any]:
    """A page of contacts; a total that was not counted to its end is marked."""
    capped = total > TOTAL_CAP
    return {**page_answer("contacts", items, asked, TOTAL_CAP if capped else total), "totalCapped": capped}


def _shown(contact: Contact, ids: Ids) -> ContactAnswer:
    return {
        "id": ids.encode(Kind.CONTACT, contact.id),
        "email": contact.email,
        "name": contact.name,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "status": contact.status,
        "tags": contact.tags,
        "customFields": contact.custom_fields,
        "createdAt": shown_time(contact.created_at),
        "updatedAt": shown_time(contact.updated_at),
    }


def _shown_list(item: ContactList, ids: Ids) -> ListAnswer:
    return {
        "id": ids.encode(Kind.LIST, item.id),
        "name": item.name,
        "contacts": item.contacts,
        "createdAt": shown_time(item.created_at),
    }
