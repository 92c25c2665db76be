"""The one limiter of all processes that send through an AWS account and region.

Its state is a row of the database. Campaigns ask for a slice before they claim a round; mail that may not wait takes its
tokens at once, into debt, and campaigns get what it leaves.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator

from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.errors import MailrailError
from mailrail.ses import control, store
from mailrail.ses.model import Limits

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 30.0
# How long a poll may take before another process makes one too, whether SES is slow or whoever asked it has ended; and how
# often each process looks whether one is due.
POLL_RETRY_S = 5.0


class NoTokens(MailrailError):
    """Amazon SES takes no more mail for now."""

    code = "no_tokens"


class Limiter:
    """A process's access to the limiter, shared by all that sends in it. One request for a slice is under way at a time,
    so the slots of a process are served in the order in which they came.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._name = name_of(settings)
        self._turn = asyncio.Lock()
        self._returned = 0
        self._is_open = True
        self._stopped = asyncio.Event()

    # —— campaigns ——

    @property
    def is_open(self) -> bool:
        """Whether campaigns may send, as far as the last answer goes; `until_open` waits for it."""
        return self._is_open

    async def grant(self, most: int, patience_s: float = 0.0) -> int:
        """Tokens for a round of at most `most`, one slice in one statement; waits for them without a connection.

        0 when there are none within `patience_s`, when campaigns may not send at all (then `until_open` waits), or after
        `stop`. Raises DATABASE_ERRORS.
        """
        until = time.monotonic() + patience_s
        async with self._turn:
            while not self._stopped.is_set():
                asked = await self._ask(most)
                if asked.given:
                    return asked.given
                # Not all at the same time: the nearest to the database would always win.
                pause_s = asked.limits.pause_s(asked.wanted) * random.uniform(1.0, 1.2)  # noqa: S311
                if not asked.limits.is_open or time.monotonic() + pause_s > until:
                    break
                await self._sleep(pause_s)
        return 0

    async def give_back(self, tokens: int) -> None:
        """Returns tokens that let nobody through."""
        self._returned += max(0, tokens)
        # Whoever asks next takes them along.
        if self._returned and not self._turn.locked():
            async with self._turn:
                with self._tolerating():
                    await self._ask(0)

    async def until_open(self) -> None:
        """Returns at once unless the last answer was that campaigns may not send: the daily quota is used up, sending is
        disabled, or SES has not told its figures; then it waits until that has changed. Raises DATABASE_ERRORS.
        """
        if self._is_open:
            return
        async with self._turn:
            while not self._stopped.is_set():
                asked = await self._ask(0)
                if asked.limits.is_open:
                    return
                await self._sleep(asked.limits.pause_s(0))

    async def throttled(self, recipients: int) -> None:
        """SES refused so many for their rate: it goes down, and comes back bit by bit."""
        if recipients > 0:
            with self._tolerating():
                async with self._pool.acquire() as conn:
                    part = await store.throttled(conn, self._name, self._settings.max_send_rate, recipients)
                log.warning("limiter: SES throttled %d recipients, down to %.2f of its rate", recipients, part or 0)

    async def day_used_up(self) -> None:
        """SES refused mail because of the daily quota, though the figures left some: nothing more before the next poll."""
        log.warning("limiter: SES says that the daily quota is used up")
        with self._tolerating():
            async with self._pool.acquire() as conn:
                await store.use_up_day(conn, self._name)

    def stop(self) -> None:
        """Ends all waiting of campaigns."""
        self._stopped.set()

    async def _ask(self, most: int) -> store.Grant:
        # If the answer is lost they are lost with it, rather than back twice.
        returned, self._returned = self._returned, 0
        async with self._pool.acquire() as conn:
            asked = await store.grant(conn, self._name, self._settings.max_send_rate, most, returned)
        if asked.limits.is_open != self._is_open:
            self._is_open = asked.limits.is_open
            log.info("limiter: campaigns %s (%s)", "go on" if self._is_open else "wait", asked.limits)
        return asked

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    # —— mail that may not wait ——

    async def take(self, recipients: int) -> float:
        """Tokens for a mail that may not wait for its turn; returns the seconds until it may be sent.

        Raises NoTokens when too much is owed already, the daily quota is used up, sending is disabled or SES has not told
        its figures: the mail has to be kept for later. Raises DATABASE_ERRORS.
        """
        async with self._pool.acquire() as conn:
            taken, limits = await store.take(conn, self._name, self._settings.max_send_rate, recipients)
        if not taken:
            raise NoTokens
        return max(0.0, -limits.tokens / limits.rate)

    # —— the figures ——

    async def look(self) -> Limits:
        """What may be sent just now; takes nothing. Raises DATABASE_ERRORS."""
        async with self._pool.acquire() as conn:
            return (await store.grant(conn, self._name, self._settings.max_send_rate, 0, 0)).limits

    async def follow(self) -> None:
        """Keeps the figures at what SES says, until cancelled: one poll for all processes, by whoever is first."""
        while not is_cancelled():
            with self._tolerating():
                await self._poll_if_due()
            await asyncio.sleep(POLL_RETRY_S * random.uniform(0.9, 1.1))  # noqa: S311

    async def _poll_if_due(self) -> None:
        async with self._pool.acquire() as conn:
            await store.add(conn, self._name)
            granted = await store.begin_poll(conn, self._name, POLL_RETRY_S)
        if granted is None:
            return
        try:
            account = await control.get_account(self._settings)
        except control.ControlError as error:
            log.warning("limiter: SES does not tell its quota (%s)", error)
            return
        async with self._pool.acquire() as conn:
            await store.end_poll(conn, self._name, account, granted, POLL_INTERVAL_S)

    @contextlib.contextmanager
    def _tolerating(self) -> Iterator[None]:
        """What is lost with the database makes the pace a little less exact, no more."""
        try:
            yield
        except DATABASE_ERRORS as error:
            log.warning("limiter: the database failed (%s)", type(error).__name__)


def name_of(settings: Settings) -> str:
    """The row's name: whose quota it is, as far as settings tell."""
    return f"{settings.ses_endpoint or 'aws'} {settings.ses_region}"
