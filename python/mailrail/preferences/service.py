"""The verbs of a reader: what he gets, and taking his word. Each runs in the caller's transaction."""

from collections.abc import Sequence

from mailrail.accounts import service as accounts
from mailrail.accounts.model import AccountNotFound
from mailrail.contacts import service as contacts
from mailrail.contacts.consent import PREFERENCE_PAGE, Consent
from mailrail.contacts.model import Contact, ContactStatus, Offer
from mailrail.db.pool import Connection
from mailrail.emails import service as emails
from mailrail.preferences import words
from mailrail.preferences.model import Answer, Change, Link, Reader, Standing, Wish
from mailrail.suppressions import service as suppressions
from mailrail.suppressions.model import Reason, Suppression
from mailrail.tracking import service as tracking


async def find(conn: Connection, link: Link, *, lock: bool = False) -> Reader | None:
    """The reader behind a link; None where its account is gone. `lock` keeps him as he is until the transaction ends.

    A contact that was deleted is looked for by the address that the mail went to: whoever has it now is the same person.
    """
    try:
        account = await accounts.get(conn, link.account_id)
    except AccountNotFound:
        return None
    contact = await contacts.find_by_id(conn, account.id, link.contact_id, lock=lock)
    email = None if contact is None else contact.email
    if contact is None:
        email = await emails.address_of(conn, account.id, link.stream_id, link.seq)
        contact = None if email is None else await contacts.find_by_email(conn, account.id, email)
    suppression = None if email is None else await suppressions.find(conn, account.id, email)
    offers = [] if contact is None else await contacts.offers(conn, account.id, contact.id)
    return Reader(
        account.name,
        _standing(email, contact, suppression),
        None if contact is None else contact.id,
        email,
        None if contact is None else await _list_of(conn, link, offers),
        tuple(offers),
    )


async def take(conn: Connection, link: Link, reader: Reader, answer: Answer, ip: str | None) -> Change:
    """Takes the reader's word, with the words that he saw and where he said it. The same word twice changes nothing."""
    match answer.wish:
        case Wish.LEAVE_LIST | Wish.LEAVE_ALL:
            change = await _leave(conn, link, reader, answer, ip)
        case Wish.JOIN_LIST | Wish.RETURN if reader.may_return:
            change = await _return(conn, link, reader, answer, ip)
        case Wish.CHOOSE if reader.may_return:
            change = await _choose(conn, link, reader, answer, ip)
        case _:
            change = Change()
    if _left_by_this_mail(answer, reader, change):
        await tracking.record_unsubscribed(conn, link.stream_id, link.seq)
    return change


async def _leave(conn: Connection, link: Link, reader: Reader, answer: Answer, ip: str | None) -> Change:
    if reader.contact_id is None:
        if reader.email is not None:
            await suppressions.keep_unsubscribed(conn, link.account_id, reader.email)
        return Change()
    said = Consent(ip=ip, wording=words.pressed(reader, answer))
    left = reader.list if answer.wish is Wish.LEAVE_LIST else None
    list_id = None if left is None else left.list_id
    changed = await contacts.unsubscribe(conn, link.account_id, reader.contact_id, list_id, said)
    return Change(left=(left.name,)) if changed and left else Change(left_all=changed)


async def _return(conn: Connection, link: Link, reader: Reader, answer: Answer, ip: str | None) -> Change:
    assert reader.contact_id is not None, "who may return is a contact"
    said = Consent(PREFERENCE_PAGE, ip, words.pressed(reader, answer))
    joined = reader.list if answer.wish is Wish.JOIN_LIST else None
    list_id = None if joined is None else joined.list_id
    changed = await contacts.subscribe(conn, link.account_id, reader.contact_id, list_id, said)
    return Change(joined=(joined.name,)) if changed and joined else Change(came_back=changed)


async def _choose(conn: Connection, link: Link, reader: Reader, answer: Answer, ip: str | None) -> Change:
    """Makes the lists that he saw what he ticked. Who left everything comes back by a tick, and to what he ticked alone."""
    assert reader.contact_id is not None, "who may return is a contact"
    seen = [offer for offer in reader.choices if offer.list_id in answer.seen]
    wanted = [offer for offer in seen if offer.list_id in answer.ticked]
    if reader.standing is Standing.LEFT and not wanted:
        return Change()
    left = [offer for offer in seen if offer not in wanted and offer.status is ContactStatus.SUBSCRIBED]
    joined = [offer for offer in wanted if not reader.gets(offer)]
    for verb, offers in ((contacts.unsubscribe, left), (contacts.subscribe, joined)):
        for offer in offers:
            said = Consent(PREFERENCE_PAGE, ip, words.ticked(reader, offer, is_on=offer in joined))
            await verb(conn, link.account_id, reader.contact_id, offer.list_id, said)
    return Change(
        joined=tuple(offer.name for offer in joined),
        left=tuple(offer.name for offer in left) if reader.standing is Standing.GETS else (),
        came_back=reader.standing is Standing.LEFT,
    )


def _left_by_this_mail(answer: Answer, reader: Reader, change: Change) -> bool:
    """Whether the mail counts as one that its reader unsubscribed by; it does so once."""
    if answer.wish in (Wish.LEAVE_LIST, Wish.LEAVE_ALL):
        return reader.standing is not Standing.NOBODY
    return reader.list is not None and reader.list.name in change.left


async def _list_of(conn: Connection, link: Link, offers: Sequence[Offer]) -> Offer | None:
    """The list that the mail went to, also if its reader was taken off it since; one that was deleted is no list any more."""
    if link.list_id is None:
        return None
    known = next((offer for offer in offers if offer.list_id == link.list_id), None)
    if known is not None:
        return known
    name = await contacts.list_name(conn, link.account_id, link.list_id)
    return None if name is None else Offer(link.list_id, name, None)


def _standing(email: str | None, contact: Contact | None, suppression: Suppression | None) -> Standing:
    if email is None:
        return Standing.NOBODY
    if contact is None:
        return Standing.GETS if suppression is None else Standing.LEFT
    match contact.status:
        case ContactStatus.BOUNCED:
            return Standing.BOUNCED
        case ContactStatus.COMPLAINED:
            return Standing.COMPLAINED
    if suppression is not None and suppression.reason is not Reason.UNSUBSCRIBE:
        return Standing.SUPPRESSED
    return Standing.LEFT if contact.status is ContactStatus.UNSUBSCRIBED else Standing.GETS
