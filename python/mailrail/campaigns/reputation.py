"""What a bad reputation does to campaigns: those under way pause, within a round, with the figures as their reason."""

from collections.abc import Sequence

from mailrail.campaigns import store
from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.reputation import service as reputation


async def judge_and_pause(conn: Connection, account_ids: Sequence[int], settings: Settings) -> None:
    """Judges the accounts, and pauses what those have under way that may send no campaign; each step is a transaction of its
    own and safe to repeat.
    """
    async with conn.transaction():
        verdicts = await reputation.judge_accounts(conn, account_ids, settings)
    for account_id, verdict in verdicts.items():
        if verdict.level.stops_campaigns:
            for stream_id in await store.read_running(conn, account_id):
                async with conn.transaction():
                    await store.pause_campaign(conn, stream_id, verdict.reason or "")
