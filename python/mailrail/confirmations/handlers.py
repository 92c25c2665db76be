"""What workers do for double opt-in: they ask. The mail and the note that it was sent are one transaction.

Any number may run: who is to be asked is locked, and another worker goes on to the next.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Sequence

from mailrail._core import Codec
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Account
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.confirmations import store
from mailrail.confirmations.letters import letter
from mailrail.confirmations.model import VALID_FOR, Due, question
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool, transaction
from mailrail.domains import service as domains
from mailrail.emails.form import Mailbox
from mailrail.emails.leaving import leave
from mailrail.emails.mail import Mail
from mailrail.emails.service import prepare
from mailrail.emails.submission import Shard
from mailrail.errors import MailrailError

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
# Asked by one transaction; far fewer than a shard has numbers.
BATCH_MAX = 100
ACCOUNTS_MAX = 1000
# Where there is no sender, no money, or sending is held.
POSTPONED_S = 600.0


class Confirmer:
    """Asks everybody who is due, each account in a transaction of its own."""

    def __init__(self, pool: Pool, codec: Codec, settings: Settings) -> None:
        self._pool = pool
        self._codec = codec
        self._settings = settings
        # Where each account's last mails were put; it takes more while it has room.
        self._shards: dict[int, Shard] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while not is_cancelled():
            try:
                asked = await self.ask_due()
            except DATABASE_ERRORS as error:
                log.warning("confirmations: the database failed (%s)", type(error).__name__)
                asked = 0
            if not asked:
                await asyncio.sleep(INTERVAL_S)

    async def ask_due(self) -> int:
        """One batch of each account; how many were asked. One account's trouble stops no other."""
        async with self._pool.acquire() as conn:
            waiting = await store.read_accounts(conn, ACCOUNTS_MAX)
        asked = 0
        for account_id in waiting:
            try:
                asked += await self._ask_some(account_id)
            except DATABASE_ERRORS as error:
                log.warning("confirmations: account %d waits (%s)", account_id, type(error).__name__)
        return asked

    async def _ask_some(self, account_id: int) -> int:
        async with transaction(self._pool, account_id) as conn:
            due = await store.lock_due(conn, account_id, BATCH_MAX)
            if not due:
                return 0
            account = await accounts.get(conn, account_id)
            mails, able, unable = await self._write(conn, account, due)
            shard = None
            if mails:
                try:
                    async with conn.transaction():
                        shard = await leave(conn, account, mails, self._settings, self._shards.get(account_id))
                except MailrailError as error:
                    log.warning("confirmations: account %d cannot send (%s)", account_id, error.code)
                    able, unable = [], due
            await store.note_asked(conn, account_id, able)
            await store.postpone(conn, account_id, unable, POSTPONED_S)
        if shard is not None:
            self._remember(account_id, shard)
        return len(able)

    async def _write(
        self, conn: Connection, account: Account, due: Sequence[Due]
    ) -> tuple[list[Mail], list[Due], list[Due]]:
        """The mails, whom they are to, and to whom none could be written."""
        mails: list[Mail] = []
        able: list[Due] = []
        unable: list[Due] = []
        # A link that is opened, or a mail, tells nobody: the person has not agreed to anything yet.
        untracked = dataclasses.replace(account, track_opens=False, track_clicks=False)
        for one in due:
            try:
                sender = await self._sender_of(conn, account, one)
                asked = question(account.name, one.list_name, one.wording)
                draft = letter(one, asked, self._link(account.id, one), sender)
                mails.append(prepare(draft, sender, untracked, self._settings))
                able.append(one)
            except MailrailError as error:
                log.warning("confirmations: list %d cannot ask (%s)", one.list_id, error.code)
                unable.append(one)
        return mails, able, unable

    async def _sender_of(self, conn: Connection, account: Account, due: Due) -> Mailbox:
        if due.sender_email is None:
            return await domains.default_sender(conn, account)
        await domains.require_verified_sender(conn, account.id, due.sender_email)
        return due.sender_name, due.sender_email

    def _link(self, account_id: int, due: Due) -> str:
        expires_s = int(time.time() + VALID_FOR.total_seconds())
        token = self._codec.confirm_token(account_id, due.contact_id, due.list_id, expires_s)
        return f"{self._settings.public_url}/confirm/{token}"

    def _remember(self, account_id: int, shard: Shard) -> None:
        if len(self._shards) >= ACCOUNTS_MAX:
            self._shards.clear()
        self._shards[account_id] = shard
