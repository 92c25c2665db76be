"""A transactional mail of which SES never said anything: sent again once silence proves that it was not accepted.

A file of its own, because what silence proves depends on all mail that was sent near it.
"""

import asyncio
from pathlib import Path

from tests.integration.emails.test_emails_api import MAIL, QUICK
from tests.support.installation import installed
from tests.support.postgres import Database

WAIT_S = 30


async def test_a_mail_that_was_not_accepted_is_sent_again(database: Database, tmp_path: Path) -> None:
    async with installed(database, tmp_path / "simulator", QUICK) as installation, asyncio.timeout(WAIT_S):
        tenant = await installation.api.add_tenant()
        await tenant.verify_domain()
        await installation.set_faults(drop_request=1.0)
        asked = await tenant.post("/api/v1/emails", MAIL)
        assert (asked.status, asked.body["status"]) == (202, "queued"), asked.body
        await installation.set_faults()
        path = f"/api/v1/emails/{asked.body['id']}"
        while (await tenant.get(path)).body["email"]["status"] != "delivered":
            await asyncio.sleep(0.1)
        to = [mail["to"] for mail in installation.simulator.get("accepted?limit=100")["mails"]]
        assert to.count([MAIL["to"]]) == 1
        assert installation.accepted_twice() == 0
        assert await installation.audit() == []
