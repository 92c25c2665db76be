"""The policies: who may publish and send within AWS, and what mailrail's own processes and people may do there."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from mailrail.aws.model import Caller, Delivery, Place

Policy = Mapping[str, Any]
Statement = Mapping[str, Any]

VERSION = "2012-10-17"

# SES checks two actions for each way of sending: that of the call, and the older one beneath it.
SENDING = ("ses:SendEmail", "ses:SendRawEmail", "ses:SendBulkEmail", "ses:SendBulkTemplatedEmail")
# What `mailrail.ses.control` asks for.
CONTROL = (
    "ses:GetAccount",
    "ses:GetEmailIdentity",
    "ses:CreateEmailIdentity",
    "ses:PutEmailIdentityDkimSigningAttributes",
    "ses:PutEmailIdentityMailFromAttributes",
    "ses:ListSuppressedDestinations",
    "ses:DeleteSuppressedDestination",
)
# DeleteMessage allows DeleteMessageBatch too (SQS guide, API permissions).
PULLING = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage")


def topic_policy(place: Place) -> Policy:
    """SES may publish to the topic, in the name of this account's configuration set alone."""
    return policy(
        {
            "Sid": "MailrailSesPublishes",
            "Effect": "Allow",
            "Principal": {"Service": "ses.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": place.topic_arn,
            "Condition": {
                "StringEquals": {"AWS:SourceAccount": place.account_id, "AWS:SourceArn": place.configuration_set_arn}
            },
        }
    )


def queue_policy(place: Place, queue_arn: str) -> Policy:
    """SNS may send to the queue what comes from the topic, and nobody else may send anything."""
    return policy(
        {
            "Sid": "MailrailTopicSends",
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue_arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": place.topic_arn}},
        }
    )


def run_policy(place: Place) -> Policy:
    """What `mailrail api` and `mailrail worker` do: send, look after domains, and take events."""
    statements: list[Statement] = [
        {
            "Sid": "Send",
            "Effect": "Allow",
            "Action": list(SENDING),
            "Resource": [
                ses_arn(place, "identity/*"),
                ses_arn(place, f"configuration-set/{place.configuration_set}"),
                ses_arn(place, "template/*"),
            ],
        },
        # Most of these know no resources.
        {"Sid": "Control", "Effect": "Allow", "Action": list(CONTROL), "Resource": "*"},
    ]
    # Where SNS posts the events, a worker may still be sent to fetch those that it could not post.
    queues = [place.queue_arn, place.dead_queue_arn] if place.delivery is Delivery.SQS else [place.dead_queue_arn]
    return policy(*statements, {"Sid": "Pull", "Effect": "Allow", "Action": list(PULLING), "Resource": queues})


def doctor_policy(place: Place) -> Policy:
    """What `mailrail doctor --aws` reads."""
    return policy(*reading(place))


def setup_policy(place: Place) -> Policy:
    """What `mailrail aws setup` reads and makes."""
    return policy(
        *reading(place),
        {
            "Sid": "MakeSets",
            "Effect": "Allow",
            "Action": [
                "ses:CreateConfigurationSet",
                "ses:PutConfigurationSetSendingOptions",
                "ses:PutConfigurationSetSuppressionOptions",
                "ses:PutConfigurationSetVdmOptions",
                "ses:CreateConfigurationSetEventDestination",
                "ses:UpdateConfigurationSetEventDestination",
            ],
            "Resource": place.configuration_set_arn,
        },
        {
            "Sid": "MakeTopic",
            "Effect": "Allow",
            "Action": ["sns:CreateTopic", "sns:SetTopicAttributes", "sns:Subscribe", "sns:SetSubscriptionAttributes"],
            "Resource": [place.topic_arn, f"{place.topic_arn}:*"],
        },
        {
            "Sid": "MakeQueues",
            "Effect": "Allow",
            "Action": ["sqs:CreateQueue", "sqs:SetQueueAttributes"],
            "Resource": [place.queue_arn, place.dead_queue_arn],
        },
    )


def reading(place: Place) -> list[Statement]:
    """Who we are needs no permission: STS tells it to everybody."""
    return [
        {
            "Sid": "ReadAccount",
            "Effect": "Allow",
            "Action": ["ses:GetAccount", "cloudwatch:GetMetricStatistics"],
            "Resource": "*",
        },
        {
            "Sid": "ReadSet",
            "Effect": "Allow",
            "Action": ["ses:GetConfigurationSet", "ses:GetConfigurationSetEventDestinations"],
            "Resource": place.configuration_set_arn,
        },
        {
            "Sid": "ReadTopic",
            "Effect": "Allow",
            "Action": ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic", "sns:GetSubscriptionAttributes"],
            "Resource": [place.topic_arn, f"{place.topic_arn}:*"],
        },
        {
            "Sid": "ReadQueues",
            "Effect": "Allow",
            "Action": ["sqs:GetQueueUrl", "sqs:GetQueueAttributes"],
            "Resource": [place.queue_arn, place.dead_queue_arn],
        },
    ]


def ses_arn(place: Place, resource: str) -> str:
    """Of something of SES in this account and region."""
    return f"arn:{place.partition}:ses:{place.region}:{place.account_id}:{resource}"


def policy(*statements: Statement) -> Policy:
    """A policy of these statements."""
    return {"Version": VERSION, "Statement": list(statements)}


def with_statement(existing: Policy, wanted: Policy) -> Policy:
    """The existing policy with our statement in it, in the place of an older one of that name; those of others stay."""
    [ours] = wanted["Statement"]
    others = [one for one in statements_of(existing) if one.get("Sid") != ours["Sid"]]
    return {"Version": VERSION, **existing, "Statement": [*others, ours]}


def grants(existing: Policy, wanted: Policy) -> bool:
    """Whether the policy allows all that our one statement allows, whatever it is named, and denies none of it."""
    [ours] = wanted["Statement"]
    request = {
        "principal": next(iter(ours["Principal"].values())),
        "action": ours["Action"],
        "resource": ours["Resource"],
        "context": {
            key.lower(): value for conditions in ours["Condition"].values() for key, value in conditions.items()
        },
    }
    fitting = [one for one in statements_of(existing) if fits(one, **request)]
    return bool(fitting) and all(one.get("Effect") == "Allow" for one in fitting)


def open_to_all(existing: Policy, action: str) -> list[str]:
    """Names of statements that let anybody do it, without any condition: events could be forged."""
    return [
        str(one.get("Sid", f"number {number}"))
        for number, one in enumerate(statements_of(existing), 1)
        if one.get("Effect") == "Allow"
        and not one.get("Condition")
        and "*" in principals(one)
        and matches(action, one.get("Action", ()))
    ]


def fits(statement: Statement, principal: str, action: str, resource: str, context: Mapping[str, str]) -> bool:
    """Whether the statement speaks of this request; a condition that is not known here is taken as not met."""
    return (
        bool({principal, "*"} & principals(statement))
        and matches(action, statement.get("Action", ()))
        and matches(resource, statement.get("Resource", "*"))
        and all(
            is_met(operator, key, listed(wanted), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def is_met(operator: str, key: str, wanted: list[str], context: Mapping[str, str]) -> bool:
    """One condition. ArnEquals takes wildcards as ArnLike does (IAM reference, condition operators)."""
    value = context.get(key.lower())
    if value is None:
        return False
    if operator == "StringEquals":
        return value in wanted
    return operator in ("StringLike", "ArnEquals", "ArnLike") and any(fnmatch.fnmatchcase(value, one) for one in wanted)


def principals(statement: Statement) -> set[str]:
    """Services and accounts that it names; `*` is everybody."""
    named = statement.get("Principal", {})
    return {"*"} if named == "*" else {one for values in named.values() for one in listed(values)}


def matches(text: str, patterns: str | Iterable[str]) -> bool:
    """Whether one of the patterns fits; actions know no case."""
    return any(fnmatch.fnmatchcase(text.lower(), pattern.lower()) for pattern in listed(patterns))


def statements_of(existing: Policy) -> list[Statement]:
    """A policy may hold one statement without a list."""
    return listed(existing.get("Statement", []))


def listed(value: Any) -> list[Any]:
    """AWS writes a list of one as the one."""
    return [value] if isinstance(value, (str, Mapping)) else list(value)


def holder_option(who: Caller) -> str | None:
    """How the IAM commands name who holds these credentials: a user, or the role of a session; None for the account itself."""
    kind, _, name = who.arn.rpartition(":")[2].partition("/")
    if kind == "user":
        return f"user-name {name.rpartition('/')[2]}"
    if kind == "assumed-role":
        return f"role-name {name.partition('/')[0]}"
    return None
