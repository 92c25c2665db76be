"""`mailrail doctor --aws`: each fault is named with something to paste, and nothing is said of what is well."""

import dataclasses
import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.stub import Stubber

from mailrail.aws.examine import findings
from mailrail.aws.model import Delivery
from mailrail.aws.setup import setup
from mailrail.config import Settings
from mailrail.findings import Finding
from mailrail.ses.clients import client
from tests.integration.aws.conftest import TOPIC_ARN
from tests.integration.aws.test_setup import break_piece
from tests.support.ses_account import SesAccount

Ses = SesAccount


async def faults(settings: Settings) -> list[Finding]:
    """What is not well."""
    return [finding async for finding in findings(settings) if not finding.good]


@pytest.fixture
async def built(settings: Settings, fitting: Settings, capsys: pytest.CaptureFixture[str]) -> Settings:
    """An account that setup has made, and the settings that fit it."""
    await setup(settings, Delivery.SQS, None, None, apply=True)
    capsys.readouterr()
    return fitting


async def test_an_account_that_is_well(built: Settings) -> None:
    found = [finding async for finding in findings(built)]
    assert [finding.line() for finding in found if not finding.good] == []
    said = "\n".join(finding.line() for finding in found)
    assert "AWS account 123456789012, region eu-west-1, as arn:aws:sts::123456789012:user/moto" in said
    assert "SES grants 14 recipients a second, and has taken 120 of 50,000 within 24 hours" in said
    assert "events that wait in queue mailrail-events: 1" in said
    assert built.ses_secret_key not in said


async def test_an_empty_account_lacks_every_piece(settings: Settings) -> None:
    found = {finding.what: finding.remedy for finding in await faults(settings)}
    assert f"export MAILRAIL_SNS_TOPICS={TOPIC_ARN}" in found["MAILRAIL_SNS_TOPICS"]
    assert "export MAILRAIL_EVENT_QUEUE=mailrail-events" in found["MAILRAIL_EVENT_QUEUE"]
    for piece, command in (
        ("queue mailrail-events", "aws sqs create-queue"),
        ("queue mailrail-events-dead", "aws sqs create-queue"),
        ("topic mailrail-events", "aws sns create-topic"),
        ("configuration set mailrail", "aws sesv2 create-configuration-set"),
        ("event destination of mailrail", "aws sesv2 create-configuration-set-event-destination"),
    ):
        assert "`mailrail aws setup --apply` mends it, or:" in found[piece]
        assert command in found[piece]


def engagement_of_the_account(ses: Ses) -> None:
    ses.account["VdmAttributes"] = {
        "VdmEnabled": "ENABLED",
        "DashboardAttributes": {"EngagementMetrics": "ENABLED"},
    }


def destination_of_another(ses: Ses) -> None:
    ses.destinations["mailrail"]["clicks"] = {
        "Enabled": True,
        "MatchingEventTypes": ["CLICK", "BOUNCE"],
        "EventBridgeDestination": {"EventBusArn": "arn:aws:events:eu-west-1:123456789012:event-bus/default"},
    }


def suppression_of_the_account(ses: Ses) -> None:
    del ses.sets["mailrail"]["SuppressionOptions"]
    ses.account["SuppressionAttributes"] = {"SuppressedReasons": ["COMPLAINT"]}


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (
            lambda ses: ses.account.update(ProductionAccessEnabled=False),
            "SES production access",
            "aws sesv2 put-account-details",
        ),
        (
            lambda ses: ses.account.update(SendingEnabled=False),
            "SES account sends",
            "aws sesv2 put-account-sending-attributes",
        ),
        (
            lambda ses: ses.account.update(EnforcementStatus="PROBATION"),
            "SES reputation is PROBATION",
            "AWS may stop this account's mail",
        ),
        (
            lambda ses: ses.account.update(EnforcementStatus="SHUTDOWN"),
            "SES reputation is SHUTDOWN",
            "AWS has stopped this account's mail",
        ),
        (
            lambda ses: ses.account["SendQuota"].update(SentLast24Hours=49_000.0),
            "SES grants 14 recipients a second, and has taken 49,000 of 50,000 within 24 hours",
            "the day's quota is as good as used up",
        ),
        (
            suppression_of_the_account,
            "SES's own suppression list takes in COMPLAINT",
            "aws sesv2 put-configuration-set-suppression-options",
        ),
        (
            engagement_of_the_account,
            "SES leaves links as they are",
            "aws sesv2 put-configuration-set-vdm-options",
        ),
        (
            destination_of_another,
            "event destination clicks of mailrail",
            "it asks for CLICK, so SES rewrites links that mailrail has made",
        ),
    ],
)
async def test_a_fault_of_the_account(
    built: Settings, ses: Ses, spoil: Callable[[Ses], None], what: str, remedy: str
) -> None:
    spoil(ses)
    [fault] = await faults(built)
    assert fault.what == what
    assert remedy in fault.remedy


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("queue_policy", "queue mailrail-events"),
        ("topic_policy", "topic mailrail-events"),
        ("unsubscribed", "subscription of arn:aws:sqs:eu-west-1:123456789012:mailrail-events"),
        ("filter", "subscription of arn:aws:sqs:eu-west-1:123456789012:mailrail-events"),
        ("set_paused", "configuration set mailrail"),
        ("destination_types", "event destination of mailrail"),
        ("dead_queue_deleted", "queue mailrail-events-dead"),
    ],
)
async def test_a_piece_that_was_broken_is_the_one_fault(
    built: Settings, ses: Ses, sns: Any, sqs: Any, broken: str, what: str
) -> None:
    break_piece(broken, ses, sns, sqs)
    assert [fault.what for fault in await faults(built)] == [what]


