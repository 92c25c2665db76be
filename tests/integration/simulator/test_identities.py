"""Identities of the SES stand-in, driven by unmodified boto3 and by what mailrail asks of SES."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mailrail.config import Settings
from mailrail.ses import control
from mailrail.ses.clients import client
from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY
from tests.support.simulator import RunningSimulator, simulating


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    """A simulator where domains stay pending for an hour, unless a test says otherwise."""
    directory = tmp_path_factory.mktemp("simulator")
    with simulating(directory, verified_identities=["example.com"], verification_delay_ms=3_600_000) as running:
        yield running


@pytest.fixture
def settings(process: RunningSimulator) -> Settings:
    """Of a process that speaks to it, as if it were just started."""
    steer(process, "POST", "reset", {})
    return Settings(
        ses_endpoint=process.endpoint,
        ses_region=REGION,
        ses_ca_file=str(process.directory / "ca.pem"),
        ses_access_key=ACCESS_KEY,
        ses_secret_key=SECRET_ACCESS_KEY,
    )


def steer(process: RunningSimulator, method: str, path: str, said: dict[str, Any]) -> None:
    """One of its own endpoints."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.port}/_simulator/{path}", json.dumps(said).encode(), method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the URL is ours
        assert answer.status == 200


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    """The type of an error, as boto3 understood it."""
    return str(error.value.response["Error"]["Code"])


async def test_mail_from_is_set_read_and_cleared(settings: Settings) -> None:
    await control.set_mail_from(settings, "example.com", "bounce.example.com")
    identity = await control.get_identity(settings, "example.com")
    assert (identity.mail_from, identity.mail_from_status) == ("bounce.example.com", "PENDING")
    await control.set_mail_from(settings, "example.com", None)
    assert (await control.get_identity(settings, "example.com")).mail_from is None
    with pytest.raises(control.IdentityUnknown):
        await control.set_mail_from(settings, "unknown.com", None)


@pytest.mark.parametrize("wrong", ["example.com", "bounce.other.com", "a b.example.com"])
def test_a_mail_from_that_is_not_below_is_refused(settings: Settings, wrong: str) -> None:
    with pytest.raises(ClientError) as error:
        client(settings, "sesv2").put_email_identity_mail_from_attributes(
            EmailIdentity="example.com", MailFromDomain=wrong
        )
    assert code(error) == "BadRequestException"


@pytest.mark.parametrize(
    ("dkim", "verified"),
    [("SUCCESS", True), ("TEMPORARY_FAILURE", True), ("PENDING", False), ("FAILED", False), ("NOT_STARTED", False)],
)
async def test_every_state_can_be_met(process: RunningSimulator, settings: Settings, dkim: str, verified: bool) -> None:
    created = await control.create_identity(settings, "new.org")
    assert (created.verified, created.dkim_status, len(created.dkim_records)) == (False, "PENDING", 3)
    steer(process, "PUT", "identities", {"identity": "new.org", "dkim": dkim, "error": "HOST_NOT_FOUND"})
    seen = await control.get_identity(settings, "new.org")
    assert (seen.verified, seen.dkim_status, seen.error) == (verified, dkim, "HOST_NOT_FOUND")
    send = client(settings, "sesv2").send_email
    mail: dict[str, Any] = {
        "FromEmailAddress": "a@new.org",
        "Destination": {"ToAddresses": ["b@example.net"]},
        "Content": {"Simple": {"Subject": {"Data": "S"}, "Body": {"Text": {"Data": "T"}}}},
    }
    if verified:
        assert send(**mail)["MessageId"]
    else:
        with pytest.raises(ClientError) as error:
            send(**mail)
        assert code(error) == "MessageRejected"


async def test_what_failed_is_looked_for_again(process: RunningSimulator, settings: Settings) -> None:
    created = await control.create_identity(settings, "again.org")
    steer(process, "PUT", "identities", {"identity": "again.org", "dkim": "FAILED", "mail_from": "FAILED"})
    await control.set_mail_from(settings, "again.org", "bounce.again.org")
    await control.look_again(settings, "again.org")
    seen = await control.get_identity(settings, "again.org")
    assert (seen.dkim_status, seen.mail_from_status) == ("PENDING", "PENDING")
    assert seen.dkim_records == created.dkim_records
