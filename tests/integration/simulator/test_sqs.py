"""The simulator's queue by unmodified boto3, and a campaign whose events come by it alone."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from botocore.config import Config

from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY
from tests.support.installation import installed
from tests.support.postgres import Database
from tests.support.simulator import RunningSimulator, simulating

QUEUE = "events"


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[RunningSimulator]:
    with simulating(tmp_path / "simulator", event_queue=QUEUE, queue_visibility_ms=1000) as running:
        yield running


def client(simulator: RunningSimulator, service: str) -> Any:
    """Amazon's own SDK."""
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=simulator.endpoint,
        verify=str(simulator.directory / "ca.pem"),
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )


def send(simulator: RunningSimulator, mails: int) -> None:
    """So many mails, each of which has a Delivery."""
    ses = client(simulator, "sesv2")
    for number in range(mails):
        ses.send_email(
            FromEmailAddress="a@example.com",
            Destination={"ToAddresses": [f"p{number}@example.net"]},
            Content={"Simple": {"Subject": {"Data": "Hi"}, "Body": {"Text": {"Data": "Hi"}}}},
            ConfigurationSetName="mailrail",
        )


def depths(sqs: Any, url: str) -> tuple[int, int]:
    """(waiting, received)."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(told[names[0]]), int(told[names[1]])


def test_messages_come_in_batches_and_again_until_they_are_deleted(simulator: RunningSimulator) -> None:
    sqs = client(simulator, "sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    send(simulator, 12)
    assert depths(sqs, url) == (12, 0)
    first = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)["Messages"]
    assert len(first) == 10
    envelope = orjson.loads(first[0]["Body"])
    assert envelope["Type"] == "Notification"
    assert orjson.loads(envelope["Message"])["eventType"] == "Delivery"
    entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(first[:7])]
    deleted = sqs.delete_message_batch(QueueUrl=url, Entries=entries)
    assert len(deleted["Successful"]) == 7
    assert depths(sqs, url) == (2, 3)
    left = {orjson.loads(message["Body"])["MessageId"] for message in first[7:]}
    begun, seen = time.monotonic(), set()
    while len(seen) < 5:
        batch = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=2, VisibilityTimeout=60)
        seen |= {orjson.loads(message["Body"])["MessageId"] for message in batch["Messages"]}
    assert left < seen
    assert time.monotonic() - begun >= 0.5
    assert depths(sqs, url) == (0, 5)
    # The first receipts are void, and say so to nobody.
    sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": first[7]["ReceiptHandle"]}])
    assert depths(sqs, url) == (0, 5)


def test_an_empty_queue_waits_as_long_as_it_was_told(simulator: RunningSimulator) -> None:
    sqs = client(simulator, "sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    begun = time.monotonic()
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
    assert 0.9 < time.monotonic() - begun < 5


def test_it_is_as_strict_as_amazon(simulator: RunningSimulator) -> None:
    sqs = client(simulator, "sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="other")
    with pytest.raises(sqs.exceptions.ClientError, match="between 1 and 10"):
        sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=11)
    with pytest.raises(sqs.exceptions.BatchEntryIdsNotDistinct):
        sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "a", "ReceiptHandle": "1"}] * 2)
    with pytest.raises(sqs.exceptions.ClientError, match="Credential should be scoped"):
        sign_as_ses(simulator, url)


def sign_as_ses(simulator: RunningSimulator, url: str) -> None:
    """A request to SQS with a signature for SES."""
    sqs = client(simulator, "sqs")
    sqs._request_signer._signing_name = "ses"  # no public way leads to a wrong signature
    sqs.receive_message(QueueUrl=url)


async def test_a_campaign_hears_of_its_mail_by_the_queue_alone(database: Database, tmp_path: Path) -> None:
    async with installed(database, tmp_path / "simulator", event_queue=QUEUE, queue_visibility_ms=5000) as installation:
        await installation.set_faults(duplicate_events=0.3, reorder_events=0.3, seed=4)
        tenant = await installation.add_sender(120)
        shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
        assert shown["progress"]["delivered"] == 120
        assert await installation.audit() == []
        assert installation.accepted_twice() == 0
