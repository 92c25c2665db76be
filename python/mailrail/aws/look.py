"""What is there: one function a piece, None where it does not exist. All raise AwsError where Amazon refuses to tell."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mailrail.aws.model import Caller, Place, Queue, Subscription
from mailrail.config import Settings
from mailrail.ses.clients import Answer, AwsError, ask

AGE_WINDOW = timedelta(minutes=15)


async def caller(settings: Settings) -> Caller:
    """Whose credentials these are."""
    told = await ask(settings, "sts", lambda sts: sts.get_caller_identity())
    return Caller(told["Account"], told["Arn"])


async def account(settings: Settings) -> Mapping[str, Any]:
    """SES's account in this region, as GetAccount tells it."""
    told: Mapping[str, Any] = await ask(settings, "sesv2", lambda ses: ses.get_account())
    return told


async def configuration_set(settings: Settings, place: Place) -> Mapping[str, Any] | None:
    """The set, as GetConfigurationSet tells it."""
    name = place.configuration_set
    return await find(settings, "sesv2", lambda ses: ses.get_configuration_set(ConfigurationSetName=name))


async def destinations(settings: Settings, place: Place) -> list[Mapping[str, Any]]:
    """The set's event destinations; none where there is no set."""
    name = place.configuration_set
    told = await find(
        settings, "sesv2", lambda ses: ses.get_configuration_set_event_destinations(ConfigurationSetName=name)
    )
    return list((told or {}).get("EventDestinations", ()))


async def topic(settings: Settings, place: Place) -> Mapping[str, str] | None:
    """The topic's attributes."""
    return await find(settings, "sns", lambda sns: sns.get_topic_attributes(TopicArn=place.topic_arn)["Attributes"])


async def subscription(settings: Settings, place: Place) -> Subscription | None:
    """The subscription of our queue or address; one that waits for its confirmation has no ARN."""

    def read(sns: Any) -> Subscription | None:
        pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=place.topic_arn)
        found = [
            one for one in pages.build_full_result().get("Subscriptions", ()) if one["Endpoint"] == place.subscriber
        ]
        confirmed = [one for one in found if one["SubscriptionArn"].startswith("arn:")]
        if confirmed:
            arn = confirmed[0]["SubscriptionArn"]
            attributes = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
            waits = attributes.get("PendingConfirmation") == "true"
            return Subscription(None if waits else arn, confirmed[0]["Protocol"], place.subscriber, attributes)
        return Subscription(None, found[0]["Protocol"], place.subscriber, {}) if found else None

    return await find(settings, "sns", read)


async def queue(settings: Settings, name: str) -> Queue | None:
    """A queue of this account, with all its attributes."""

    def read(sqs: Any) -> Queue:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return Queue(url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]).get("Attributes", {}))

    return await find(settings, "sqs", read)


async def oldest_message_s(settings: Settings, name: str) -> float | None:
    """How long the oldest message has waited, as CloudWatch last saw it; a queue that nobody uses has no figures."""
    now = datetime.now(UTC)
    told = await ask(
        settings,
        "cloudwatch",
        lambda watch: watch.get_metric_statistics(
            Namespace="AWS/SQS",
            MetricName="ApproximateAgeOfOldestMessage",
            Dimensions=[{"Name": "QueueName", "Value": name}],
            StartTime=now - AGE_WINDOW,
            EndTime=now,
            Period=60,
            Statistics=["Maximum"],
        ),
    )
    points = sorted(told.get("Datapoints", ()), key=lambda point: point["Timestamp"])
    return float(points[-1]["Maximum"]) if points else None


async def find(settings: Settings, service: str, call: Callable[[Any], Answer]) -> Answer | None:
    """As `ask`; that there is no such thing is an answer too."""
    try:
        return await ask(settings, service, call)
    except AwsError as error:
        if error.is_missing:
            return None
        raise
