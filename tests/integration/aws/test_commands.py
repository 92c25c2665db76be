"""What is printed can be pasted: every command is one of the AWS CLI with parameters that the service takes, every policy is
JSON, and the policies allow just what is called.
"""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.validate import ParamValidator

import mailrail
from mailrail.__main__ import main
from mailrail.aws import policies
from mailrail.aws.examine import findings
from mailrail.aws.model import CLI_OPTIONS, Caller, Delivery, place
from mailrail.aws.setup import print_policy, setup
from mailrail.config import Settings, variable
from mailrail.errors import ConfigError
from mailrail.ses.clients import IAM_PREFIXES, NAMES, client
from tests.integration.aws.conftest import ACCOUNT_ID, REGION
from tests.integration.aws.test_setup import break_piece
from tests.support.ses_account import SesAccount

PACKAGE = Path(mailrail.__file__).parent
MODELS = botocore.session.Session()
# Every command of the CLI takes these.
GLOBAL_OPTIONS = ("region", "endpoint-url")


def commands(text: str) -> list[str]:
    """Lines that begin with the CLI's name."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("aws ")]


def check(command: str) -> str:
    """Holds a command to the service's own model; returns the operation."""
    program, service, action, *options = shlex.split(command)
    model = MODELS.get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    operation = model.operation_model(names[action])
    members = {
        CLI_OPTIONS.get(name) or xform_name(name, "-"): (name, shape)
        for name, shape in operation.input_shape.members.items()
    }
    parameters: dict[str, Any] = {}
    words = iter(options)
    for word in words:
        option = word.removeprefix("--")
        if option in GLOBAL_OPTIONS:
            next(words)
            continue
        name, shape = members.get(option) or members[option.removeprefix("no-")]
        if shape.type_name == "boolean":
            parameters[name] = not option.startswith("no-")
        else:
            text = next(words)
            parameters[name] = text if shape.type_name == "string" else json.loads(text)
    report = ParamValidator().validate(parameters, operation.input_shape)
    assert program == "aws"
    assert not report.has_errors(), report.generate_report()
    return str(operation.name)


@pytest.mark.parametrize("delivery", list(Delivery))
async def test_commands_of_setup(settings: Settings, capsys: pytest.CaptureFixture[str], delivery: Delivery) -> None:
    await setup(settings, delivery, None, None, apply=False)
    done = {check(command) for command in commands(capsys.readouterr().out)}
    made = {"CreateTopic", "Subscribe", "CreateConfigurationSet", "CreateConfigurationSetEventDestination"}
    assert done == made | {"CreateQueue"}


async def test_commands_of_doctor(
    settings: Settings, ses: SesAccount, sns: Any, sqs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await setup(settings, Delivery.SQS, None, None, apply=True)
    for broken in (
        "retention",
        "queue_policy",
        "topic_policy",
        "signature",
        "raw",
        "set_paused",
        "suppression",
        "engagement",
        "destination_types",
    ):
        break_piece(broken, ses, sns, sqs)
    ses.account.update(ProductionAccessEnabled=False, SendingEnabled=False)
    ses.destinations["mailrail"]["other"] = {
        "Enabled": True,
        "MatchingEventTypes": ["OPEN", "SEND"],
        "CloudWatchDestination": {
            "DimensionConfigurations": [
                {"DimensionName": "a", "DimensionValueSource": "MESSAGE_TAG", "DefaultDimensionValue": "b"}
            ]
        },
    }
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName="mailrail-events-dead")["QueueUrl"], MessageBody="{}")
    text = "\n".join([finding.line() async for finding in findings(settings)])
    assert {check(command) for command in commands(text)} == {
        "PutAccountDetails",
        "PutAccountSendingAttributes",
        "PutConfigurationSetSuppressionOptions",
        "PutConfigurationSetVdmOptions",
        "PutConfigurationSetSendingOptions",
        "UpdateConfigurationSetEventDestination",
        "SetQueueAttributes",
        "SetTopicAttributes",
        "SetSubscriptionAttributes",
        "StartMessageMoveTask",
    }


async def test_the_command_that_gives_permissions(settings: Settings, ses: SesAccount) -> None:
    ses.denied.add("GetAccount")
    text = "\n".join([finding.line() async for finding in findings(settings)])
    [command] = [line for line in commands(text) if line.startswith("aws iam")]
    assert check(command) == "PutUserPolicy"
    assert f'"$(mailrail aws policy doctor --account-id {ACCOUNT_ID})"' in command


@pytest.mark.parametrize("delivery", list(Delivery))
@pytest.mark.parametrize("whose", ["run", "doctor", "setup"])
async def test_policies_are_json_of_actions_that_exist(
    settings: Settings, capsys: pytest.CaptureFixture[str], whose: str, delivery: Delivery
) -> None:
    await print_policy(settings, whose, None, delivery)
    policy = json.loads(capsys.readouterr().out)
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        for action in policies.listed(statement["Action"]):
            service, _, operation = action.partition(":")
            models = ("sesv2", "ses") if service == "ses" else (service,)
            assert any(operation in MODELS.get_service_model(one).operation_names for one in models), action


