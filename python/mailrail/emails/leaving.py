"""Mail that mailrail itself writes in an account's name: taken in the caller's transaction, together with what it is about,
and left to the workers. What a client waits for goes over a desk of `mailroom.py`.
"""

from collections.abc import Sequence

from mailrail.accounts.model import Account
from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.emails import desk_store
from mailrail.emails.desk_store import Placed
from mailrail.emails.mail import Mail
from mailrail.emails.model import SendingHeld
from mailrail.emails.submission import Shard
from mailrail.emails.taking import open_numbers
from mailrail.reputation.model import ReputationStopped
from mailrail.wallet import service as wallet


async def leave(
    conn: Connection, account: Account, taken: Sequence[Mail], settings: Settings, shard: Shard | None = None
) -> Shard:
    """Takes mails whose senders may send, paid by the account, and wakes a worker. All of them or none.

    Their numbers come from `shard`, the answer of an earlier call whose transaction was committed, while it has room.
    Raises SendingHeld, ReputationStopped, InsufficientFunds, SpendCapReached, WalletFrozen.
    """
    standing = await desk_store.look(conn, account.id, [], [], None, settings.lease_s)
    if standing.is_held:
        raise SendingHeld
    if standing.stopped_because is not None:
        raise ReputationStopped(standing.stopped_because)
    recipients = sum(len(mail.addresses) for mail in taken)
    if shard is None or not shard.has_room(recipients):
        shard = await open_numbers(conn, account.id, taken[0].sender, settings)
    price_micros = account.price_micros if settings.billing else 0
    hold = None
    if price_micros:
        hold = await wallet.hold(conn, account.id, shard.leased.stream_id, price_micros, recipients)
    placed = []
    for mail in taken:
        billed = frozenset(address for _, address in mail.addresses)
        placed.append(Placed(mail, shard.next_seq, None if hold is None else hold.id, billed))
        shard.next_seq += len(mail.addresses)
    await desk_store.write_mails(conn, account.id, shard.leased.stream_id, placed, [], None)
    await desk_store.insert_first_permits(conn, shard.leased, placed)
    await outbox.append(conn, ShardsReadyV1(shard.leased.stream_id, shard.leased.shard))
    return shard
