"""How many requests a minute an account may make, over all API processes: the plan's number per window of 60 s, which begins
with the account's first request. PostgreSQL counts; a process that has seen the end of a window refuses by itself.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from mailrail.accounts.model import Account
from mailrail.db.pool import Pool
from mailrail.errors import MailrailError
from mailrail.web import store

# Windows remembered before those that are over are dropped.
REMEMBERED_MAX = 1000


class RateLimited(MailrailError):
    """The account's requests of this minute are used up."""

    code = "rate_limited"

    def __init__(self, limit: int, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"Your plan has {limit} requests a minute. Try again in {retry_after_s} s.")


@dataclass(frozen=True, slots=True)
class Allowance:
    """Where an account stands after a request, as the RateLimit headers say it; `used` beyond `limit` is refused."""

    limit: int
    used: int
    reset_s: int

    @property
    def remaining(self) -> int:
        """Requests left in this window."""
        return max(self.limit - self.used, 0)

    def check(self) -> None:
        """Raises RateLimited."""
        if self.used > self.limit:
            raise RateLimited(self.limit, self.reset_s)


class Limits:
    """The limits as one process knows them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Account → its limit when its window was used up, and when that window ends.
        self._used_up: dict[int, tuple[int, float]] = {}

    async def count(self, pool: Pool, account: Account) -> Allowance | None:
        """Counts a request; None for a plan without limit, which costs no query."""
        limit = account.plan.requests_per_minute
        if limit is None:
            return None
        if (left_s := self._left_of_used_up(account.id, limit)) > 0:
            return Allowance(limit, limit + 1, math.ceil(left_s))
        async with pool.acquire() as conn:
            used, left_s = await store.count_request(conn, account.id)
        if used >= limit:
            self._remember(account.id, limit, left_s)
        # A window that ends within this second still ends later than now.
        return Allowance(limit, used, max(math.ceil(left_s), 1))

    def _left_of_used_up(self, account_id: int, limit: int) -> float:
        known_limit, until = self._used_up.get(account_id, (limit, 0.0))
        # Another limit than then: the account has another plan now.
        return until - self._clock() if known_limit == limit else 0.0

    def _remember(self, account_id: int, limit: int, left_s: float) -> None:
        now = self._clock()
        if len(self._used_up) >= REMEMBERED_MAX:
            self._used_up = {known: window for known, window in self._used_up.items() if window[1] > now}
        self._used_up[account_id] = (limit, now + left_s)
