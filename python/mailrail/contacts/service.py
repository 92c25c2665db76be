"""The verbs of contacts and lists. Each runs in the caller's transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mailrail.contacts import consents, members, store
from mailrail.contacts.consent import (
    API,
    CONFIRMATION,
    NOTHING_SAID,
    PREFERENCE_PAGE,
    UNSUBSCRIBE,
    Consent,
    ConsentEntry,
)
from mailrail.contacts.model import (
    ConsentRequired,
    Contact,
    ContactChanges,
    ContactDraft,
    ContactExists,
    ContactFilter,
    ContactList,
    ContactNotFound,
    ContactStatus,
    ContactUnreachable,
    Joined,
    ListDraft,
    ListExists,
    ListNotFound,
    ListRule,
    MemberNotFound,
    Members,
    Membership,
    Offer,
    Saved,
)
from mailrail.db.pool import Connection
from mailrail.domains import service as domains
from mailrail.suppressions import service as suppressions


async def save(
    conn: Connection,
    account_id: int,
    draft: ContactDraft,
    secret_key: str,
    *,
    list_id: int | None = None,
    upsert: bool = False,
    asks: bool = True,
) -> Saved:
    """Creates a contact. Where there is one with this address: puts it on the list, and with `upsert` changes it. `asks` lets
    a list with double opt-in send its mail.

    Raises ListNotFound, ConsentRequired and ContactUnreachable for people who withdrew or cannot be reached, and
    ContactExists when there was nothing to do.
    """
    rule = None if list_id is None else await store.read_rule(conn, account_id, list_id)
    await suppressions.wake(conn, account_id, [draft.email.lower()], secret_key)
    if draft.custom_fields:
        await add_fields(conn, account_id, draft.custom_fields)
    status = _first_status(draft, rule)
    created = await store.insert_contact(conn, account_id, _completed(draft), status)
    if created is not None:
        return Saved(await _welcome(conn, created, draft, rule, status, asks=asks), created=True)
    known = await store.lock_contact_by_email(conn, account_id, draft.email)
    if upsert:
        changes = ContactChanges(
            names=draft.names,
            # A list that asks first makes nobody subscribed.
            status=None if rule is not None and status is ContactStatus.PENDING else draft.status,
            tags=draft.tags,
            custom_fields=draft.custom_fields,
            consent=draft.consent,
            tracking=draft.tracking,
        )
        known = await _change(conn, known, changes)
    if rule is None:
        if not upsert:
            raise ContactExists(known.id)
        return Saved(known, created=False)
    joined = await _join(conn, account_id, rule, [known.id], draft.consent, asks=asks)
    if joined.refused and draft.status is ContactStatus.SUBSCRIBED:
        raise ConsentRequired
    if not upsert and not joined.added:
        raise ContactExists(known.id)
    return Saved(await store.read_contact(conn, account_id, known.id), created=False)


async def change(
    conn: Connection, account_id: int, contact_id: int, changes: ContactChanges, secret_key: str
) -> Contact:
    """Changes what is given. Raises ContactNotFound, ContactExists for an address that another contact has, and
    ConsentRequired and ContactUnreachable for people who withdrew or cannot be reached.
    """
    if changes.email is not None:
        await suppressions.wake(conn, account_id, [changes.email.lower()], secret_key)
    if changes.custom_fields:
        await add_fields(conn, account_id, changes.custom_fields)
    return await _change(conn, await store.read_contact(conn, account_id, contact_id, lock=True), changes)


async def remove(conn: Connection, account_id: int, contact_id: int) -> Contact:
    """Deletes a contact with its memberships and its history. That the person unsubscribed, bounced or complained stays, as
    a suppression of the address. Raises ContactNotFound.
    """
    known = await store.read_contact(conn, account_id, contact_id, lock=True)
    if known.status is ContactStatus.UNSUBSCRIBED:
        await suppressions.keep_unsubscribed(conn, account_id, known.email)
    await store.delete_contact(conn, known)
    return known


async def get(conn: Connection, account_id: int, contact_id: int) -> Contact:
    """Raises ContactNotFound."""
    return await store.read_contact(conn, account_id, contact_id)


async def find_by_id(conn: Connection, account_id: int, contact_id: int, *, lock: bool) -> Contact | None:
    """The contact, or None where it is gone."""
    try:
        return await store.read_contact(conn, account_id, contact_id, lock=lock)
    except ContactNotFound:
        return None


async def find_by_email(conn: Connection, account_id: int, email: str) -> Contact | None:
    """The contact that has the address now, locked; None where there is none."""
    try:
        return await store.lock_contact_by_email(conn, account_id, email)
    except ContactNotFound:
        return None


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


async def history(
    conn: Connection, account_id: int, contact_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> tuple[list[ConsentEntry], int]:
    """What the person said of getting mail, newest first, and how many lines there are. Raises ContactNotFound."""
    await store.read_contact(conn, account_id, contact_id)
    found = await consents.read_page(conn, account_id, contact_id, limit, offset, after_id)
    return found, await consents.count(conn, account_id, contact_id)


async def memberships(conn: Connection, account_id: int, contact_id: int) -> list[Membership]:
    """All lists that the contact is or was on."""
    return await members.read_memberships(conn, account_id, contact_id)


# —— lists ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def create_list(conn: Connection, account_id: int, draft: ListDraft) -> ContactList:
    """An empty list. Raises ListExists, and SenderNotVerified for a sender of confirmations that may not send."""
    if draft.confirmation.sender_email is not None:
        await domains.require_verified_sender(conn, account_id, draft.confirmation.sender_email)
    list_id = await store.insert_list(conn, account_id, draft)
    if list_id is None:
        raise ListExists(await store.find_list(conn, account_id, draft.name))
    return await store.read_list(conn, account_id, list_id)


async def change_list(conn: Connection, account_id: int, list_id: int, changes: dict[str, Any]) -> ContactList:
    """Changes columns of a list; who is on it stays as he is. Raises ListNotFound, ListExists, SenderNotVerified."""
    if (sender := changes.get("confirmation_email")) is not None:
        await domains.require_verified_sender(conn, account_id, sender)
    if not await store.update_list(conn, account_id, list_id, changes):
        raise ListNotFound
    return await store.read_list(conn, account_id, list_id)


async def delete_list(conn: Connection, account_id: int, list_id: int) -> None:
    """Deletes a list; its contacts stay. Raises ListNotFound, ListInUse."""
    await store.delete_list(conn, account_id, list_id)


async def add_members(conn: Connection, account_id: int, list_id: int, named: Members, *, asks: bool = True) -> Joined:
    """Puts contacts on a list, together. Raises ListNotFound."""
    rule = await store.read_rule(conn, account_id, list_id)
    found = await members.find_contacts(conn, account_id, named.contact_ids, named.emails)
    joined = await _join(conn, account_id, rule, list(found), named.consent, asks=asks)
    distinct = len(set(named.contact_ids)) + len({email.lower() for email in named.emails})
    return replace(joined, not_found=distinct - sum(found.values()))


async def remove_member(conn: Connection, account_id: int, list_id: int, contact_id: int) -> None:
    """Takes a contact off a list. Raises ListNotFound, and MemberNotFound where it is not on it."""
    await store.read_rule(conn, account_id, list_id)
    if not await members.delete_member(conn, account_id, list_id, contact_id):
        raise MemberNotFound


async def leave_list(conn: Connection, account_id: int, list_id: int, contact_id: int, consent: Consent) -> bool:
    """Takes a customer's word that the person left one list, also where he was taken off it before or never was on it. It
    is the same word as that of the page, and only consent brings him back. Whether it changed anything. Raises ListNotFound,
    ContactNotFound.
    """
    await require_list(conn, account_id, list_id)
    await store.read_contact(conn, account_id, contact_id, lock=True)
    gone = ContactStatus.UNSUBSCRIBED
    # A list that is deleted at this moment must not become all mail, as it does behind a link.
    changed = await members.set_membership(conn, account_id, list_id, contact_id, gone)
    if changed:
        await consents.record(conn, account_id, [contact_id], list_id, gone, consent, API)
    return changed


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


async def offers(conn: Connection, account_id: int, contact_id: int) -> list[Offer]:
    """The lists that are the contact's to choose: those that he is or was on, and public ones."""
    return await members.read_offers(conn, account_id, contact_id)