async def test_a_policy_before_there_are_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    await print_policy(Settings(ses_region="cn-north-1"), "run", "210987654321", Delivery.SQS)
    policy = json.loads(capsys.readouterr().out)
    assert policy["Statement"][0]["Resource"][1] == "arn:aws-cn:ses:cn-north-1:210987654321:configuration-set/mailrail"
    with pytest.raises(ConfigError, match=r"--account-id"):
        await print_policy(Settings(), "run", "12", Delivery.SQS)


@contextmanager
def recorded(settings: Settings) -> Iterator[set[str]]:
    """The IAM actions of all calls that the SDK makes meanwhile."""
    actions: set[str] = set()

    def note(model: Any, **_: Any) -> None:
        prefix = model.service_model.service_name
        actions.add(f"{IAM_PREFIXES.get(prefix, prefix)}:{model.name}")

    clients = [client(settings, service) for service in NAMES]
    for one in clients:
        one.meta.events.register("before-call", note)
    yield actions
    for one in clients:
        one.meta.events.unregister("before-call", note)


def allowed(policy: policies.Policy) -> set[str]:
    """All actions of a policy."""
    return {action for statement in policy["Statement"] for action in policies.listed(statement["Action"])}


async def test_the_policies_allow_just_what_is_called(
    settings: Settings, ses: SesAccount, sns: Any, sqs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    where = place(settings, Caller(ACCOUNT_ID, f"arn:aws:iam::{ACCOUNT_ID}:root"), Delivery.SQS)
    # To say who asks needs no permission.
    free = {"sts:GetCallerIdentity"}
    with recorded(settings) as made:
        await setup(settings, Delivery.SQS, None, None, apply=True)
        for broken in ("retention", "signature", "raw", "set_paused", "suppression", "engagement", "destination_types"):
            break_piece(broken, ses, sns, sqs)
        await setup(settings, Delivery.SQS, None, None, apply=True)
    with recorded(settings) as read:
        assert [finding async for finding in findings(settings)]
    assert read - free == allowed(policies.doctor_policy(where))
    # SES tests the topic by itself, and the test looks for what to break.
    made -= {"sns:Publish", "sns:ListTopics", "sns:ListSubscriptions"}
    assert (made | read) - free == allowed(policies.setup_policy(where))


# How our own modules name the clients that they call.
CALL = re.compile(r"\b(?:ses|sqs|_sqs\(\))\.([a-z_]+)\(")


@pytest.mark.parametrize("delivery", list(Delivery))
def test_what_api_and_worker_call_they_may(settings: Settings, delivery: Delivery) -> None:
    where = place(settings, Caller(ACCOUNT_ID, f"arn:aws:iam::{ACCOUNT_ID}:root"), delivery)
    files = [
        file for room in ("ses", "events", "emails", "domains", "suppressions") for file in PACKAGE.glob(f"{room}/*.py")
    ]
    called = {name for file in files for name in CALL.findall(file.read_text())}
    operations = {
        xform_name(operation): f"{prefix}:{operation}"
        for service, prefix in (("sesv2", "ses"), ("sqs", "sqs"))
        for operation in MODELS.get_service_model(service).operation_names
    }
    asked = {operations[name].removesuffix("Batch") for name in called & set(operations)}
    assert {"ses:GetAccount", "sqs:ReceiveMessage", "sqs:DeleteMessage"} <= asked
    assert asked <= allowed(policies.run_policy(where))


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator has in the shell."""
    asyncio.set_event_loop(None)
    for name in ("ses_region", "ses_endpoint", "aws_endpoint", "public_url", "ses_secret_key"):
        monkeypatch.setenv(variable(name), getattr(settings, name))


def test_the_commands_as_typed(environment: None, ses: SesAccount, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aws", "setup", "--queue", "mail-in"]) == 0
    said = "Nothing has been changed: 6 of 6 pieces would be. `mailrail aws setup --queue mail-in --apply` does it."
    assert said in capsys.readouterr().out
    assert main(["aws", "setup", "--queue", "mail-in", "--apply"]) == 0
    assert "done    queue mail-in\n" in capsys.readouterr().out
    assert main(["aws", "policy", "run", "--delivery", "https"]) == 0
    assert json.loads(capsys.readouterr().out)["Statement"][-1]["Resource"] == [
        f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:mailrail-events-dead"
    ]
    ses.denied.add("GetConfigurationSet")
    assert main(["aws", "setup"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mailrail: configuration set mailrail: the credentials lack ses:GetConfigurationSet;")
    assert said.count("\n") == 1


def test_doctor_says_it_with_the_rest(
    environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAILRAIL_SECRET_KEY", "0123456789abcdef0123456789abcdef")
    assert main(["doctor"]) == 1
    assert "queue mailrail-events" not in capsys.readouterr().out
    assert main(["doctor", "--aws"]) == 1
    assert "FAIL  queue mailrail-events: it does not exist" in capsys.readouterr().out
