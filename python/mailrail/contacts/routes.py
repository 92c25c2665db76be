"""/api/v1/contacts, and lists, which are the same in both dialects."""

from typing import Any, TypedDict

from sanic.response import HTTPResponse

from mailrail.contacts import form, service
from mailrail.contacts.consent import ConsentEntry
from mailrail.contacts.form import NAME_MAX_CHARS
from mailrail.contacts.model import (
    TOTAL_CAP,
    ConsentRequired,
    Contact,
    ContactExists,
    ContactFilter,
    ContactList,
    ContactNotFound,
    ContactStatus,
    ContactUnreachable,
    ListExists,
    ListInUse,
    ListNotFound,
    MemberNotFound,
    Saved,
)
from mailrail.domains.model import SenderNotVerified
from mailrail.ids import Ids, Kind
from mailrail.web.answers import DeletedAnswer, answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import Query, operation
from mailrail.web.pages import PAGE_QUERY, Page, PageAnswer, page_answer, read_page
from mailrail.web.query import read_flag
from mailrail.web.values import shown_time


class ContactAnswer(TypedDict):
    """A contact."""

    id: str
    email: str
    name: str | None
    firstName: str | None
    lastName: str | None
    status: str
    tags: list[str]
    customFields: dict[str, Any]
    tracking: bool
    createdAt: str
    updatedAt: str


class ContactsAnswer(PageAnswer):
    """A page of contacts, newest first; `totalCapped` says that there are more than `total`."""

    contacts: list[ContactAnswer]
    totalCapped: bool  # noqa: N815  a key of JSON; ruff does not see that this is a TypedDict, too


class ConsentAnswer(TypedDict):
    """What a person said of getting mail. Without `listId` it was about all mail."""

    id: str
    listId: str | None
    list: str | None
    status: str
    source: str
    ip: str | None
    wording: str | None
    importId: str | None
    at: str
    recordedAt: str


class ConsentsAnswer(PageAnswer):
    """A page of a contact's history, newest first."""

    consents: list[ConsentAnswer]


# `from` is no name that a class could have.
ConfirmationAnswer = TypedDict(
    "ConfirmationAnswer", {"subject": str | None, "wording": str | None, "from": dict[str, str | None] | None}
)


class ListAnswer(TypedDict):
    """A list. `contacts` are subscribed to it, `pending` were asked and have not confirmed, `unsubscribed` left it. What is
    `public` is offered to the readers of all mail.
    """

    id: str
    name: str
    contacts: int
    pending: int
    unsubscribed: int
    doubleOptIn: bool
    public: bool
    confirmation: ConfirmationAnswer
    createdAt: str


class ListsAnswer(PageAnswer):
    """A page of lists, newest first."""

    lists: list[ListAnswer]


class JoinedAnswer(TypedDict):
    """What became of the contacts; total = added + unchanged + refused + notFound. Who left the list, or all mail, is
    refused unless `consent` says where and when he came back.
    """

    total: int
    added: int
    unchanged: int
    refused: int
    notFound: int


class LeftAnswer(TypedDict):
    """A contact that left a list; `changed` is false where he had left it before."""

    contactId: str
    listId: str
    status: str
    changed: bool


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
        "tracking": True,
        "createdAt": "2026-04-08T10:15:00Z",
        "updatedAt": "2026-04-08T10:15:00Z",
    },
)
SAVE_ERRORS = (ContactExists, ListNotFound, ConsentRequired, ContactUnreachable)
CHANGE_ERRORS = (ContactNotFound, ContactExists, ConsentRequired, ContactUnreachable)


@operation(
    answers={200: ContactAnswer, 201: ContactAnswer},
    reads=form.read_contact,
    query=(UPSERT,),
    raises=SAVE_ERRORS,
    example=EXAMPLE,
)
async def create(request: Request) -> HTTPResponse:
    """POST /api/v1/contacts: creates a contact. 201 for a new one, 200 where a known one was put on the list or changed."""
    saved = await save_contact(request)
    return answer(shown_contact(saved.contact, request.app.ctx.ids), 201 if saved.created else 200)


@operation(answers={200: ContactsAnswer}, query=(*FILTERS, *PAGE_QUERY), raises=(ListNotFound,))
async def page(request: Request) -> HTTPResponse:
    """GET /api/v1/contacts: contacts, newest first."""
    asked, found, total = await find_contacts(request)
    return answer(contacts_answer([shown_contact(contact, request.app.ctx.ids) for contact in found], asked, total))


@operation(answers={200: ContactAnswer}, raises=(ContactNotFound,))
async def get(request: Request, contact_id: str) -> HTTPResponse:
    """GET /api/v1/contacts/:id: one contact."""
    return answer(shown_contact(await find_contact(request, contact_id), request.app.ctx.ids))


