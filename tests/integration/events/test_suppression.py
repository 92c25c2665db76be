"""Which events end mail to an address."""

import pytest

from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from mailrail.events import store
from tests.support.streams import make_account, make_stream


@pytest.mark.parametrize(
    ("kind", "detail", "reason"),
    [
        (EventKind.BOUNCE_PERMANENT, "Permanent/General: 550 5.1.1", "bounce"),
        (EventKind.BOUNCE_TRANSIENT, "Transient/MailboxFull: 452", None),
        (EventKind.COMPLAINT, "abuse", "complaint"),
        (EventKind.COMPLAINT, None, "complaint"),
        # The reader took it back, or only a signature failed: nobody asked for silence.
        (EventKind.COMPLAINT, "not-spam", None),
        (EventKind.COMPLAINT, "auth-failure/OnAccountSuppressionList", None),
        (EventKind.DELIVERY, None, None),
    ],
)
async def test_an_event_suppresses_the_frozen_address(
    worker_pool: Pool, kind: EventKind, detail: str | None, reason: str | None
) -> None:
    async with worker_pool.acquire() as conn, conn.transaction():
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, 1)
        await store.prepare_staging(conn)
        await conn.execute(
            "INSERT INTO incoming (stream_id, seq, attempt, kind, dedupe, detail) VALUES ($1, 1, 1, $2, 0, $3)",
            stream.stream_id,
            int(kind),
            detail,
        )
        await store.suppress_addresses(conn)
        found = await conn.fetchval("SELECT reason FROM suppressions WHERE account_id = $1", account_id)
        status = await conn.fetchval("SELECT status FROM contacts WHERE account_id = $1", account_id)
    assert found == reason
    assert status == {None: "subscribed", "bounce": "bounced", "complaint": "complained"}[reason]
