"""SendPortal and useSend on SES: mail that stays "sending" or "queued" for ever."""

from pathlib import Path

from mailrail.emails.model import State
from tests.support.incidents import QUICK, mails, states
from tests.support.installation import installed
from tests.support.postgres import Database


async def test_sendportal_154_stays_in_sending_for_ever(database: Database, tmp_path: Path) -> None:
    """sendportal #154, #77, #66, #216, useSend #407: no answer came, no event either, and nothing ever ended.

    Breaks when an unknown outcome that nothing can settle is not given up at its age (emails/reconcile.py).
    """
    patience = QUICK | {"unknown_max_age_s": 2.0}
    async with installed(database, tmp_path / "simulator", patience) as installation:
        await installation.set_faults(drop_request=1.0)
        tenant = await installation.add_sender(25)
        campaign_id = await installation.send_campaign(tenant)
        shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert (shown["progress"]["open"], shown["progress"]["failed"]) == (0, 25)
        assert await states(tenant) == {State.UNRESOLVED: 25}
        assert mails(installation) == []
        page = (await tenant.get(f"/api/v1/campaigns/{campaign_id}/recipients?state=unresolved")).body
        assert "SES did not say" in str(page)
        async with installation.api.operator.acquire() as conn:
            hold = await conn.fetchrow("SELECT * FROM holds WHERE account_id = $1", tenant.account_id)
        assert hold is not None
        assert (hold["captured_micros"], hold["released_micros"]) == (0, 25 * 300)
        assert await installation.audit() == []
