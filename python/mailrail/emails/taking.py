"""The first commit of a desk: everything that has to be true before a call is written to a socket."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from mailrail.accounts.model import UNTRACKED, Account, Tracking
from mailrail.addresses import domain_of
from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.domains.model import SenderNotVerified
from mailrail.domains.service import covering_domains
from mailrail.emails import desk_store, keys
from mailrail.emails.desk_store import SHARD_SIZE, Placed, Standing
from mailrail.emails.mail import Mail
from mailrail.emails.model import SendingHeld
from mailrail.emails.submission import Shard, Submission, Written
from mailrail.errors import MailrailError
from mailrail.reputation.model import ReputationStopped
from mailrail.suppressions import service as suppressions
from mailrail.wallet import service as wallet
from mailrail.wallet.model import InsufficientFunds, WalletFrozen

REFUSED = (InsufficientFunds, WalletFrozen)


@dataclass(eq=False, slots=True)
class Taking:
    """A batch on its way into the database. Whoever is refused leaves the batch with the reason; what is taken is sent from
    here, or left to the workers. `written` begins with the desk's shards and ends with what the commit wrote.
    """

    settings: Settings
    account: Account
    is_test: bool
    is_sent_here: bool
    batch: list[Submission]
    written: Written
    _holds: dict[Submission, int] = field(default_factory=dict)

    async def write(self, conn: Connection) -> None:
        """In the caller's transaction. Raises SendingHeld, ReputationStopped."""
        standing = await self._look(conn)
        self.batch[:] = await keys.take(conn, self.account.id, self.batch, self.is_test, self.settings.lease_s)
        await self._refuse_unverified(conn, standing)
        if not self.batch:
            return
        self._track_less(standing)
        await self._open_shards(conn)
        await self._hold(conn)
        self._place()
        if self.batch:
            await self._write(conn)

    def _is_left(self, submission: Submission) -> bool:
        """Whether workers send it. A request with one scheduled mail is left as a whole: its others are due at once. What a
        test key sends is played here and now: no worker may ever have it.
        """
        return not self.is_test and (not self.is_sent_here or submission.is_scheduled)

    def _count(self, *, left: bool) -> int:
        """Addresses that are left to workers, or sent from here."""
        return sum(len(each.addresses) for each in self.batch if self._is_left(each) is left)

    # —— who may send what ——

    async def _look(self, conn: Connection) -> Standing:
        """What the batch meets; renews the lease of the desk's shard, if it has room for all that is sent from here."""
        addresses = sorted({address.lower() for each in self.batch for address in each.addresses})
        senders = {domain_of(mail.sender) for each in self.batch for mail in each.mails}
        sent, sending = self._count(left=False), self.written.sending
        if sending is not None and sent and not sending.has_room(sent):
            sending.is_left, sending = True, None
        standing = await desk_store.look(
            conn,
            self.account.id,
            sorted({name for sender in senders for name in covering_domains(sender)}),
            addresses,
            sending.leased if sending is not None and sent else None,
            self.settings.lease_s,
        )
        if standing.is_held:
            raise SendingHeld
        # What a test key sends reaches nobody.
        if standing.stopped_because is not None and not self.is_test:
            raise ReputationStopped(standing.stopped_because)
        if sending is not None and sent:
            if standing.renewed is None:
                sending.is_left, sending = True, None
            else:
                sending.leased = standing.renewed
        self.written.sending = sending
        self.written.suppressed = standing.suppressed
        if standing.has_erased:
            woken = await suppressions.wake(conn, self.account.id, addresses, self.settings.secret_key)
            self.written.suppressed = {**standing.suppressed, **woken}
        return standing

    async def _refuse_unverified(self, conn: Connection, standing: Standing) -> None:
        unverified = [each for each in self.batch if not each.is_covered_by(standing.verified_domains)]
        await self._refuse(conn, unverified, SenderNotVerified())

    async def _refuse(self, conn: Connection, refused: list[Submission], error: MailrailError) -> None:
        await keys.drop(conn, self.account.id, self.is_test, refused)
        for each in refused:
            self.batch.remove(each)
            each.fail(error)

    # —— what may be known of it ——

    def _track_less(self, standing: Standing) -> None:
        """Of mail whose domain or whose readers do not want it: one who does not decides for all who get the same mail."""
        for each in self.batch:
            each.mails = [mail.within(_allowed(mail, standing)) for mail in each.mails]

    # —— room for its numbers ——

    async def _open_shards(self, conn: Connection) -> None:
        """Room for the batch's numbers; one that is sent from here has a lease that covers its calls."""
        written, sent, left = self.written, self._count(left=False), self._count(left=True)
        if written.leaving is not None and left and not written.leaving.has_room(left):
            written.leaving = None
        if sent and written.sending is None:
            written.sending = await self._open(conn, self.settings.lease_s)
        if left and written.leaving is None:
            written.leaving = await self._open(conn, None)
        if sent and left and written.used(sent=True).stream_id != written.used(sent=False).stream_id:
            # Midnight passed between the two: both go on in the newer day.
            written.leaving = await self._open(conn, None)
            written.sending = await self._open(conn, self.settings.lease_s)
        written.stream_id = written.used(sent=bool(sent)).stream_id

    async def _open(self, conn: Connection, lease_s: float | None) -> Shard:
        sender = self.batch[0].mails[0].sender
        return await open_numbers(conn, self.account.id, sender, self.settings, is_test=self.is_test, lease_s=lease_s)

    # —— money ——

    def _billed(self, submission: Submission) -> list[str]:
        """The addresses that are paid for. Nobody pays for one that is suppressed; but what a worker sends later may not
        be by then, and is released if it is.
        """
        if self._is_left(submission):
            return submission.addresses
        return [address for address in submission.addresses if not self.written.is_suppressed(address)]

    async def _hold(self, conn: Connection) -> None:
        """One hold for the batch; if the money is not enough for all, one for each that it is enough for, in their order.
        Those without money leave the batch.
        """
        self._holds.clear()
        price_micros = self.account.price_micros if self.settings.billing and not self.is_test else 0
        paying = {each: recipients for each in self.batch if (recipients := len(self._billed(each)))}
        if price_micros == 0 or not paying:
            return
        stream_id, account_id = self.written.stream_id, self.account.id
        try:
            hold = await wallet.hold(conn, account_id, stream_id, price_micros, sum(paying.values()))
            self._holds = dict.fromkeys(paying, hold.id)
            return
        except REFUSED as error:
            if len(paying) == 1:
                await self._refuse(conn, list(paying), error)
                return
        for each, recipients in paying.items():
            try:
                self._holds[each] = (await wallet.hold(conn, account_id, stream_id, price_micros, recipients)).id
            except REFUSED as error:
                await self._refuse(conn, [each], error)

    # —— all that is taken ——

    def _place(self) -> None:
        """Gives each address its number."""
        for submission in self.batch:
            shard = self.written.leaving if self._is_left(submission) else self.written.sending
            assert shard is not None
            billed, hold_id = frozenset(self._billed(submission)), self._holds.get(submission)
            submission.placed.clear()
            for mail in submission.mails:
                submission.placed.append(Placed(mail, shard.next_seq, hold_id, billed))
                shard.next_seq += len(mail.addresses)

    async def _write(self, conn: Connection) -> None:
        written = self.written
        written.left = [each for each in self.batch if self._is_left(each)]
        written.sent = [each for each in self.batch if not self._is_left(each)]
        claimed = [item for each in written.sent for item in each.placed]
        left = [item for each in written.left for item in each.placed]
        written.claimed = await desk_store.write_mails(
            conn,
            self.account.id,
            written.stream_id,
            [*claimed, *left],
            claimed,
            written.sending.leased if written.sending is not None else None,
        )
        await keys.keep(conn, self.account.id, self.is_test, self.batch, written.stream_id, None)
        if left:
            leased = written.used(sent=False)
            await desk_store.insert_first_permits(conn, leased, left)
            if any(item.mail.scheduled_at is None for item in left):
                await outbox.append(conn, ShardsReadyV1(written.stream_id, leased.shard))


