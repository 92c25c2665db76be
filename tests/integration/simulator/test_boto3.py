"""The SES stand-in, driven by unmodified boto3: what the stand-in speaks must be what AWS's own client speaks."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "eu-west-1"
SECRET_KEY = "example"
RUN = "import sys; from mailrail import _core; _core.run_simulator(sys.argv[1].encode())"


@dataclass
class Simulator:
    """A running simulator; `client` speaks TLS to it."""

    port: int
    authority: Path

    def client(self, scheme: str = "https", secret_key: str = SECRET_KEY) -> Any:
        """Boto3's SES v2 client, without its own retries."""
        return boto3.client(
            "sesv2",
            endpoint_url=f"{scheme}://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key=secret_key,
            verify=str(self.authority),
            config=Config(retries={"total_max_attempts": 1}),
        )

    def get(self, path: str) -> Any:
        """One of the simulator's own endpoints."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_simulator/{path}") as answer:
            return json.load(answer)

    def reset(self) -> None:
        """Forget what was sent, created and counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_simulator/reset", data=b"") as answer:
            assert answer.status == 200


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """A simulator in a process of its own, as the supervisor starts it."""
    directory = tmp_path_factory.mktemp("simulator")
    options = {
        "host": "127.0.0.1",
        "port": 0,
        "directory": str(directory),
        "access_key": "key",
        "secret_key": SECRET_KEY,
        "region": REGION,
        "max_send_rate": 100,
        "max_24_hour_send": 1000,
        "verified_identities": ["example.com"],
        "configuration_sets": ["mailrail"],
        "events_url": None,
        "topic_arn": f"arn:aws:sns:{REGION}:123456789012:mailrail",
        "event_types": ["DELIVERY", "BOUNCE", "COMPLAINT", "RENDERING_FAILURE"],
        "retain_messages": 1000,
    }
    command = [sys.executable, "-c", RUN, json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            word, _, port = child.stdout.readline().partition(" ")
            assert word == "ready"
            yield Simulator(int(port), directory / "ca.pem")
        finally:
            child.terminate()
        assert child.wait(timeout=10) == 0


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    """The simulator, as if just started."""
    process.reset()
    return process


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    """Status and type of an error, as boto3 understood them."""
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def simple(to: str, subject: str = "Été") -> dict[str, Any]:
    """Arguments of send_email."""
    return {
        "FromEmailAddress": "Acme <news@example.com>",
        "Destination": {"ToAddresses": [to]},
        "ConfigurationSetName": "mailrail",
        "Content": {
            "Simple": {
                "Subject": {"Data": subject, "Charset": "UTF-8"},
                "Body": {"Html": {"Data": "<p>é</p>", "Charset": "UTF-8"}, "Text": {"Data": "é", "Charset": "UTF-8"}},
                "Headers": [{"Name": "List-Unsubscribe", "Value": "<https://example.com/u/1>"}],
            }
        },
        "EmailTags": [{"Name": "mr", "Value": "abc"}],
    }


def bulk(addresses: list[str], template: dict[str, str] | None = None) -> dict[str, Any]:
    """Arguments of send_bulk_email: one slot per part, and an id per entry."""
    return {
        "FromEmailAddress": "Acme <news@example.com>",
        "ReplyToAddresses": ["reply@example.com"],
        "ConfigurationSetName": "mailrail",
        "DefaultContent": {
            "Template": {
                "TemplateContent": template or {"Subject": "{{a}}", "Html": "<p>{{b}}</p>", "Text": "{{b}}"},
                "TemplateData": "{}",
            }
        },
        "BulkEmailEntries": [
            {
                "Destination": {"ToAddresses": [address]},
                "ReplacementEmailContent": {
                    "ReplacementTemplate": {"ReplacementTemplateData": json.dumps({"a": "Été", "b": f"<{address}>"})}
                },
                "ReplacementHeaders": [{"Name": "X-Mailrail-Id", "Value": f"eml_{n}"}],
                "ReplacementTags": [{"Name": "mr", "Value": f"tag-{n}"}],
            }
            for n, address in enumerate(addresses)
        ],
    }


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_get_account_shows_the_quota(simulator: Simulator, scheme: str) -> None:
    client = simulator.client(scheme)
    assert client.get_account()["SendQuota"] == {"Max24HourSend": 1000, "MaxSendRate": 100, "SentLast24Hours": 0}
    client.send_email(**simple("a@example.net"))
    assert client.get_account()["SendQuota"]["SentLast24Hours"] == 1


def test_send_email_simple_is_read_back(simulator: Simulator) -> None:
    answer = simulator.client().send_email(**simple("a@example.net"))
    (mail,) = simulator.get("messages?to=a@example.net")
    assert mail["message_id"] == answer["MessageId"]
    assert (mail["subject"], mail["html"], mail["text"]) == ("Été", "<p>é</p>", "é")
    assert mail["headers"] == [{"name": "List-Unsubscribe", "value": "<https://example.com/u/1>"}]
    assert (mail["tags"], mail["mode"], mail["operation"]) == ({"mr": "abc"}, "simple", "SendEmail")


def test_send_email_raw_is_read_back(simulator: Simulator) -> None:
    message = b"From: news@example.com\r\nTo: a@example.net\r\nSubject: =?utf-8?q?=C3=89t=C3=A9?=\r\n\r\nbody"
    answer = simulator.client().send_email(Content={"Raw": {"Data": message}})
    (mail,) = simulator.get("messages?to=a@example.net")
    assert mail["message_id"] == answer["MessageId"]
    assert (mail["subject"], mail["text"], mail["mode"]) == ("Été", "body", "raw")


def test_send_email_template_is_read_back(simulator: Simulator) -> None:
    content = {
        "Template": {"TemplateContent": {"Subject": "{{a}}", "Html": "{{b}}"}, "TemplateData": '{"a":"1","b":"2"}'}
    }
    simulator.client().send_email(**simple("a@example.net") | {"Content": content})
    (mail,) = simulator.get("messages?to=a@example.net")
    assert (mail["subject"], mail["html"], mail["mode"]) == ("1", "2", "slots")


def test_send_bulk_email_gives_one_result_per_entry(simulator: Simulator) -> None:
    addresses = [f"a{n}@example.net" for n in range(50)]
    results = simulator.client().send_bulk_email(**bulk(addresses))["BulkEmailEntryResults"]
    assert [result["Status"] for result in results] == ["SUCCESS"] * 50
    (mail,) = simulator.get("messages?to=a7@example.net")
    assert mail["message_id"] == results[7]["MessageId"]
    assert (mail["subject"], mail["html"], mail["text"]) == ("Été", "<p><a7@example.net></p>", "<a7@example.net>")
    assert (mail["tags"], mail["reply_to"]) == ({"mr": "tag-7"}, ["reply@example.com"])
    assert simulator.get("stats")["SendBulkEmail"]["slots"]["recipients"] == 50
    assert simulator.get("duplicates")["duplicates"] == []


def test_identities_are_created_and_looked_up(simulator: Simulator) -> None:
    client = simulator.client()
    with pytest.raises(client.exceptions.NotFoundException):
        client.get_email_identity(EmailIdentity="new.example.org")
    created = client.create_email_identity(EmailIdentity="new.example.org")
    assert (created["IdentityType"], len(created["DkimAttributes"]["Tokens"])) == ("DOMAIN", 3)
    found = client.get_email_identity(EmailIdentity="new.example.org")
    assert (found["VerificationStatus"], found["VerifiedForSendingStatus"]) == ("SUCCESS", True)
    assert found["DkimAttributes"]["Tokens"] == created["DkimAttributes"]["Tokens"]
    # Characters that a path must encode are signed in another encoding than they are sent in.
    client.create_email_identity(EmailIdentity="a+b@example.org")
    assert client.get_email_identity(EmailIdentity="a+b@example.org")["IdentityType"] == "EMAIL_ADDRESS"
    with pytest.raises(client.exceptions.AlreadyExistsException):
        client.create_email_identity(EmailIdentity="new.example.org")


def test_errors_arrive_as_the_exceptions_of_the_model(simulator: Simulator) -> None:
    client = simulator.client()
    with pytest.raises(client.exceptions.MessageRejected, match="not verified"):
        client.send_email(**simple("a@example.net") | {"FromEmailAddress": "a@other.org"})
    with pytest.raises(client.exceptions.NotFoundException):
        client.send_email(**simple("a@example.net") | {"ConfigurationSetName": "other"})
    with pytest.raises(client.exceptions.BadRequestException, match="unsupported operations"):
        client.send_bulk_email(**bulk(["a@example.net"], {"Subject": "x", "Html": "{{#if a}}x{{/if}}"}))
    with pytest.raises(client.exceptions.BadRequestException):
        client.send_bulk_email(**bulk(["a@example.net"] * 51))
    with pytest.raises(ClientError) as refused:
        simulator.client(secret_key="wrong").get_account()
    assert code(refused) == (403, "SignatureDoesNotMatch")
    assert simulator.get("stats")["accepted"] == 0


def test_sending_too_fast_is_429(simulator: Simulator) -> None:
    client = simulator.client()
    request = bulk(["a@example.net"] * 50)
    for entry in request["BulkEmailEntries"]:
        # 150 recipients at once, where 100 a second are granted.
        entry["Destination"]["CcAddresses"] = ["b@example.net", "c@example.net"]
    with pytest.raises(client.exceptions.TooManyRequestsException, match=r"Maximum sending rate exceeded\.") as refused:
        client.send_bulk_email(**request)
    assert code(refused) == (429, "TooManyRequestsException")
