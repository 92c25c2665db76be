"""The verbs of suppressions. Each runs in the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence

from mailrail.db.pool import Connection
from mailrail.suppressions import ses_list, store
from mailrail.suppressions.model import (
    Lifted,
    Reason,
    Suppression,
    SuppressionFilter,
    SuppressionNotFound,
    SuppressionStays,
    hash_of,
)


async def add(
    conn: Connection, account_id: int, emails: Sequence[str], secret_key: str, key_id: int | None
) -> list[Suppression]:
    """Suppresses addresses by hand, together, on behalf of an API key; those that were not suppressed before."""
    folded = [email.lower() for email in emails]
    await wake(conn, account_id, folded, secret_key)
    return await store.insert(conn, account_id, folded, Reason.MANUAL, key_id)


async def add_list(
    conn: Connection, account_id: int, entries: Mapping[str, Reason], secret_key: str, key_id: int | None
) -> int:
    """Suppresses the addresses of a list, in lower case, each for its reason; how many were not suppressed before."""
    await wake(conn, account_id, entries, secret_key)
    return await store.insert_each(conn, account_id, entries, key_id)


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


async def get(conn: Connection, account_id: int, *, row_id: int | None = None, email: str | None = None) -> Suppression:
    """By its number or its address. Raises SuppressionNotFound."""
    return await store.read(conn, account_id, row_id, email)


async def lift(
    conn: Connection, account_id: int, *, row_id: int | None = None, email: str | None = None, force: bool = False
) -> Lifted:
    """Lets an address have mail again, named by its number or itself. A contact that bounced is subscribed again.
    An address that another tenant's mail brought onto SES's list is lifted there alone.

    SES lifts it, too, soon after, unless another tenant has the person's complaint.
    Raises SuppressionNotFound, and SuppressionStays for a person's own word: a complaint needs `force`, and whoever
    unsubscribed comes back by his consent alone.
    """
    try:
        found = await store.read(conn, account_id, row_id, email, lock=True)
    except SuppressionNotFound:
        if email is not None and await ses_list.ask_lift_of_address(conn, account_id, email.lower()):
            return Lifted(None, email.lower(), asked_ses=True)
        raise
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
    # An address that bounced or complained here is on SES's own list as well.
    asked = await ses_list.ask_lift(conn, found, is_sure=found.reason in (Reason.BOUNCE, Reason.COMPLAINT))
    return Lifted(found.id, found.email, asked)


async def forget_unsubscribe(conn: Connection, account_id: int, email: str) -> None:
    """For a person who subscribed again."""
    await store.delete_unsubscribe(conn, account_id, email)


async def erase(conn: Connection, account_id: int, folded: str, email_hash: bytes) -> None:
    """Keeps what suppresses the address, if anything does, without the address."""
    await store.replace_by_hash(conn, account_id, folded, email_hash)


async def any_erased(conn: Connection, account_id: int) -> bool:
    """Whether there is anything that `wake` could find."""
    return await store.any_hash(conn, account_id)


async def wake(conn: Connection, account_id: int, folded: Iterable[str], secret_key: str) -> dict[str, Reason]:
    """Suppresses those of the addresses whose owner was suppressed and then erased. An account without such people pays
    for one look. The addresses that were woken and get no mail at all, and why.
    """
    if not await store.any_hash(conn, account_id):
        return {}
    by_hash = {hash_of(secret_key, account_id, address): address for address in folded}
    woken = await store.wake(conn, account_id, by_hash)
    return {one.email: one.reason for one in woken if one.reason is not Reason.UNSUBSCRIBE}
