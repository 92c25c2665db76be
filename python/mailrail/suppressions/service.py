"""The verbs of suppressions. Each runs in the caller's transaction."""

from collections.abc import Iterable, Sequence

from mailrail.db.pool import Connection
from mailrail.suppressions import store
from mailrail.suppressions.model import Reason, Suppression, SuppressionFilter, SuppressionStays, hash_of


async def add(conn: Connection, account_id: int, emails: Sequence[str], secret_key: str) -> list[Suppression]:
    """Suppresses addresses by hand, together; those that were not suppressed before."""
    folded = [email.lower() for email in emails]
    await wake(conn, account_id, folded, secret_key)
    return await store.insert(conn, account_id, folded, Reason.MANUAL)


async def keep_unsubscribed(conn: Connection, account_id: int, email: str) -> None:
    """Keeps a person's word beyond his contact."""
    await store.insert(conn, account_id, [email.lower()], Reason.UNSUBSCRIBE)


async def page(
    conn: Connection, account_id: int, wanted: SuppressionFilter, limit: int, offset: int, after_id: int | None
) -> list[Suppression]:
    """Newest first."""
    return await store.read_page(conn, account_id, wanted, limit, offset, after_id)


async def count(conn: Connection, account_id: int, wanted: SuppressionFilter) -> int:
    """How many the filter finds."""
    return await store.count(conn, account_id, wanted)


async def find(conn: Connection, account_id: int, email: str) -> Suppression | None:
    """What suppresses the address."""
    return await store.find(conn, account_id, email)


async def lift(
    conn: Connection, account_id: int, *, row_id: int | None = None, email: str | None = None, force: bool = False
) -> Suppression:
    """Lets an address have mail again, named by its number or itself. A contact that bounced is subscribed again.

    Raises SuppressionNotFound, and SuppressionStays for a person's own word: a complaint needs `force`, and whoever
    unsubscribed comes back by his consent alone.
    """
    found = await store.read(conn, account_id, row_id, email)
    if found.reason is Reason.UNSUBSCRIBE:
        raise SuppressionStays(
            "This person unsubscribed before the contact was deleted. Create the contact with `status: subscribed` and "
            "`consent` that says where and when the person subscribed again; that lifts the suppression."
        )
    if found.reason is Reason.COMPLAINT and not force:
        raise SuppressionStays(
            "This person marked your mail as spam, and mail to people who did puts your reputation at Amazon SES at risk. "
            "If the person asked for your mail again, repeat with ?force=true."
        )
    await store.delete(conn, found)
    return found


async def forget_unsubscribe(conn: Connection, account_id: int, email: str) -> None:
    """For a person who subscribed again."""
    await store.delete_unsubscribe(conn, account_id, email)


async def erase(conn: Connection, account_id: int, folded: str, email_hash: bytes) -> None:
    """Keeps what suppresses the address, if anything does, without the address."""
    await store.replace_by_hash(conn, account_id, folded, email_hash)


async def any_erased(conn: Connection, account_id: int) -> bool:
    """Whether there is anything that `wake` could find."""
    return await store.any_hash(conn, account_id)


async def wake(conn: Connection, account_id: int, folded: Iterable[str], secret_key: str) -> frozenset[str]:
    """Suppresses those of the addresses whose owner was suppressed and then erased. An account without such people pays
    for one look. The addresses that were woken and get no mail at all.
    """
    if not await store.any_hash(conn, account_id):
        return frozenset()
    by_hash = {hash_of(secret_key, account_id, address): address for address in folded}
    woken = await store.wake(conn, account_id, by_hash)
    return frozenset(one.email for one in woken if one.reason is not Reason.UNSUBSCRIBE)
