"""SNS and SQS as moto plays them, on a loopback port, and what tests do there by Amazon's own SDK."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from moto.server import ThreadedMotoServer

from mailrail.config import Settings
from mailrail.ses.clients import client


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is subscribed to a topic."""

    settings: Settings
    url: str
    topic_arn: str

    @property
    def sqs(self) -> Any:
        """A client of SQS."""
        return client(self.settings, "sqs")

    def publish(self, text: str) -> str:
        """As SES does; returns the id that SNS gives the message."""
        answer = client(self.settings, "sns").publish(TopicArn=self.topic_arn, Message=text)
        return str(answer["MessageId"])

    def send(self, body: str) -> None:
        """Puts it into the queue as it is."""
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def depth(self) -> int:
        """Messages that are not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(told[name]) for name in names)


@contextmanager
def amazon() -> Iterator[str]:
    """Where it listens."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_queue(
    settings: Settings, name: str, topic_arn: str, visibility_s: int = 30, receives_max: int = 0, *, raw: bool = False
) -> Queue:
    """A topic and a queue that is subscribed to it; with `receives_max` it has a dead-letter queue."""
    sns, sqs = client(settings, "sns"), client(settings, "sqs")
    attributes = {"VisibilityTimeout": str(visibility_s)}
    if receives_max:
        dead_url = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        dead_arn = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = {"deadLetterTargetArn": dead_arn, "maxReceiveCount": receives_max}
        attributes["RedrivePolicy"] = orjson.dumps(redrive).decode()
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=topic_arn.rpartition(":")[2])["TopicArn"]
    assert topic == topic_arn
    options = {"RawMessageDelivery": "true"} if raw else {}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=options)
    return Queue(settings, url, topic)