def _allowed(mail: Mail, standing: Standing) -> Tracking:
    """The domain decides that signs for the mail, the longest that is verified; everybody decides for himself."""
    if any(address.lower() in standing.untracked for _, address in mail.addresses):
        return UNTRACKED
    signs = max(standing.verified_domains & set(covering_domains(domain_of(mail.sender))), key=len, default="")
    return Tracking(opens=signs not in standing.without_opens, clicks=signs not in standing.without_clicks)


async def open_numbers(
    conn: Connection,
    account_id: int,
    sender: str,
    settings: Settings,
    *,
    is_test: bool = False,
    lease_s: float | None = None,
) -> Shard:
    """The next range of numbers of the account's mail of today, for the caller alone; without a lease it is for workers to send."""
    identity: dict[str, Any] = {
        "account_id": account_id,
        "from_name": None,
        # Canaries for this day's unknown mails go by this sender.
        "from_email": sender,
        "reply_to": [],
        "configuration_set": settings.configuration_set or None,
        "base_url": settings.public_url,
    }
    bounce_grace = timedelta(seconds=settings.bounce_grace_s)
    stream_id, text = await desk_store.open_stream(
        conn, account_id, is_test, orjson.dumps(identity).decode(), bounce_grace
    )
    leased, opening_id = await desk_store.open_shard(conn, account_id, stream_id, lease_s)
    return Shard(leased, opening_id, text, leased.shard * SHARD_SIZE + 1)
