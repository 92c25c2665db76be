"""A canary shows that the way of events is open again, although no mail's own event comes."""

from pathlib import Path

from mailrail.events import store
from tests.support.installation import Installation, installed
from tests.support.postgres import Database
from tests.support.waiting import until


async def test_a_canary_proves_that_the_way_is_open_again(database: Database, tmp_path: Path) -> None:
    async with installed(database, tmp_path / "simulator", {"event_silence_s": 1.0}) as installation:
        await installation.set_faults(lose_events=1.0)
        tenant = await installation.add_sender(3)
        await installation.send_campaign(tenant)
        await until(lambda: is_silent(installation), "the silence")
        assert b"mailrail_events_silent_seconds 0.0" not in await figures(installation)
        await installation.set_faults()

        async def speaks() -> bool:
            return not await is_silent(installation)

        await until(speaks, "the return of a canary")
        async with installation.api.operator.acquire() as conn:
            assert await conn.fetchval("SELECT count(*) FROM canaries WHERE seen_at IS NOT NULL") >= 1
            assert await conn.fetchval("SELECT count(*) FROM events WHERE account_id = $1", tenant.account_id) == 0


async def is_silent(installation: Installation) -> bool:
    """Whether the watch says so."""
    async with installation.api.operator.acquire() as conn:
        return (await store.read_pipeline(conn)).silent_since is not None


async def figures(installation: Installation) -> bytes:
    """/metrics."""
    body: bytes = (await installation.api.call("GET", "/metrics")).body
    return body
