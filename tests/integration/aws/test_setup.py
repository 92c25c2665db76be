"""`mailrail aws setup` with real SDK calls: what it shows, makes, keeps and puts back."""

import dataclasses
import json
from typing import Any

import pytest

from mailrail.aws.model import Delivery
from mailrail.aws.setup import SetupIncomplete, setup
from mailrail.config import Settings
from mailrail.errors import ConfigError
from tests.integration.aws.conftest import ACCOUNT_ID, TOPIC_ARN
from tests.support.ses_account import TEST_MESSAGE, SesAccount

PIECES = 6


async def run(settings: Settings, capsys: pytest.CaptureFixture[str], *, apply: bool = True, **wish: Any) -> str:
    """What the command prints."""
    asked = {"delivery": Delivery.SQS, "topic": None, "queue": None, **wish}
    assert await setup(settings, **asked, apply=apply) == 0
    return capsys.readouterr().out


def verbs(printed: str) -> list[str]:
    """First words of the lines of the plan."""
    return [line.split()[0] for line in printed.splitlines() if line[:6].strip() in ("create", "change", "keep")]


async def test_a_dry_run_changes_nothing(settings: Settings, ses: SesAccount, sqs: Any, sns: Any, capsys: Any) -> None:
    printed = await run(settings, capsys, apply=False)
    assert verbs(printed) == ["create"] * PIECES
    assert f"Nothing has been changed: {PIECES} of {PIECES} pieces would be." in printed
    assert not [call for call in ses.calls if not call.startswith("Get")]
    assert "QueueUrls" not in sqs.list_queues()
    assert sns.list_topics()["Topics"] == []


async def test_the_second_run_keeps_everything(settings: Settings, ses: SesAccount, capsys: Any) -> None:
    first = await run(settings, capsys)
    assert verbs(first) == ["create"] * PIECES
    assert first.count("done    ") == PIECES
    made = list(ses.calls)
    second = await run(settings, capsys)
    assert verbs(second) == ["keep"] * PIECES
    assert f"All {PIECES} pieces are as they should be." in second
    assert not [call for call in ses.calls[len(made) :] if not call.startswith("Get")]


async def test_what_it_tells_to_set_is_what_it_made(settings: Settings, capsys: Any) -> None:
    printed = await run(settings, capsys)
    assert f"export MAILRAIL_SNS_TOPICS={TOPIC_ARN}\n" in printed
    assert "export MAILRAIL_EVENT_QUEUE=mailrail-events\n" in printed
    assert f"export MAILRAIL_SES_REGION={settings.ses_region}\n" in printed
    assert settings.ses_secret_key not in printed


async def test_what_ses_publishes_arrives_in_the_queue(
    settings: Settings, sns: Any, sqs: Any, ses: SesAccount, capsys: Any
) -> None:
    await run(settings, capsys)
    [topic] = sns.list_topics()["Topics"]
    event = json.dumps({"eventType": "Send", "mail": {"tags": {"mailrail": ["x"]}}, "send": {}})
    sns.publish(TopicArn=topic["TopicArn"], Message=event)
    url = sqs.get_queue_url(QueueName="mailrail-events")["QueueUrl"]
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    envelopes = [json.loads(message["Body"]) for message in received]
    # Raw delivery is off: the envelope is there, with what can be verified. The first is SES's own test of the topic.
    assert [envelope["Message"] for envelope in envelopes] == [TEST_MESSAGE, event]
    assert all(envelope["Type"] == "Notification" and envelope["Signature"] for envelope in envelopes)
    assert {envelope["SignatureVersion"] for envelope in envelopes} == {"2"}