async def test_an_unlimited_day_is_no_fault(built: Settings, ses: Ses) -> None:
    ses.account["SendQuota"] = {"Max24HourSend": -1.0, "MaxSendRate": 500.0, "SentLast24Hours": 7.0}
    said = [finding.what async for finding in findings(built)]
    assert "SES grants 500 recipients a second, and has taken without limit within 24 hours" not in said
    assert "SES grants 500 recipients a second, without a limit a day" in said


async def test_a_topic_and_a_queue_open_to_strangers(built: Settings, sns: Any, sqs: Any) -> None:
    topic = json.loads(sns.get_topic_attributes(TopicArn=TOPIC_ARN)["Attributes"]["Policy"])
    topic["Statement"].append({"Sid": "Oops", "Effect": "Allow", "Principal": "*", "Action": "SNS:*"})
    sns.set_topic_attributes(TopicArn=TOPIC_ARN, AttributeName="Policy", AttributeValue=json.dumps(topic))
    url = sqs.get_queue_url(QueueName="mailrail-events")["QueueUrl"]
    queue = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    queue["Statement"].append(
        {"Sid": "All", "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sqs:SendMessage"], "Resource": "*"}
    )
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(queue)})
    found = {fault.what: fault.remedy for fault in await faults(built)}
    assert "in statement All" in found["queue mailrail-events is closed to strangers"]
    assert "in statement Oops" in found["topic mailrail-events is closed to strangers"]


async def test_settings_that_name_another_topic_and_no_queue(built: Settings) -> None:
    other = "arn:aws:sns:us-east-1:123456789012:other"
    wrong = dataclasses.replace(built, sns_topics=(other,), event_queue="")
    found = {fault.what: fault.remedy for fault in await faults(wrong)}
    assert f"export MAILRAIL_SNS_TOPICS={other},{TOPIC_ARN}" in found["MAILRAIL_SNS_TOPICS"]
    assert "export MAILRAIL_EVENT_QUEUE=mailrail-events" in found["MAILRAIL_EVENT_QUEUE"]
    assert len(found) == 2


async def test_events_that_are_posted_need_no_queue(
    settings: Settings, fitting: Settings, ses: Ses, capsys: pytest.CaptureFixture[str]
) -> None:
    # moto would really post it to mail.example.com.
    ses.publish = lambda topic, text: None
    await setup(settings, Delivery.HTTPS, None, None, apply=True)
    posted = dataclasses.replace(fitting, event_queue="")
    found = [finding async for finding in findings(posted)]
    assert [fault.line() for fault in found if not fault.good] == []
    assert "events are posted to https://mail.example.com/events/sns" in [one.what for one in found]
    ses.destinations.clear()
    [fault] = await faults(posted)
    assert "`mailrail aws setup --delivery https --apply` mends it" in fault.remedy


async def test_a_queue_by_its_url(built: Settings, sqs: Any) -> None:
    url = sqs.get_queue_url(QueueName="mailrail-events")["QueueUrl"]
    assert await faults(dataclasses.replace(built, event_queue=url)) == []


async def test_what_could_not_be_stored_waits_for_somebody(built: Settings, sqs: Any) -> None:
    url = sqs.get_queue_url(QueueName="mailrail-events-dead")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    [fault] = await faults(built)
    assert fault.what == "events that failed, in queue mailrail-events-dead: 1"
    assert "aws sqs start-message-move-task" in fault.remedy


async def test_events_that_nobody_takes(built: Settings) -> None:
    watch = client(built, "cloudwatch")
    watch.put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": "mailrail-events"}],
                "Timestamp": datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=2),
                "Value": 900.0,
            }
        ],
    )
    [fault] = await faults(built)
    assert fault.what == "events that wait in queue mailrail-events: 1, the oldest for 900 s"
    assert "is `mailrail worker` running" in fault.remedy


async def test_a_read_that_iam_refuses_names_the_action(built: Settings, ses: Ses) -> None:
    ses.denied.add("GetConfigurationSetEventDestinations")
    [fault] = await faults(built)
    assert fault.what == "event destination of mailrail"
    assert "the credentials lack ses:GetConfigurationSetEventDestinations;" in fault.remedy
    assert "aws iam put-user-policy --user-name moto --policy-name mailrail-doctor" in fault.remedy


@pytest.mark.parametrize(
    ("service", "operation", "code", "action"),
    [
        ("sqs", "get_queue_url", "AccessDenied", "sqs:GetQueueUrl"),
        ("sns", "get_topic_attributes", "AuthorizationError", "SNS:GetTopicAttributes"),
    ],
)
async def test_sns_and_sqs_refuse_in_words_of_their_own(
    built: Settings, service: str, operation: str, code: str, action: str
) -> None:
    said = (
        "User: arn:aws:iam::123456789012:user/mail is not authorized to perform: SNS:GetTopicAttributes on resource: x"
    )
    with Stubber(client(built, service)) as stub:
        for _ in range(4):
            stub.add_client_error(
                operation, code, said if service == "sns" else "Access to the resource is denied.", 403
            )
        found = await faults(built)
    assert any(f"the credentials lack {action};" in fault.remedy for fault in found)


async def test_credentials_that_mean_nothing(settings: Settings) -> None:
    with Stubber(client(settings, "sts")) as stub:
        stub.add_client_error("get_caller_identity", "InvalidClientTokenId", "The security token is invalid.", 403)
        [fault] = await faults(settings)
    assert fault.what == "AWS credentials"
    assert "STS answered InvalidClientTokenId; set AWS_ACCESS_KEY_ID" in fault.remedy


async def test_a_stand_in_is_no_aws_account() -> None:
    [fault] = await faults(Settings(ses_endpoint="https://127.0.0.1:1"))
    assert "which is not Amazon's" in fault.remedy
