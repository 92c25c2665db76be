"""From what is there to what there should be: one pure function a piece, and the order of the pieces."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailrail.aws import look, policies
from mailrail.aws.model import (
    DELIVERY_POLICY,
    DESTINATION,
    EVENT_TYPES,
    RECEIVES_MAX,
    RETENTION_S,
    SIGNATURE_VERSION,
    SUPPRESSED_REASONS,
    TRACKING_TYPES,
    VISIBILITY_S,
    Call,
    Delivery,
    Place,
    Queue,
    Step,
    Subscription,
    Verb,
)
from mailrail.aws.policies import Policy
from mailrail.config import Settings


@dataclass(frozen=True, slots=True)
class Piece:
    """How to look at a piece, and how to judge what was seen."""

    name: str
    look: Callable[[Settings, Place], Awaitable[Any]]
    plan: Callable[[Place, Any], Step]


def pieces(place: Place) -> list[Piece]:
    """All pieces, each after those it stands on. Events begin to flow with the last one, so that none finds no taker."""
    dead_queue = Piece(dead_queue_label(place), look_at_dead_queue, plan_dead_queue)
    rest = [
        Piece(topic_label(place), look.topic, plan_topic),
        Piece(set_label(place), look.configuration_set, plan_configuration_set),
        Piece(subscription_label(place), look.subscription, plan_subscription),
        Piece(destination_label(place), look.destinations, plan_destination),
    ]
    if place.delivery is Delivery.HTTPS:
        return [dead_queue, *rest]
    return [dead_queue, Piece(queue_label(place), look_at_queue, plan_queue), *rest]


async def step(settings: Settings, place: Place, piece: Piece) -> Step:
    """Looks at one piece and says what is to be done. Raises AwsError."""
    return piece.plan(place, await piece.look(settings, place))


# —— queues ——


def queue_label(place: Place) -> str:
    """As people read it; so are the labels of the others."""
    return f"queue {place.queue}"


async def look_at_queue(settings: Settings, place: Place) -> Queue | None:
    """The queue that workers pull from."""
    return await look.queue(settings, place.queue)


def plan_queue(place: Place, seen: Queue | None) -> Step:
    """What a worker fails to store RECEIVES_MAX times goes to the dead queue."""
    redrive = {"deadLetterTargetArn": place.dead_queue_arn, "maxReceiveCount": RECEIVES_MAX}
    wanted = {**common_attributes(), "VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": json.dumps(redrive)}
    sender = policies.queue_policy(place, place.queue_arn)
    return queue_step(queue_label(place), place.queue, wanted, sender, seen)


def dead_queue_label(place: Place) -> str:
    """As above."""
    return f"queue {place.dead_queue}"


async def look_at_dead_queue(settings: Settings, place: Place) -> Queue | None:
    """The queue of what failed."""
    return await look.queue(settings, place.dead_queue)


def plan_dead_queue(place: Place, seen: Queue | None) -> Step:
    """SQS moves messages into it by itself; SNS, which has none of ours to move them from, needs leave."""
    sender = None if place.delivery is Delivery.SQS else policies.queue_policy(place, place.dead_queue_arn)
    return queue_step(dead_queue_label(place), place.dead_queue, common_attributes(), sender, seen)


def common_attributes() -> dict[str, str]:
    """What all queues have."""
    return {"MessageRetentionPeriod": str(RETENTION_S), "SqsManagedSseEnabled": "true"}


def queue_step(name: str, queue: str, wanted: dict[str, str], sender: Policy | None, seen: Queue | None) -> Step:
    """A queue with these attributes, into which the sender may send."""
    if seen is None:
        attributes = wanted if sender is None else {**wanted, "Policy": json.dumps(sender)}
        return created(name, Call("sqs", "CreateQueue", {"QueueName": queue, "Attributes": attributes}))
    # A key of the operator's own encrypts as well.
    ignored = ("SqsManagedSseEnabled",) if seen.attributes.get("KmsMasterKeyId") else ()
    differences, changes = differing(seen.attributes, wanted, ignored)
    if sender is not None and (merged := mended(seen.attributes.get("Policy"), sender)):
        differences.append("Policy does not let the topic send")
        changes["Policy"] = merged
    calls = [Call("sqs", "SetQueueAttributes", {"QueueUrl": seen.url, "Attributes": changes})] if changes else []
    return changed(name, differences, calls)


# —— topic and subscription ——


def topic_label(place: Place) -> str:
    """As above."""
    return f"topic {place.topic}"


def plan_topic(place: Place, seen: Mapping[str, str] | None) -> Step:
    """A standard topic, which SES alone takes, that SES may publish to."""
    name = topic_label(place)
    wanted = {"SignatureVersion": SIGNATURE_VERSION}
    publisher = policies.topic_policy(place)
    if seen is None:
        attributes = {**wanted, "Policy": json.dumps(publisher)}
        return created(name, Call("sns", "CreateTopic", {"Name": place.topic, "Attributes": attributes}))
    differences, changes = differing(seen, wanted)
    if merged := mended(seen.get("Policy"), publisher):
        differences.append("Policy does not let SES publish")
        changes["Policy"] = merged
    return changed(
        name,
        differences,
        [
            Call(
                "sns",
                "SetTopicAttributes",
                {"TopicArn": place.topic_arn, "AttributeName": key, "AttributeValue": value},
            )
            for key, value in changes.items()
        ],
    )


def subscription_label(place: Place) -> str:
    """As above."""
    return f"subscription of {place.subscriber}"


def plan_subscription(place: Place, seen: Subscription | None) -> Step:
    """All envelopes, and whole: they name the topic and the notification, by which strangers and doubles are known. So no raw
    delivery and no filter.
    """
    name = subscription_label(place)
    wanted = {"RawMessageDelivery": "false"}
    if place.delivery is Delivery.HTTPS:
        wanted["DeliveryPolicy"] = json.dumps(DELIVERY_POLICY)
        wanted["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": place.dead_queue_arn})
    subscribe = Call(
        "sns",
        "Subscribe",
        {
            "TopicArn": place.topic_arn,
            "Protocol": place.delivery.value,
            "Endpoint": place.subscriber,
            "Attributes": wanted,
            "ReturnSubscriptionArn": True,
        },
    )
    if seen is None:
        return created(name, subscribe)
    if seen.arn is None:
        return changed(name, ["it is not confirmed; SNS is asked to post its confirmation again"], [subscribe])
    differences, changes = differing({"RawMessageDelivery": "false", **seen.attributes}, wanted)
    if json.loads(seen.attributes.get("FilterPolicy") or "{}"):
        differences.append("FilterPolicy holds events back")
        changes["FilterPolicy"] = "{}"
    return changed(
        name,
        differences,
        [
            Call(
                "sns",
                "SetSubscriptionAttributes",
                {"SubscriptionArn": seen.arn, "AttributeName": key, "AttributeValue": value},
            )
            for key, value in changes.items()
        ],
    )


# —— SES ——


def set_label(place: Place) -> str:
    """As above."""
    return f"configuration set {place.configuration_set}"


def plan_configuration_set(place: Place, seen: Mapping[str, Any] | None) -> Step:
    """A set that sends, suppresses and does not touch the mail."""
    name = set_label(place)
    named = {"ConfigurationSetName": place.configuration_set}
    suppression = {"SuppressedReasons": list(SUPPRESSED_REASONS)}
    if seen is None:
        options = {"SendingOptions": {"SendingEnabled": True}, "SuppressionOptions": suppression}
        return created(name, Call("sesv2", "CreateConfigurationSet", {**named, **options}))
    differences, calls = [], []
    if not seen.get("SendingOptions", {}).get("SendingEnabled", True):
        differences.append("sending is disabled")
        calls.append(Call("sesv2", "PutConfigurationSetSendingOptions", {**named, "SendingEnabled": True}))
    # Without reasons of its own the set has the account's.
    reasons = seen.get("SuppressionOptions", {}).get("SuppressedReasons")
    if reasons is not None and not set(reasons) >= set(SUPPRESSED_REASONS):
        differences.append(f"SuppressedReasons is {words(reasons)}, wanted {words(SUPPRESSED_REASONS)}")
        calls.append(Call("sesv2", "PutConfigurationSetSuppressionOptions", {**named, **suppression}))
    if seen.get("VdmOptions", {}).get("DashboardOptions", {}).get("EngagementMetrics") == "ENABLED":
        differences.append("EngagementMetrics is ENABLED: SES rewrites links and adds a pixel of its own")
        calls.append(without_engagement(place))
    return changed(name, differences, calls)


def without_engagement(place: Place) -> Call:
    """Virtual Deliverability Manager counts opens and clicks by rewriting mail; for this set it shall not."""
    options = {"DashboardOptions": {"EngagementMetrics": "DISABLED"}}
    parameters = {"ConfigurationSetName": place.configuration_set, "VdmOptions": options}
    return Call("sesv2", "PutConfigurationSetVdmOptions", parameters)


def destination_label(place: Place) -> str:
    """As above."""
    return f"event destination of {place.configuration_set}"


def plan_destination(place: Place, seen: Sequence[Mapping[str, Any]]) -> Step:
    """All events that we live by go to the topic. A destination that does so under another name is as good."""
    name = destination_label(place)
    ours = next((one for one in seen if goes_to(one, place)), None) or next(
        (one for one in seen if one["Name"] == DESTINATION), None
    )
    if ours is None:
        return created(
            name, destination_call("CreateConfigurationSetEventDestination", place, DESTINATION, EVENT_TYPES)
        )
    differences = []
    types = list(ours.get("MatchingEventTypes", ()))
    if not ours.get("Enabled", False):
        differences.append("it is not enabled")
    if not goes_to(ours, place):
        differences.append(f"it publishes elsewhere than to {place.topic_arn}")
    if missing := [one for one in EVENT_TYPES if one not in types]:
        differences.append(f"it leaves out {words(missing)}")
    if tracked := [one for one in TRACKING_TYPES if one in types]:
        differences.append(f"it asks for {words(tracked)}, for which SES rewrites the mail")
    wanted = [*EVENT_TYPES, *(one for one in types if one not in (*EVENT_TYPES, *TRACKING_TYPES))]
    update = destination_call("UpdateConfigurationSetEventDestination", place, ours["Name"], wanted)
    return changed(name, differences, [update] if differences else [])


def destination_call(operation: str, place: Place, name: str, types: Sequence[str]) -> Call:
    """The call that makes or changes a destination on our topic."""
    return Call(
        "sesv2",
        operation,
        {
            "ConfigurationSetName": place.configuration_set,
            "EventDestinationName": name,
            "EventDestination": {
                "Enabled": True,
                "MatchingEventTypes": list(types),
                "SnsDestination": {"TopicArn": place.topic_arn},
            },
        },
    )


def goes_to(destination: Mapping[str, Any], place: Place) -> bool:
    """Whether it publishes to our topic."""
    return bool(destination.get("SnsDestination", {}).get("TopicArn") == place.topic_arn)


# —— steps ——


def created(name: str, call: Call) -> Step:
    """The piece is not there."""
    return Step(name, Verb.CREATE, ("it does not exist",), (call,))


def changed(name: str, differences: Sequence[str], calls: Sequence[Call]) -> Step:
    """The piece is there, and right where nothing differs."""
    return Step(name, Verb.CHANGE if differences else Verb.KEEP, tuple(differences), tuple(calls))


def differing(
    seen: Mapping[str, str], wanted: Mapping[str, str], ignored: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """In words, and as the attributes to set."""
    changes = {
        key: value
        for key, value in wanted.items()
        if key not in ignored and not is_within(parsed(value), parsed(seen.get(key)))
    }
    return [f"{key} is {seen.get(key) or 'not set'}, wanted {value}" for key, value in changes.items()], changes


def is_within(wanted: Any, seen: Any) -> bool:
    """Whether all that is wanted is so; AWS tells more than it was given, and numbers as texts."""
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(is_within(value, seen.get(key)) for key, value in wanted.items())
    return str(wanted) == str(seen)


def parsed(text: str | None) -> Any:
    """An attribute's value, which is JSON for the compound ones."""
    return json.loads(text) if text and text.startswith("{") else text


def mended(existing: str | None, wanted: Policy) -> str | None:
    """The policy that lets in whom the wanted one lets in; None if the existing one does so already."""
    policy = json.loads(existing) if existing else {}
    return None if policies.grants(policy, wanted) else json.dumps(policies.with_statement(policy, wanted))


def words(names: Sequence[str]) -> str:
    """A list in a sentence."""
    return ", ".join(names) or "none"
