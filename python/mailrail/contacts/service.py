"""The verbs of contacts and lists. Each runs in the caller's transaction."""

from collections.abc import Iterable

from mailrail.contacts import store
from mailrail.contacts.model import (
    Contact,
    ContactDraft,
    ContactExists,
    ContactFilter,
    ContactList,
    ContactStatus,
    ListExists,
    ListNotFound,
    Names,
    Saved,
)
from mailrail.db.pool import Connection


async def save(
    conn: Connection, account_id: int, draft: ContactDraft, *, list_id: int | None = None, upsert: bool = False
) -> Saved:
    """Creates a contact. Where there is one with this address: puts it on the list, and with `upsert` changes it.

    Raises ListNotFound, and ContactExists when there was nothing to do.
    """
    if list_id is not None:
        await require_list(conn, account_id, list_id)
    if draft.custom_fields:
        await add_fields(conn, account_id, draft.custom_fields)
    created = await store.insert_contact(conn, account_id, _completed(draft))
    if created is not None:
        await _join(conn, created, draft, list_id)
        return Saved(created, created=True)
    known = await store.lock_contact_by_email(conn, account_id, draft.email)
    if upsert:
        names = Names(known.name, known.first_name, known.last_name).changed(draft.names)
        changed = await store.update_contact(conn, known, names, draft)
        await _join(conn, changed, draft, list_id)
        return Saved(changed, created=False)
    if list_id is None or not await store.insert_members(conn, account_id, list_id, [known.id]):
        raise ContactExists(known.id)
    return Saved(known, created=False)


async def get(conn: Connection, account_id: int, contact_id: int) -> Contact:
    """Raises ContactNotFound."""
    return await store.read_contact(conn, account_id, contact_id)


async def page(
    conn: Connection,
    account_id: int,
    wanted: ContactFilter,
    limit: int,
    offset: int = 0,
    after_id: int | None = None,
) -> list[Contact]:
    """Newest first. Raises ListNotFound."""
    if wanted.list_id is not None:
        await require_list(conn, account_id, wanted.list_id)
    return await store.read_page(conn, account_id, wanted, limit, offset, after_id)


async def count(conn: Connection, account_id: int, wanted: ContactFilter | None = None) -> int:
    """How many there are: exact for all and for a list, up to TOTAL_CAP + 1 for other filters."""
    if wanted is None or wanted == ContactFilter():
        return await store.count_contacts(conn, account_id)
    if wanted.list_id is not None and wanted == ContactFilter(list_id=wanted.list_id):
        return await store.count_members(conn, account_id, wanted.list_id)
    return await store.count_filtered(conn, account_id, wanted)


async def add_fields(conn: Connection, account_id: int, names: Iterable[str]) -> None:
    """Notes names of custom fields, so that templates may use them without a warning."""
    await store.insert_fields(conn, account_id, names)


async def field_names(conn: Connection, account_id: int) -> set[str]:
    """Names of custom fields that any contact of the account ever had."""
    return await store.read_fields(conn, account_id)


async def create_list(conn: Connection, account_id: int, name: str) -> ContactList:
    """An empty list. Raises ListExists."""
    list_id = await store.insert_list(conn, account_id, name)
    if list_id is None:
        raise ListExists(await store.find_list(conn, account_id, name))
    return await store.read_list(conn, account_id, list_id)


async def get_list(conn: Connection, account_id: int, list_id: int) -> ContactList:
    """Raises ListNotFound."""
    return await store.read_list(conn, account_id, list_id)


async def require_list(conn: Connection, account_id: int, list_id: int) -> None:
    """Raises ListNotFound unless the list is the account's: foreign keys do not know tenants."""
    if await store.list_name(conn, account_id, list_id) is None:
        raise ListNotFound


async def list_name(conn: Connection, account_id: int, list_id: int) -> str | None:
    """The list's name, or None where there is no such list."""
    return await store.list_name(conn, account_id, list_id)


async def lists(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[ContactList]:
    """Newest first."""
    return await store.read_lists(conn, account_id, limit, offset, after_id)


async def count_lists(conn: Connection, account_id: int) -> int:
    """How many lists the account has."""
    return await store.count_lists(conn, account_id)


async def unsubscribe(conn: Connection, account_id: int, contact_id: int, list_id: int | None) -> bool:
    """Takes the person's word: off one list, or off everything where no list is named or the list is gone.

    Whether it changed anything; a contact that is gone needs no change.
    """
    if list_id is not None and await store.list_name(conn, account_id, list_id) is not None:
        return await store.set_membership(conn, account_id, list_id, contact_id, ContactStatus.UNSUBSCRIBED)
    return await store.unsubscribe_contact(conn, account_id, contact_id)


async def _join(conn: Connection, contact: Contact, draft: ContactDraft, list_id: int | None) -> None:
    """Puts the contact on the list. Who left it comes back only where the customer says that he subscribed again."""
    if list_id is None:
        return
    if draft.status is ContactStatus.SUBSCRIBED:
        await store.set_membership(conn, contact.account_id, list_id, contact.id, ContactStatus.SUBSCRIBED)
    else:
        await store.insert_members(conn, contact.account_id, list_id, [contact.id])


def _completed(draft: ContactDraft) -> ContactDraft:
    return ContactDraft(draft.email, draft.names.completed(), draft.status, draft.tags, draft.custom_fields)
