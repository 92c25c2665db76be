"""Whether a policy that somebody has made lets in whom it should, and nobody else."""

import pytest

from mailrail.aws import policies
from mailrail.aws.model import Caller, Delivery, Place, place
from mailrail.config import Settings

PLACE: Place = place(Settings(ses_region="eu-west-1"), Caller("123456789012", "arn:aws:iam::1:root"), Delivery.SQS)
WANTED = policies.topic_policy(PLACE)
OURS = WANTED["Statement"][0]
SET = PLACE.configuration_set_arn


def changed(**changes: object) -> policies.Policy:
    """Our statement with something else in it."""
    return policies.policy({**OURS, **changes})


@pytest.mark.parametrize(
    "policy",
    [
        WANTED,
        changed(Sid="Another"),
        changed(Action=["SNS:GetTopicAttributes", "SNS:Publish"]),
        changed(Action="sns:*", Resource="*"),
        changed(Principal={"Service": ["events.amazonaws.com", "ses.amazonaws.com"]}),
        changed(Condition={"StringEquals": {"aws:SourceAccount": "123456789012"}}),
        changed(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:ses:eu-west-1:123456789012:configuration-set/*"}}),
        changed(Condition={"ArnEquals": {"AWS:SourceArn": ["arn:aws:ses:x", SET]}}),
        # A statement alone needs no list.
        {"Version": "2012-10-17", "Statement": OURS},
        policies.policy(
            OURS,
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sns:*",
                "Resource": "*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
        ),
    ],
)
def test_these_let_ses_publish(policy: policies.Policy) -> None:
    assert policies.grants(policy, WANTED)


@pytest.mark.parametrize(
    "policy",
    [
        {},
        policies.policy(),
        changed(Effect="Deny"),
        changed(Action="sns:Subscribe"),
        changed(Resource=f"{PLACE.topic_arn}-of-another"),
        changed(Principal={"Service": "sns.amazonaws.com"}),
        changed(Principal={"AWS": "arn:aws:iam::123456789012:root"}),
        changed(Condition={"StringEquals": {"AWS:SourceAccount": "210987654321"}}),
        changed(Condition={"StringEquals": {"AWS:SourceArn": f"{SET}-of-another"}}),
        changed(Condition={"StringEquals": {"aws:SourceOwner": "123456789012"}}),
        policies.policy(OURS, {"Effect": "Deny", "Principal": "*", "Action": "sns:Publish", "Resource": "*"}),
    ],
)
def test_these_do_not(policy: policies.Policy) -> None:
    assert not policies.grants(policy, WANTED)
    assert policies.statements_of(policies.with_statement(policy, WANTED))[-1] == OURS


def test_a_statement_of_ours_is_replaced_and_not_doubled() -> None:
    old = changed(Action="sns:Subscribe")
    assert policies.with_statement(old, WANTED) == WANTED


def test_strangers_are_seen() -> None:
    wide = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sns:Publish", "Resource": "*"}
    held = {**wide, "Condition": {"StringEquals": {"aws:SourceOwner": "123456789012"}}}
    assert policies.open_to_all(policies.policy(OURS, held, wide, {**wide, "Sid": "Any"}), "sns:Publish") == [
        "number 3",
        "Any",
    ]
    assert policies.open_to_all(policies.policy({**wide, "Effect": "Deny"}), "sns:Publish") == []


@pytest.mark.parametrize(
    ("arn", "option"),
    [
        ("arn:aws:iam::123456789012:user/team/anna", "user-name anna"),
        ("arn:aws:sts::123456789012:assumed-role/mail/i-0123", "role-name mail"),
        ("arn:aws:iam::123456789012:root", None),
    ],
)
def test_who_holds_the_credentials(arn: str, option: str | None) -> None:
    assert policies.holder_option(Caller("123456789012", arn)) == option
