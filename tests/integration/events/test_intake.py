"""The door for SNS: what our topic signed is stored before it is answered; nothing else leaves a trace."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from mailrail.config import SIMULATOR_TOPIC_ARN
from tests.support.installation import Installation, installed
from tests.support.postgres import Database


@pytest.fixture(scope="module")
async def installation(database: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path_factory.mktemp("simulator")) as running:
        yield running


def envelope(**changes: Any) -> dict[str, Any]:
    """An envelope of our topic that nobody signed."""
    return {
        "Type": "Notification",
        "MessageId": "a-message",
        "TopicArn": SIMULATOR_TOPIC_ARN,
        "Message": "{}",
        "Timestamp": "2026-11-23T12:00:00.000Z",
        "SignatureVersion": "2",
        "Signature": "bm90IGEgc2lnbmF0dXJl",
        "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0000.pem",
    } | changes


async def stored(installation: Installation) -> int:
    async with installation.api.operator.acquire() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM notifications")
    return count


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        orjson.dumps(envelope(TopicArn="arn:aws:sns:us-east-1:999999999999:somebody-elses")),
        orjson.dumps(envelope(SignatureVersion="1")),
        orjson.dumps(envelope(SigningCertURL="https://sns.us-east-1.amazonaws.com.evil.example/x.pem")),
        orjson.dumps(envelope(SigningCertURL="http://169.254.169.254/SimpleNotificationService-0000.pem")),
        b'{"Type":"Notification","Type":"Notification"}',
    ],
)
async def test_what_our_topic_did_not_sign_is_refused(installation: Installation, body: bytes) -> None:
    before = await stored(installation)
    answer = await installation.api.call("POST", "/events/sns", data=body)
    assert answer.status == 403
    assert await stored(installation) == before


async def test_what_cannot_be_checked_is_sent_again(installation: Installation) -> None:
    """SNS repeats after a 503 and drops after a 403; the host of certificates may have been away for a moment."""
    certificate = f"http://127.0.0.1:{installation.simulator.port}/SimpleNotificationService-0000.pem"
    before = await stored(installation)
    answer = await installation.api.call("POST", "/events/sns", json=envelope(SigningCertURL=certificate))
    assert answer.status == 503
    assert await stored(installation) == before


async def test_notifications_are_stored_once_and_applied(installation: Installation) -> None:
    await installation.set_faults(duplicate_events=1.0, seed=1)
    tenant = await installation.add_sender(50)
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["delivered"] == 50
    async with installation.api.operator.acquire() as conn:
        events = await conn.fetchval("SELECT count(*) FROM events WHERE account_id = $1", tenant.account_id)
        parked = await conn.fetchval("SELECT count(*) FROM parked_notifications")
    assert (events, parked) == (50, 0)


async def test_what_cannot_be_read_is_parked_with_its_reason(installation: Installation) -> None:
    async with installation.api.operator.acquire() as conn, conn.transaction():
        await conn.execute(
            """WITH n AS (INSERT INTO notifications (message_id, topic_arn, body)
                          VALUES ('odd-1', 'arn', 'It is nothing that we know.')
                          RETURNING day, message_id)
               INSERT INTO notification_queue SELECT day, message_id FROM n"""
        )
    async with installation.api.operator.acquire() as conn, asyncio.timeout(10):
        reason = None
        while reason is None:
            reason = await conn.fetchval("SELECT reason FROM parked_notifications WHERE message_id = 'odd-1'")
            await asyncio.sleep(0.05)
    assert reason == "not the JSON of an SES event"