async def test_the_pieces_are_set_as_they_should_be(
    settings: Settings, sns: Any, sqs: Any, ses: SesAccount, capsys: Any
) -> None:
    await run(settings, capsys)
    url = sqs.get_queue_url(QueueName="mailrail-events")["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert queue["MessageRetentionPeriod"] == "1209600"
    assert queue["SqsManagedSseEnabled"] == "true"
    assert json.loads(queue["RedrivePolicy"])["deadLetterTargetArn"].endswith(":mailrail-events-dead")
    [statement] = json.loads(queue["Policy"])["Statement"]
    [topic] = sns.list_topics()["Topics"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": topic["TopicArn"]}}
    [destination] = ses.destinations["mailrail"].values()
    assert destination["Enabled"]
    assert not {"OPEN", "CLICK"} & set(destination["MatchingEventTypes"])
    policy = json.loads(sns.get_topic_attributes(TopicArn=topic["TopicArn"])["Attributes"]["Policy"])
    assert policy["Statement"][0]["Condition"]["StringEquals"] == {
        "AWS:SourceAccount": ACCOUNT_ID,
        "AWS:SourceArn": f"arn:aws:ses:{settings.ses_region}:{ACCOUNT_ID}:configuration-set/mailrail",
    }


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("queue_deleted", "create  queue mailrail-events\n"),
        ("dead_queue_deleted", "create  queue mailrail-events-dead\n"),
        ("retention", "MessageRetentionPeriod is 60, wanted 1209600"),
        ("queue_policy", "Policy does not let the topic send"),
        ("topic_deleted", "create  topic mailrail-events\n"),
        ("topic_policy", "Policy does not let SES publish"),
        ("signature", "SignatureVersion is 1, wanted 2"),
        ("unsubscribed", "create  subscription of arn:aws:sqs:"),
        ("raw", "RawMessageDelivery is true, wanted false"),
        ("filter", "FilterPolicy holds events back"),
        ("set_deleted", "create  configuration set mailrail\n"),
        ("set_paused", "sending is disabled"),
        ("suppression", "SuppressedReasons is BOUNCE, wanted BOUNCE, COMPLAINT"),
        ("engagement", "EngagementMetrics is ENABLED"),
        ("destination_deleted", "create  event destination of mailrail\n"),
        ("destination_disabled", "it is not enabled"),
        ("destination_types", "it leaves out BOUNCE"),
        ("destination_tracks", "it asks for OPEN, CLICK, for which SES rewrites the mail"),
        ("destination_elsewhere", "it publishes elsewhere than to arn:aws:sns:"),
    ],
)
async def test_a_piece_that_was_broken_is_named_and_put_back(
    settings: Settings, ses: SesAccount, sns: Any, sqs: Any, capsys: Any, broken: str, said: str
) -> None:
    await run(settings, capsys)
    break_piece(broken, ses, sns, sqs)
    assert said in await run(settings, capsys, apply=False)
    mended = await run(settings, capsys)
    assert said in mended
    assert verbs(await run(settings, capsys)) == ["keep"] * PIECES


def break_piece(broken: str, ses: SesAccount, sns: Any, sqs: Any) -> None:
    """What a person might have done in the console."""
    [topic] = [one["TopicArn"] for one in sns.list_topics()["Topics"]]
    [subscription] = [one["SubscriptionArn"] for one in sns.list_subscriptions()["Subscriptions"]]
    queue = sqs.get_queue_url(QueueName="mailrail-events")["QueueUrl"]
    destination = ses.destinations["mailrail"]["mailrail"]
    match broken:
        case "queue_deleted":
            sqs.delete_queue(QueueUrl=queue)
        case "dead_queue_deleted":
            sqs.delete_queue(QueueUrl=f"{queue}-dead")
        case "retention":
            sqs.set_queue_attributes(QueueUrl=queue, Attributes={"MessageRetentionPeriod": "60"})
        case "queue_policy":
            sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": ""})
        case "topic_deleted":
            sns.delete_topic(TopicArn=topic)
            sns.unsubscribe(SubscriptionArn=subscription)
        case "topic_policy":
            policy = {"Version": "2012-10-17", "Statement": []}
            sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(policy))
        case "signature":
            sns.set_topic_attributes(TopicArn=topic, AttributeName="SignatureVersion", AttributeValue="1")
        case "unsubscribed":
            sns.unsubscribe(SubscriptionArn=subscription)
        case "raw":
            change = {"AttributeName": "RawMessageDelivery", "AttributeValue": "true"}
            sns.set_subscription_attributes(SubscriptionArn=subscription, **change)
        case "filter":
            change = {"AttributeName": "FilterPolicy", "AttributeValue": '{"kind": ["x"]}'}
            sns.set_subscription_attributes(SubscriptionArn=subscription, **change)
        case "set_deleted":
            del ses.sets["mailrail"]
            del ses.destinations["mailrail"]
        case "set_paused":
            ses.sets["mailrail"]["SendingOptions"]["SendingEnabled"] = False
        case "suppression":
            ses.sets["mailrail"]["SuppressionOptions"]["SuppressedReasons"] = ["BOUNCE"]
        case "engagement":
            ses.sets["mailrail"]["VdmOptions"] = {"DashboardOptions": {"EngagementMetrics": "ENABLED"}}
        case "destination_deleted":
            ses.destinations.clear()
        case "destination_disabled":
            destination["Enabled"] = False
        case "destination_types":
            destination["MatchingEventTypes"].remove("BOUNCE")
        case "destination_tracks":
            destination["MatchingEventTypes"] += ["OPEN", "CLICK"]
        case "destination_elsewhere":
            destination["SnsDestination"] = {"TopicArn": f"{topic}-of-another"}