# —— the person's own word ———————————————————————————————————————————————————————————————————————————————————————————————


async def unsubscribe(
    conn: Connection, account_id: int, contact_id: int, list_id: int | None, consent: Consent = NOTHING_SAID
) -> bool:
    """Takes the person's word: off one list, or off everything where no list is named or the list is gone.

    Whether it changed anything; a contact that is gone needs no change.
    """
    gone = ContactStatus.UNSUBSCRIBED
    if list_id is not None and await store.list_name(conn, account_id, list_id) is not None:
        changed = await members.set_membership(conn, account_id, list_id, contact_id, gone)
    else:
        # Who complained keeps that reason. Who bounced would be subscribed again once his suppression is lifted.
        among = (ContactStatus.SUBSCRIBED, ContactStatus.PENDING, ContactStatus.BOUNCED)
        changed = await store.set_status(conn, account_id, contact_id, gone, among) is not None
        list_id = None
    if changed:
        await consents.record(conn, account_id, [contact_id], list_id, gone, consent, UNSUBSCRIBE)
    return changed


async def subscribe(conn: Connection, account_id: int, contact_id: int, list_id: int | None, consent: Consent) -> bool:
    """Takes the person's own click: onto one list, or back to what he got before where none is named. Who had left
    everything is back by either. Whether it changed anything.
    """
    yes, changed = ContactStatus.SUBSCRIBED, False
    if list_id is not None:
        if await members.membership(conn, account_id, list_id, contact_id) is None:
            # Who was never on it signs up and says yes at once; webhooks tell of the yes.
            await members.set_membership(conn, account_id, list_id, contact_id, ContactStatus.PENDING)
        changed = await members.set_membership(conn, account_id, list_id, contact_id, yes)
    if changed:
        await consents.record(conn, account_id, [contact_id], list_id, yes, consent, PREFERENCE_PAGE)
    return await _restore(conn, account_id, contact_id, consent, PREFERENCE_PAGE) or changed


