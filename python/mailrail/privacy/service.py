"""The verbs of privacy: forget a person, step by step, and show all that is held of one."""

from mailrail.contacts import service as contacts
from mailrail.db.pool import Connection
from mailrail.emails import keys, traces
from mailrail.emails import service as emails
from mailrail.events import store as events
from mailrail.imports import store as imports
from mailrail.privacy import store
from mailrail.privacy.model import CONSENTS_MAX, MAILS_MAX, Erasure, Export
from mailrail.suppressions import service as suppressions
from mailrail.suppressions.model import hash_of
from mailrail.webhooks import deliveries

# Streams that one transaction goes through.
STREAMS_MAX = 20


async def begin_erasure(conn: Connection, account_id: int, contact_id: int, secret_key: str) -> Erasure:
    """Deletes the contact, so that nothing more is sent to it, and leaves its mail to the workers. Raises ContactNotFound."""
    known = await contacts.remove(conn, account_id, contact_id)
    folded = known.email.lower()
    email_hash = hash_of(secret_key, account_id, folded)
    await suppressions.erase(conn, account_id, folded, email_hash)
    return await store.insert(conn, account_id, contact_id, folded, email_hash)


async def get_erasure(conn: Connection, account_id: int, erasure_id: int) -> Erasure:
    """Raises ErasureNotFound."""
    return await store.read(conn, account_id, erasure_id)


async def go_on(conn: Connection, erasure: Erasure, secret_key: str) -> None:
    """One step of an erasure that the caller has locked: some streams of mail, or the end."""
    stream_ids = await traces.read_streams(conn, erasure.account_id, erasure.stream_id, STREAMS_MAX)
    if stream_ids:
        await _erase_mail(conn, erasure, stream_ids, secret_key)
        await store.note_progress(conn, erasure, stream_ids[-1])
        return
    await imports.erase_errors(conn, erasure.account_id, erasure.email_folded)
    await keys.forget_answers(conn, erasure.account_id, erasure.email_folded)
    await deliveries.forget(conn, erasure.account_id, erasure.contact_id, erasure.email_folded)
    await events.forget_parked(conn, erasure.email_folded)
    # Whatever bounced or complained while the mail was gone through.
    await suppressions.erase(conn, erasure.account_id, erasure.email_folded, erasure.email_hash)
    await store.complete(conn, erasure)


async def _erase_mail(conn: Connection, erasure: Erasure, stream_ids: list[int], secret_key: str) -> None:
    found = await traces.find(conn, erasure.account_id, stream_ids, erasure.contact_id, erasure.email_folded)
    if not found:
        return
    # The contact may have had other addresses when some of it was sent.
    hashes = {
        address: hash_of(secret_key, erasure.account_id, address) for address in {one.email.lower() for one in found}
    }
    await traces.erase(conn, erasure.account_id, found, hashes)
    for address, email_hash in sorted(hashes.items()):
        await suppressions.erase(conn, erasure.account_id, address, email_hash)
        await keys.forget_answers(conn, erasure.account_id, address)


async def export(conn: Connection, account_id: int, contact_id: int) -> Export:
    """All that is held about a contact. Raises ContactNotFound."""
    contact = await contacts.get(conn, account_id, contact_id)
    said, _ = await contacts.history(conn, account_id, contact_id, CONSENTS_MAX)
    return Export(
        contact,
        await contacts.memberships(conn, account_id, contact_id),
        said,
        await suppressions.find(conn, account_id, contact.email),
        await emails.mails_of(conn, account_id, contact_id, contact.email.lower(), MAILS_MAX),
    )