async def test_statements_of_others_stay_in_a_policy(settings: Settings, sns: Any, capsys: Any) -> None:
    await run(settings, capsys)
    [topic] = [one["TopicArn"] for one in sns.list_topics()["Topics"]]
    theirs = {"Sid": "Theirs", "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sns:GetTopicAttributes"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    await run(settings, capsys)
    kept = json.loads(sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])
    assert [one["Sid"] for one in kept["Statement"]] == ["Theirs", "MailrailSesPublishes"]


async def test_a_failure_midway_says_what_is_done_and_a_rerun_goes_on(
    settings: Settings, ses: SesAccount, capsys: Any
) -> None:
    ses.denied.add("CreateConfigurationSet")
    with pytest.raises(
        SetupIncomplete, match=r"configuration set mailrail: the credentials lack ses:CreateConfigurationSet"
    ):
        await run(settings, capsys)
    assert capsys.readouterr().out.count("done    ") == 3
    ses.denied.clear()
    assert verbs(await run(settings, capsys)) == ["keep"] * 3 + ["create"] * 3


async def test_what_may_not_be_read_ends_it_before_anything_is_made(
    settings: Settings, ses: SesAccount, sqs: Any, capsys: Any
) -> None:
    ses.denied.add("GetConfigurationSet")
    with pytest.raises(SetupIncomplete, match=r"lack ses:GetConfigurationSet;.*Nothing has been changed"):
        await run(settings, capsys)
    assert "QueueUrls" not in sqs.list_queues()


async def test_https_instead_of_a_queue(settings: Settings, ses: SesAccount, sns: Any, sqs: Any, capsys: Any) -> None:
    # moto would really post it to mail.example.com.
    ses.publish = lambda topic, text: None
    printed = await run(settings, capsys, delivery=Delivery.HTTPS)
    assert verbs(printed) == ["create"] * 5
    assert "MAILRAIL_EVENT_QUEUE" not in printed
    [one] = sns.list_subscriptions()["Subscriptions"]
    assert (one["Protocol"], one["Endpoint"]) == ("https", "https://mail.example.com/events/sns")
    attributes = sns.get_subscription_attributes(SubscriptionArn=one["SubscriptionArn"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].endswith(":mailrail-events-dead")
    [url] = sqs.list_queues()["QueueUrls"]
    assert url.endswith("/mailrail-events-dead")
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    assert policy["Statement"][0]["Condition"] == {"ArnEquals": {"aws:SourceArn": TOPIC_ARN}}
    assert verbs(await run(settings, capsys, delivery=Delivery.HTTPS)) == ["keep"] * 5


async def test_https_needs_an_address_with_https(settings: Settings, capsys: Any) -> None:
    plain = dataclasses.replace(settings, public_url="http://mail.example.com")
    with pytest.raises(ConfigError, match=r"MAILRAIL_PUBLIC_URL is http://mail.example.com"):
        await run(plain, capsys, delivery=Delivery.HTTPS)


async def test_other_names(settings: Settings, sqs: Any, capsys: Any) -> None:
    printed = await run(settings, capsys, topic="mail", queue="mail-in")
    assert "export MAILRAIL_EVENT_QUEUE=mail-in\n" in printed
    assert [url.rpartition("/")[2] for url in sqs.list_queues()["QueueUrls"]] == ["mail-in-dead", "mail-in"]
    with pytest.raises(ConfigError, match=r"the topic 'a b' cannot be used"):
        await run(settings, capsys, topic="a b")
    ordered = dataclasses.replace(settings, sns_topics=(f"{TOPIC_ARN}.fifo",))
    with pytest.raises(ConfigError, match=r"the topic 'mailrail-events.fifo' cannot be used"):
        await run(ordered, capsys)


async def test_a_stand_in_is_no_aws_account() -> None:
    with pytest.raises(ConfigError, match=r"MAILRAIL_SES_ENDPOINT is https://127.0.0.1:1, which is not Amazon's"):
        await setup(Settings(ses_endpoint="https://127.0.0.1:1"), Delivery.SQS, None, None, apply=True)