async def confirm(conn: Connection, account_id: int, contact_id: int, list_id: int, consent: Consent) -> bool:
    """Takes a person's yes to a list that asked. Who had unsubscribed from everything is back by it, too.

    False where nobody is asked any more: the person left since, or the contact is gone.
    """
    status = await members.membership(conn, account_id, list_id, contact_id)
    if status is not ContactStatus.PENDING:
        return status is ContactStatus.SUBSCRIBED
    yes = ContactStatus.SUBSCRIBED
    await members.set_membership(conn, account_id, list_id, contact_id, yes)
    await consents.record(conn, account_id, [contact_id], list_id, yes, consent, CONFIRMATION)
    await _restore(conn, account_id, contact_id, consent, CONFIRMATION)
    return True


# —— steps ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


def _first_status(draft: ContactDraft, rule: ListRule | None) -> ContactStatus:
    """What a new contact is: by his customer's word, but pending where a list asks first."""
    asked = rule is not None and rule.double_opt_in and draft.status is not ContactStatus.UNSUBSCRIBED
    return ContactStatus.PENDING if asked else draft.status or ContactStatus.SUBSCRIBED


async def _welcome(
    conn: Connection, created: Contact, draft: ContactDraft, rule: ListRule | None, status: ContactStatus, *, asks: bool
) -> Contact:
    """Writes down how a new contact came, and puts it on the list. An address that is known from before, by its suppression,
    is subscribed only as an old contact would be.
    """
    if created.status is status:
        await consents.record(conn, created.account_id, [created.id], None, status, draft.consent, API)
    elif draft.status is ContactStatus.SUBSCRIBED:
        created = await _change(conn, created, ContactChanges(status=draft.status, consent=draft.consent))
    if rule is None:
        return created
    joined = await _join(conn, created.account_id, rule, [created.id], draft.consent, asks=asks)
    return await store.read_contact(conn, created.account_id, created.id) if joined.added else created


async def _change(conn: Connection, known: Contact, changes: ContactChanges) -> Contact:
    """The contact is locked."""
    if changes.status is ContactStatus.SUBSCRIBED and known.status is not ContactStatus.SUBSCRIBED:
        await _require_return(conn, known, changes.consent)
        await suppressions.forget_unsubscribe(conn, known.account_id, changes.email or known.email)
    names = known.names.changed(changes.names).without(changes.cleared)
    changed = await store.update_contact(conn, known, names, changes)
    if changes.status is not None and (changes.status is not known.status or changes.consent != NOTHING_SAID):
        await consents.record(conn, known.account_id, [known.id], None, changes.status, changes.consent, API)
    return changed


async def _require_return(conn: Connection, known: Contact, consent: Consent) -> None:
    """Raises unless the person may be subscribed again."""
    if known.status in (ContactStatus.BOUNCED, ContactStatus.COMPLAINED):
        raise ContactUnreachable
    if not consent.proves_return(await consents.withdrawn_at(conn, known.account_id, known.id, None)):
        raise ConsentRequired


async def _join(
    conn: Connection, account_id: int, rule: ListRule, contact_ids: Sequence[int], consent: Consent, *, asks: bool
) -> Joined:
    """Puts the account's contacts on a list. Who left it, or all mail, comes back only by a later consent. With double
    opt-in everybody is asked first, again if he did not answer.
    """
    absent = await members.find_absent(conn, account_id, rule.id, contact_ids)
    back = [one for one in absent if consent.proves_return(await consents.withdrawn_at(conn, account_id, one, rule.id))]
    willing = sorted(set(contact_ids) - set(absent))
    added = await members.insert_members(conn, account_id, rule, willing)
    for one in back:
        if await members.set_membership(conn, account_id, rule.id, one, rule.joins_as):
            added.append(one)
        if not rule.double_opt_in:
            await _restore(conn, account_id, one, consent, API)
    await consents.record(conn, account_id, added, rule.id, rule.joins_as, consent, API)
    if rule.double_opt_in and asks:
        await members.ask(conn, account_id, rule.id, willing + back)
    refused = len(absent) - len(back)
    return Joined(len(added), len(contact_ids) - len(added) - refused, refused, 0)


async def _restore(conn: Connection, account_id: int, contact_id: int, consent: Consent, source: str) -> bool:
    """Makes a contact that had unsubscribed from everything, or was only asked so far, one that may be written to. Whether
    it was one of them.
    """
    yes = ContactStatus.SUBSCRIBED
    among = (ContactStatus.PENDING, ContactStatus.UNSUBSCRIBED)
    email = await store.set_status(conn, account_id, contact_id, yes, among)
    if email is not None:
        await suppressions.forget_unsubscribe(conn, account_id, email)
        await consents.record(conn, account_id, [contact_id], None, yes, consent, source)
    return email is not None


def _completed(draft: ContactDraft) -> ContactDraft:
    return replace(draft, names=draft.names.completed())
