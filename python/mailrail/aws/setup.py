"""`mailrail aws setup`: look, plan, show, and with --apply carry out. What is done is kept by the next run."""

import json
import re
import shlex
from collections.abc import Sequence

from botocore import xform_name

from mailrail.aws import look, policies
from mailrail.aws import plan as planning
from mailrail.aws.model import Call, Caller, Delivery, Place, Step, Verb, known_topic, place, queue_name, require_amazon
from mailrail.config import Settings
from mailrail.errors import ConfigError, MailrailError
from mailrail.ses.clients import AwsError, ask

POLICIES = {"run": policies.run_policy, "doctor": policies.doctor_policy, "setup": policies.setup_policy}


class SetupIncomplete(MailrailError):
    """AWS refused a step. Run the command again: what is done is kept."""

    code = "aws_setup_incomplete"


async def setup(settings: Settings, delivery: Delivery, topic: str | None, queue: str | None, *, apply: bool) -> int:
    """The whole command; returns its exit status."""
    require_amazon(settings)
    who = await caller_of(settings)
    where = place(settings, who, delivery, topic, queue)
    print(f"AWS account {who.account_id}, region {where.region}, as {who.arn}\n")
    steps = await plan(settings, where)
    show(settings, steps)
    if apply:
        await carry_out(settings, steps)
    print(outcome(where, steps, apply))
    print(what_to_set(settings, where, who))
    return 0


async def caller_of(settings: Settings) -> Caller:
    """Who we are, or what to do to be somebody."""
    try:
        return await look.caller(settings)
    except AwsError as error:
        raise ConfigError(f"{str(error).rstrip('.')}; {CREDENTIALS_REMEDY}") from error


CREDENTIALS_REMEDY = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role; "
    "`aws sts get-caller-identity` must answer"
)


async def plan(settings: Settings, where: Place) -> list[Step]:
    """Looks at every piece before anything is changed."""
    steps = []
    for piece in planning.pieces(where):
        try:
            steps.append(await planning.step(settings, where, piece))
        except AwsError as error:
            raise SetupIncomplete(f"{piece.name}: {refusal(error)}. Nothing has been changed") from error
    return steps


def show(settings: Settings, steps: Sequence[Step]) -> None:
    """A line a piece; below it what differs, and the commands that do the same."""
    for step in steps:
        print(f"{step.verb.value:<6}  {step.piece}")
        if step.verb is Verb.CHANGE:
            for difference in step.differences:
                print(f"        {difference}")
        for call in step.calls:
            print(f"        {call.command(settings)}")
    print()


async def carry_out(settings: Settings, steps: Sequence[Step]) -> None:
    """The calls in their order; the first that fails ends it, with what has been done by then."""
    work = [step for step in steps if step.verb is not Verb.KEEP]
    for done, step in enumerate(work):
        try:
            for call in step.calls:
                await make(settings, call)
        except AwsError as error:
            raise SetupIncomplete(
                f"{step.piece}: {refusal(error)}. {done} of {len(work)} steps are done; run the command again when this is "
                "mended, and it goes on from here"
            ) from error
        print(f"done    {step.piece}", flush=True)


async def make(settings: Settings, call: Call) -> None:
    """One call. Raises AwsError."""
    await ask(settings, call.service, lambda client: getattr(client, xform_name(call.operation))(**call.parameters))


def refusal(error: AwsError) -> str:
    """What Amazon said, and the permission that is missing where one is."""
    if action := error.missing_action:
        return f"the credentials lack {action}; `mailrail aws policy setup` prints all that this command needs"
    return str(error).rstrip(".") + (f" ({error.detail.rstrip('.')})" if error.detail else "")


def outcome(where: Place, steps: Sequence[Step], apply: bool) -> str:
    """What this run came to."""
    work = sum(step.verb is not Verb.KEEP for step in steps)
    if not work:
        return f"All {len(steps)} pieces are as they should be.\n"
    if apply:
        return f"{work} of {len(steps)} pieces were made or changed.\n"
    command = f"mailrail aws setup{where.options} --apply"
    return f"Nothing has been changed: {work} of {len(steps)} pieces would be. `{command}` does it.\n"


def what_to_set(settings: Settings, where: Place, who: Caller) -> str:
    """The environment that api and worker need for these pieces."""
    topics = settings.sns_topics if where.topic_arn in settings.sns_topics else (*settings.sns_topics, where.topic_arn)
    values = {
        "MAILRAIL_SES_REGION": where.region,
        "MAILRAIL_CONFIGURATION_SET": where.configuration_set,
        "MAILRAIL_SNS_TOPICS": ",".join(topics),
    }
    lines = []
    if where.delivery is Delivery.SQS:
        values["MAILRAIL_EVENT_QUEUE"] = where.queue
    else:
        lines.append(
            f"Start `mailrail api` with these before --apply: SNS posts a confirmation to {where.intake_url}, which it answers."
        )
    is_set = known_topic(settings, who) == where.topic and (
        where.delivery is Delivery.HTTPS or queue_name(settings.event_queue) == where.queue
    )
    head = "The settings fit:" if is_set else "Set these for `mailrail api` and `mailrail worker`:"
    exports = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([head, *exports, *lines, "`mailrail doctor --aws` examines all of it."])


async def print_policy(
    settings: Settings,
    whose: str,
    account_id: str | None,
    delivery: Delivery,
    topic: str | None = None,
    queue: str | None = None,
) -> int:
    """`mailrail aws policy`: without --account-id it asks whose credentials these are."""
    if account_id is None:
        require_amazon(settings)
        try:
            who = await look.caller(settings)
        except AwsError as error:
            raise ConfigError(f"{str(error).rstrip('.')}; name the AWS account: --account-id 123456789012") from error
    elif not re.fullmatch(r"\d{12}", account_id):
        raise ConfigError(f"--account-id must be the 12 digits of an AWS account (it is {account_id!r})")
    else:
        who = Caller(account_id, f"arn:{partition(settings.ses_region)}:iam::{account_id}:root")
    print(json.dumps(POLICIES[whose](place(settings, who, delivery, topic, queue)), indent=2))
    return 0


def partition(region: str) -> str:
    """Of a region (AWS general reference)."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