@operation(answers={200: ContactAnswer}, reads=form.read_changes, raises=CHANGE_ERRORS)
async def change(request: Request, contact_id: str) -> HTTPResponse:
    """PATCH /api/v1/contacts/:id: changes what is given. Tags are replaced, custom fields merged, null clears a name."""
    return answer(shown_contact(await change_contact(request, contact_id), request.app.ctx.ids))


@operation(answers={200: ConsentsAnswer}, query=PAGE_QUERY, raises=(ContactNotFound,))
async def page_consents(request: Request, contact_id: str) -> HTTPResponse:
    """GET …/contacts/:id/consents: what the person said of getting mail, newest first."""
    ctx = request.app.ctx
    asked = read_page(request, Kind.CONSENT, ctx.ids)
    row_id = ctx.ids.find(Kind.CONTACT, contact_id)
    async with request.transaction() as conn:
        found, total = await service.history(
            conn, request.ctx.account.id, row_id, asked.limit, asked.offset, asked.after_id
        )
    return answer(page_answer("consents", [shown_consent(entry, ctx.ids) for entry in found], asked, total))


@operation(answers={201: ListAnswer}, reads=form.read_list, raises=(ListExists, SenderNotVerified))
async def create_list(request: Request) -> HTTPResponse:
    """POST …/lists: creates an empty list. With `doubleOptIn` whoever is put on it is asked by mail first."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    draft = form.read_list(fields)
    fields.finish()
    async with request.transaction() as conn:
        created = await service.create_list(conn, request.ctx.account.id, draft)
    return answer(_shown_list(created, ctx.ids), 201)


@operation(answers={200: ListsAnswer}, query=PAGE_QUERY)
async def page_lists(request: Request) -> HTTPResponse:
    """GET …/lists: lists, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.LIST, ctx.ids)
    async with request.transaction() as conn:
        found = await service.lists(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count_lists(conn, account_id)
    return answer(page_answer("lists", [_shown_list(item, ctx.ids) for item in found], asked, total))


@operation(answers={200: ListAnswer}, raises=(ListNotFound,))
async def get_list(request: Request, list_id: str) -> HTTPResponse:
    """GET …/lists/:id: one list."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with request.transaction() as conn:
        found = await service.get_list(conn, account_id, ctx.ids.find(Kind.LIST, list_id))
    return answer(_shown_list(found, ctx.ids))


@operation(
    answers={200: ListAnswer}, reads=form.read_list_changes, raises=(ListNotFound, ListExists, SenderNotVerified)
)
async def change_list(request: Request, list_id: str) -> HTTPResponse:
    """PATCH …/lists/:id: changes what is given; who is on the list stays as he is."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    changes = form.read_list_changes(fields)
    fields.finish()
    row_id = ctx.ids.find(Kind.LIST, list_id)
    async with request.transaction() as conn:
        changed = await service.change_list(conn, request.ctx.account.id, row_id, changes)
    return answer(_shown_list(changed, ctx.ids))


@operation(answers={200: DeletedAnswer}, raises=(ListNotFound, ListInUse))
async def delete_list(request: Request, list_id: str) -> HTTPResponse:
    """DELETE …/lists/:id: the list goes, its contacts stay."""
    ids = request.app.ctx.ids
    row_id = ids.find(Kind.LIST, list_id)
    async with request.transaction() as conn:
        await service.delete_list(conn, request.ctx.account.id, row_id)
    return answer(DeletedAnswer(id=ids.encode(Kind.LIST, row_id), deleted=True))


@operation(answers={200: JoinedAnswer}, reads=form.read_members, raises=(ListNotFound,))
async def add_members(request: Request, list_id: str) -> HTTPResponse:
    """POST …/lists/:id/contacts: puts contacts on the list, named by their ids or addresses."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    named = form.read_members(fields, ctx.ids)
    row_id = ctx.ids.find(Kind.LIST, list_id)
    async with request.transaction() as conn:
        await service.require_list(conn, request.ctx.account.id, row_id)
        fields.finish()
        joined = await service.add_members(conn, request.ctx.account.id, row_id, named, asks=_asks(request))
    shown = JoinedAnswer(
        total=joined.added + joined.unchanged + joined.refused + joined.not_found,
        added=joined.added,
        unchanged=joined.unchanged,
        refused=joined.refused,
        notFound=joined.not_found,
    )
    return answer(shown)


@operation(answers={200: DeletedAnswer}, raises=(ListNotFound, MemberNotFound))
async def remove_member(request: Request, list_id: str, contact_id: str) -> HTTPResponse:
    """DELETE …/lists/:id/contacts/:contact_id: takes the contact off the list. Who unsubscribed stays on record as such; of
    somebody who wants to leave, tell it by `…/unsubscribe`, or he may be put on the list again.
    """
    ids = request.app.ctx.ids
    row_id = ids.find(Kind.CONTACT, contact_id)
    async with request.transaction() as conn:
        await service.remove_member(conn, request.ctx.account.id, ids.find(Kind.LIST, list_id), row_id)
    return answer(DeletedAnswer(id=ids.encode(Kind.CONTACT, row_id), deleted=True))


@operation(answers={200: LeftAnswer}, reads=form.read_consent, raises=(ListNotFound, ContactNotFound))
async def leave_list(request: Request, list_id: str, contact_id: str) -> HTTPResponse:
    """POST …/lists/:id/contacts/:contact_id/unsubscribe: the person left this list, and gets other mail as before. `consent`
    says where and when he said so; once is enough.

    It is recorded and told to webhooks as if he had used the link in a mail. Only a later consent brings him back.
    """
    ids = request.app.ctx.ids
    fields = Fields(read_object(request))
    consent = form.read_consent(fields)
    fields.finish()
    list_row, contact_row = ids.find(Kind.LIST, list_id), ids.find(Kind.CONTACT, contact_id)
    async with request.transaction() as conn:
        changed = await service.leave_list(conn, request.ctx.account.id, list_row, contact_row, consent)
    shown = LeftAnswer(
        contactId=ids.encode(Kind.CONTACT, contact_row),
        listId=ids.encode(Kind.LIST, list_row),
        status=ContactStatus.UNSUBSCRIBED,
        changed=changed,
    )
    return answer(shown)


# —— what both dialects do with a request ———————————————————————————————————————————————————————————————————————————————


async def save_contact(request: Request) -> Saved:
    """Reads and saves the contact of a POST."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    fields = Fields(read_object(request))
    draft, list_id = form.read_contact(fields, ctx.ids)
    fields.finish()
    upsert = read_flag(request, "upsert")
    async with request.transaction() as conn:
        return await service.save(
            conn, account_id, draft, ctx.settings.secret_key, list_id=list_id, upsert=upsert, asks=_asks(request)
        )


async def find_contact(request: Request, contact_id: str) -> Contact:
    """The contact of a GET."""
    row_id = request.app.ctx.ids.find(Kind.CONTACT, contact_id)
    async with request.transaction() as conn:
        return await service.get(conn, request.ctx.account.id, row_id)


async def change_contact(request: Request, contact_id: str) -> Contact:
    """Reads and makes the changes of a PATCH."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    changes = form.read_changes(fields)
    fields.finish()
    row_id = ctx.ids.find(Kind.CONTACT, contact_id)
    async with request.transaction() as conn:
        return await service.change(conn, request.ctx.account.id, row_id, changes, ctx.settings.secret_key)


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


def contacts_answer(items: list[Any], asked: Page, total: int) -> dict[str, Any]:
    """A page of contacts; a total that was not counted to its end is marked."""
    capped = total > TOTAL_CAP
    return {**page_answer("contacts", items, asked, TOTAL_CAP if capped else total), "totalCapped": capped}


def shown_consent(entry: ConsentEntry, ids: Ids) -> ConsentAnswer:
    """A line of a contact's history."""
    return {
        "id": ids.encode(Kind.CONSENT, entry.id),
        "listId": ids.encode_optional(Kind.LIST, entry.list_id),
        "list": entry.list_name,
        "status": entry.status,
        "source": entry.source,
        "ip": entry.ip,
        "wording": entry.wording,
        "importId": ids.encode_optional(Kind.IMPORT, entry.import_id),
        "at": shown_time(entry.at),
        "recordedAt": shown_time(entry.recorded_at),
    }


def _asks(request: Request) -> bool:
    """Whether lists with double opt-in send their mail: nothing that a test key does reaches a person."""
    assert request.ctx.caller is not None, "these routes declare a scope"
    return not request.ctx.caller.is_test


def shown_contact(contact: Contact, ids: Ids) -> ContactAnswer:
    """A contact as /api/v1 prints it."""
    return {
        "id": ids.encode(Kind.CONTACT, contact.id),
        "email": contact.email,
        "name": contact.name,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "status": contact.status,
        "tags": contact.tags,
        "customFields": contact.custom_fields,
        "tracking": contact.tracking,
        "createdAt": shown_time(contact.created_at),
        "updatedAt": shown_time(contact.updated_at),
    }


def _shown_list(item: ContactList, ids: Ids) -> ListAnswer:
    asks = item.confirmation
    sender = None if asks.sender_email is None else {"name": asks.sender_name, "email": asks.sender_email}
    return {
        "id": ids.encode(Kind.LIST, item.id),
        "name": item.name,
        "contacts": item.contacts,
        "pending": item.pending,
        "unsubscribed": item.unsubscribed,
        "doubleOptIn": item.double_opt_in,
        "public": item.is_public,
        "confirmation": {"subject": asks.subject, "wording": asks.wording, "from": sender},
        "createdAt": shown_time(item.created_at),
    }
