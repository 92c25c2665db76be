"""An AWS account: moto for SNS, SQS, STS and CloudWatch, and a stand-in of ours for the part of SES that moto lacks."""

import dataclasses
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult
from moto.server import ThreadedMotoServer
from moto.sns.responses import SNSResponse

from mailrail.config import Settings
from mailrail.ses.clients import client
from tests.support.ses_account import Handler, SesAccount, serve

ACCOUNT_ID = DEFAULT_ACCOUNT_ID
REGION = "eu-west-1"
TOPIC_ARN = f"arn:aws:sns:{REGION}:{ACCOUNT_ID}:mailrail-events"


@pytest.fixture(scope="package")
def moto_url() -> Iterator[str]:
    """moto keeps a topic's SignatureVersion and does not tell it; here it does, as SNS would."""
    with pytest.MonkeyPatch.context() as patch:
        tell = SNSResponse.get_topic_attributes

        def told(self: SNSResponse) -> ActionResult:
            answer = tell(self)
            topic = self.backend.get_topic(self._get_param("TopicArn"))
            attributes: Any = answer._result
            attributes["Attributes"]["SignatureVersion"] = getattr(topic, "signature_version", "1")
            return answer

        patch.setattr(SNSResponse, "get_topic_attributes", told)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture(scope="package")
def settings(moto_url: str) -> Iterator[Settings]:
    """Settings of an installation that knows no topic yet; the same for all tests, so that the SDK's clients are too."""
    with serve() as ses_url:
        yield Settings(
            ses_region=REGION,
            ses_endpoint=ses_url,
            aws_endpoint=moto_url,
            public_url="https://mail.example.com",
            ses_secret_key="nobody-may-see-this",
        )


@pytest.fixture
def fitting(settings: Settings) -> Settings:
    """The same after its operator has set what setup printed."""
    return dataclasses.replace(settings, sns_topics=(TOPIC_ARN,), event_queue="mailrail-events")


@pytest.fixture(autouse=True)
def ses(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SesAccount:
    """An empty account that may send; moto's part of it is as empty."""
    urllib.request.urlopen(f"{settings.aws_endpoint}/moto-api/reset", data=b"").close()  # noqa: S310  # moto, on loopback
    account = SesAccount(publish=lambda topic, text: client(settings, "sns").publish(TopicArn=topic, Message=text))
    monkeypatch.setattr(Handler, "ses", account, raising=False)
    return account


@pytest.fixture
def sqs(settings: Settings) -> Any:
    """The SDK's own client."""
    return client(settings, "sqs")


@pytest.fixture
def sns(settings: Settings) -> Any:
    """As above."""
    return client(settings, "sns")
