"""The verbs of reputation. Each runs in the caller's transaction."""

import logging
from collections.abc import Sequence

from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.reputation import store
from mailrail.reputation.model import Figures, Level, Reputation, ReputationStopped, Tally, Verdict, judge

log = logging.getLogger(__name__)


async def count(conn: Connection, tallies: Sequence[Tally]) -> None:
    """Adds what SES told. Locks a row per account until the transaction ends, so it comes last."""
    if tallies:
        await store.add(conn, tallies)


async def judge_accounts(conn: Connection, account_ids: Sequence[int], settings: Settings) -> dict[int, Verdict]:
    """Judges the accounts by what is counted now, and writes down how they stand."""
    figures = await store.read_figures(conn, account_ids)
    verdicts = {account_id: judge(figures.get(account_id, Figures()), settings) for account_id in sorted(account_ids)}
    for account_id, verdict in verdicts.items():
        if await store.write_verdict(conn, account_id, verdict):
            log.warning("reputation: account=%d is %s (%s)", account_id, verdict.level, verdict.reason or "all is well")
    return verdicts


async def doubtful_accounts(conn: Connection) -> list[int]:
    """Whom to judge again, since time passes and a judge may have died."""
    return await store.read_doubtful(conn)


async def get(conn: Connection, account_id: int) -> Reputation:
    """How the account stands and the figures of now."""
    figures = await store.read_figures(conn, [account_id])
    verdict = await store.read_verdict(conn, account_id)
    return Reputation(verdict, figures.get(account_id, Figures()))


async def release(conn: Connection, account_id: int) -> Verdict:
    """Lets the account send again and counts its mail from now on alone; how it stood before."""
    before = await store.read_verdict(conn, account_id)
    await store.forget(conn, account_id)
    await store.write_verdict(conn, account_id, Verdict(Level.GOOD))
    return before


async def refuse_stopped_campaigns(conn: Connection, account_id: int) -> None:
    """Raises ReputationStopped while the account may send no campaign."""
    verdict = await store.read_verdict(conn, account_id)
    if verdict.level.stops_campaigns:
        raise ReputationStopped(verdict.reason)


async def forget_old(conn: Connection) -> None:
    """Drops what is judged no more."""
    await store.forget_old(conn)
