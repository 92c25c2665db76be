"""The whole way on moto, by Amazon's own SDK: identity, configuration set, topic, queue, subscription, and into the database."""

import asyncio
import contextlib
import dataclasses
import json
from typing import Any

import pytest

from mailrail.aws import look, plan
from mailrail.aws.model import Caller, Delivery, Verb, place
from mailrail.aws.setup import SetupIncomplete, make, setup
from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.events.queue import Puller
from mailrail.ses import control
from tests.integration.aws.conftest import ACCOUNT_ID, TOPIC_ARN
from tests.support.ses_account import TEST_MESSAGE
from tests.support.waiting import until

EVENT = json.dumps({"eventType": "Send", "mail": {"messageId": "0101", "tags": {}}, "send": {}})


async def test_what_ses_publishes_is_stored(
    settings: Settings, fitting: Settings, worker_pool: Pool, sns: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await setup(settings, Delivery.SQS, None, None, apply=True)
    async with worker_pool.acquire() as conn:
        await conn.execute("DELETE FROM notifications")
    sns.publish(TopicArn=TOPIC_ARN, Message=EVENT)
    pulling = asyncio.create_task(Puller(worker_pool, fitting).run())

    async def stored() -> list[tuple[str, str]]:
        async with worker_pool.acquire() as conn:
            return [tuple(row) for row in await conn.fetch("SELECT topic_arn, body FROM notifications ORDER BY body")]

    async def is_there() -> bool:
        return len(await stored()) == 2

    try:
        await until(is_there, "both notifications")
        assert sorted(await stored()) == sorted([(TOPIC_ARN, TEST_MESSAGE), (TOPIC_ARN, EVENT)])
    finally:
        pulling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pulling


@pytest.fixture
def on_moto(settings: Settings) -> Settings:
    """With moto's own SES, as far as it goes."""
    return dataclasses.replace(settings, ses_endpoint=settings.aws_endpoint)


async def test_motos_own_ses_takes_identities(on_moto: Settings) -> None:
    assert (await control.create_identity(on_moto, "example.com")).name == "example.com"
    assert (await control.get_identity(on_moto, "example.com")).name == "example.com"
    with pytest.raises(control.IdentityUnknown):
        await control.get_identity(on_moto, "example.org")


async def test_motos_own_ses_takes_configuration_sets_and_no_destinations(
    on_moto: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    where = place(on_moto, Caller(ACCOUNT_ID, f"arn:aws:iam::{ACCOUNT_ID}:root"), Delivery.SQS)
    [piece] = [one for one in plan.pieces(where) if one.plan is plan.plan_configuration_set]
    step = await plan.step(on_moto, where, piece)
    assert step.verb is Verb.CREATE
    await make(on_moto, step.calls[0])
    # It nests the answer's SendingEnabled too deep, so the next step would be another one than with SES.
    made = await look.configuration_set(on_moto, where)
    assert made is not None
    assert made["SuppressionOptions"] == {"SuppressedReasons": ["BOUNCE", "COMPLAINT"]}
    # Once moto has them, the stand-in of these tests has done its work.
    with pytest.raises(
        SetupIncomplete, match=r"^event destination of mailrail: SES answered 404 .*Nothing has been changed$"
    ):
        await setup(on_moto, Delivery.SQS, None, None, apply=True)
