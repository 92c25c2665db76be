"""`mailrail doctor --aws`: is the account one that can send, and do its events reach us? Every remedy can be pasted."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from mailrail.aws import look, plan, policies
from mailrail.aws.model import (
    SUPPRESSED_REASONS,
    TRACKING_TYPES,
    Call,
    Caller,
    Delivery,
    Place,
    Queue,
    Step,
    Verb,
    place,
    queue_name,
    require_amazon,
)
from mailrail.aws.setup import CREDENTIALS_REMEDY
from mailrail.config import Settings
from mailrail.errors import MailrailError
from mailrail.findings import Finding
from mailrail.ses.clients import AwsError

# A worker takes an event within a second; five minutes are a worker that does not run.
AGE_MAX_S = 300
# The rest of the day's quota that is worth a warning.
QUOTA_LEFT_MIN = 0.05


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Who we are, the account, the pieces from the mail to us, and how full the queues are."""
    try:
        require_amazon(settings)
        who = await look.caller(settings)
        where = await find_place(settings, who)
    except AwsError as error:
        yield Finding("AWS credentials", False, f"{str(error).rstrip('.')}; {CREDENTIALS_REMEDY}")
        return
    except MailrailError as error:
        yield Finding("AWS", False, str(error))
        return
    yield Finding(f"AWS account {who.account_id}, region {where.region}, as {who.arn}", True)
    async for finding in account_findings(settings, where, who):
        yield finding
    for finding in settings_findings(settings, where):
        yield finding
    for piece in plan.pieces(where):
        async for finding in piece_findings(settings, where, who, piece):
            yield finding
    async for finding in backlog_findings(settings, where, who):
        yield finding


async def find_place(settings: Settings, who: Caller) -> Place:
    """The pieces by the names of the settings. Without a queue, events come to us by HTTPS if such a subscription exists."""
    if not settings.event_queue and settings.public_url.startswith("https:"):
        posted = place(settings, who, Delivery.HTTPS)
        try:
            if await look.subscription(settings, posted) is not None:
                return posted
        except AwsError:
            # What is refused here is refused again where it is a finding of its own.
            pass
    return place(settings, who, Delivery.SQS)


# —— the account ——


async def account_findings(settings: Settings, where: Place, who: Caller) -> AsyncIterator[Finding]:
    """GetAccount, and what SES does to the mail by the account's own settings."""
    try:
        account = await look.account(settings)
        own_set = await look.configuration_set(settings, where) or {}
    except AwsError as error:
        yield refused("SES account", error, where, who)
        return
    for finding in (
        check_access(settings, account),
        check_sending(settings, account),
        check_enforcement(account),
        check_quota(account),
    ):
        yield finding
    # What the set says for itself is judged with the set.
    if "SuppressedReasons" not in own_set.get("SuppressionOptions", {}):
        yield check_suppression(settings, where, account)
    if "EngagementMetrics" not in own_set.get("VdmOptions", {}).get("DashboardOptions", {}):
        yield check_engagement(settings, where, account)


def check_access(settings: Settings, account: Mapping[str, Any]) -> Finding:
    """A new account is in the sandbox."""
    if account.get("ProductionAccessEnabled", False):
        return Finding("SES production access", True)
    details = {
        "ProductionAccessEnabled": True,
        "MailType": "MARKETING",
        "WebsiteURL": settings.public_url,
        "ContactLanguage": "EN",
    }
    asking = Call("sesv2", "PutAccountDetails", details).command(settings)
    return Finding(
        "SES production access",
        False,
        "the account is in the sandbox: it reaches verified addresses and the mailbox simulator alone. Ask AWS to let it out, "
        f"with the address of your website, and answer what they ask by mail:\n\n{asking}\n",
    )


def check_sending(settings: Settings, account: Mapping[str, Any]) -> Finding:
    """Somebody may have paused the account."""
    if account.get("SendingEnabled", False):
        return Finding("SES account sends", True)
    enable = Call("sesv2", "PutAccountSendingAttributes", {"SendingEnabled": True}).command(settings)
    return Finding("SES account sends", False, f"sending is paused for the whole account; to go on:\n\n{enable}\n")


def check_enforcement(account: Mapping[str, Any]) -> Finding:
    """What AWS thinks of the mail so far."""
    status = account.get("EnforcementStatus", "HEALTHY")
    if status == "HEALTHY":
        return Finding("SES reputation is HEALTHY", True)
    end = "AWS has stopped" if status == "SHUTDOWN" else "AWS may stop"
    return Finding(
        f"SES reputation is {status}",
        False,
        f"{end} this account's mail. The reason is in a case of the AWS Support Center and in the console of SES, at "
        '"Reputation metrics"; answer there what has been done, and send nothing to addresses that bounced or complained',
    )


def check_quota(account: Mapping[str, Any]) -> Finding:
    """Rate and volume, in recipients."""
    quota = account.get("SendQuota", {})
    rate, volume, sent = (float(quota.get(name, 0)) for name in ("MaxSendRate", "Max24HourSend", "SentLast24Hours"))
    what = f"SES grants {rate:,.0f} recipients a second, "
    what += "without a limit a day" if volume < 0 else f"and has taken {sent:,.0f} of {volume:,.0f} within 24 hours"
    if volume >= 0 and sent >= volume * (1 - QUOTA_LEFT_MIN):
        return Finding(
            what, False, "the day's quota is as good as used up; Service Quotas of AWS takes a request for more"
        )
    return Finding(what, True)


def check_suppression(settings: Settings, where: Place, account: Mapping[str, Any]) -> Finding:
    """A second net under our own list."""
    reasons = account.get("SuppressionAttributes", {}).get("SuppressedReasons", ())
    what = f"SES's own suppression list takes in {plan.words(reasons)}"
    if set(reasons) >= set(SUPPRESSED_REASONS):
        return Finding(what, True)
    parameters = {"ConfigurationSetName": where.configuration_set, "SuppressedReasons": list(SUPPRESSED_REASONS)}
    mend = Call("sesv2", "PutConfigurationSetSuppressionOptions", parameters).command(settings)
    return Finding(what, False, f"it is the second net under mailrail's own list:\n\n{mend}\n")


def check_engagement(settings: Settings, where: Place, account: Mapping[str, Any]) -> Finding:
    """Of the two settings that make SES rewrite mail this is one; the other is in the event destinations."""
    what = "SES leaves links as they are"
    if account.get("VdmAttributes", {}).get("DashboardAttributes", {}).get("EngagementMetrics") != "ENABLED":
        return Finding(what, True)
    mend = plan.without_engagement(where).command(settings)
    return Finding(
        what,
        False,
        "Virtual Deliverability Manager counts opens and clicks, for which SES rewrites links that mailrail has made and adds "
        f"a second pixel; to end that for this configuration set:\n\n{mend}\n",
    )


# —— the pieces ——


def settings_findings(settings: Settings, where: Place) -> Iterator[Finding]:
    """Whether mailrail takes the events that these pieces bring."""
    what = "MAILRAIL_SNS_TOPICS"
    if where.topic_arn in settings.sns_topics:
        yield Finding(f"{what} names {where.topic_arn}", True)
    else:
        topics = ",".join([*settings.sns_topics, where.topic_arn])
        yield Finding(what, False, f"notifications of {where.topic_arn} would be refused:\n\nexport {what}={topics}\n")
    if where.delivery is Delivery.HTTPS:
        yield Finding(f"events are posted to {where.intake_url}", True)
    elif queue_name(settings.event_queue) == where.queue:
        yield Finding(f"events are pulled from queue {where.queue}", True)
    else:
        yield Finding(
            "MAILRAIL_EVENT_QUEUE",
            False,
            f"it is not set, and SNS posts nothing to {where.intake_url} either; with the queue that {setup_command(where)} makes:\n\n"
            f"export MAILRAIL_EVENT_QUEUE={where.queue}\n",
        )


async def piece_findings(settings: Settings, where: Place, who: Caller, piece: plan.Piece) -> AsyncIterator[Finding]:
    """The piece as setup would judge it, and what setup leaves alone."""
    try:
        seen = await piece.look(settings, where)
    except AwsError as error:
        yield refused(piece.name, error, where, who)
        return
    yield as_finding(settings, where, piece.plan(where, seen))
    if piece.plan is plan.plan_destination:
        for finding in tracking_findings(settings, where, seen):
            yield finding
    elif piece.plan is plan.plan_topic and seen:
        yield check_strangers(piece.name, seen.get("Policy"), "sns:Publish")
    elif piece.plan is plan.plan_queue and seen:
        yield check_strangers(piece.name, seen.attributes.get("Policy"), "sqs:SendMessage")


def as_finding(settings: Settings, where: Place, step: Step) -> Finding:
    """A step that has something to do is a fault, and what it would do is the remedy."""
    if step.verb is Verb.KEEP:
        return Finding(step.piece, True)
    commands = "\n".join(call.command(settings) for call in step.calls)
    return Finding(
        step.piece, False, f"{'; '.join(step.differences)}. {setup_command(where)} mends it, or:\n\n{commands}\n"
    )


def setup_command(where: Place) -> str:
    """What mends all pieces at once."""
    return f"`mailrail aws setup{where.options} --apply`"


def tracking_findings(settings: Settings, where: Place, destinations: list[Mapping[str, Any]]) -> Iterator[Finding]:
    """Destinations of others on our set. Setup does not touch them."""
    for one in destinations:
        tracked = [kind for kind in one.get("MatchingEventTypes", ()) if kind in TRACKING_TYPES]
        if tracked and not plan.goes_to(one, where) and one.get("Enabled", False):
            wanted = {key: value for key, value in one.items() if key != "Name" and value}
            wanted["MatchingEventTypes"] = [kind for kind in one["MatchingEventTypes"] if kind not in TRACKING_TYPES]
            parameters = {
                "ConfigurationSetName": where.configuration_set,
                "EventDestinationName": one["Name"],
                "EventDestination": wanted,
            }
            mend = Call("sesv2", "UpdateConfigurationSetEventDestination", parameters).command(settings)
            yield Finding(
                f"event destination {one['Name']} of {where.configuration_set}",
                False,
                f"it asks for {plan.words(tracked)}, so SES rewrites links that mailrail has made; without them:\n\n{mend}\n",
            )


def check_strangers(name: str, policy: str | None, action: str) -> Finding:
    """Nobody outside may put in what looks like an event."""
    open_ones = policies.open_to_all(plan.parsed(policy) or {}, action)
    if not open_ones:
        return Finding(f"{name} is closed to strangers", True)
    return Finding(
        f"{name} is closed to strangers",
        False,
        f"its policy lets anybody do {action} without a condition, in statement {plan.words(open_ones)}; delete that statement",
    )


# —— how full the queues are ——


async def backlog_findings(settings: Settings, where: Place, who: Caller) -> AsyncIterator[Finding]:
    """What waits, and what was given up."""
    try:
        waiting = await look.queue(settings, where.queue) if where.delivery is Delivery.SQS else None
        dead = await look.queue(settings, where.dead_queue)
        oldest_s = await look.oldest_message_s(settings, where.queue) if waiting else None
    except AwsError as error:
        yield refused("backlog of events", error, where, who)
        return
    if waiting is not None:
        age = "" if oldest_s is None else f", the oldest for {oldest_s:,.0f} s"
        what = f"events that wait in queue {where.queue}: {messages(waiting):,}{age}"
        remedy = "nobody takes them in time; is `mailrail worker` running with MAILRAIL_EVENT_QUEUE set?"
        yield Finding(what, True) if (oldest_s or 0) <= AGE_MAX_S else Finding(what, False, remedy)
    if dead is not None:
        yield check_dead(settings, where, dead)


def check_dead(settings: Settings, where: Place, dead: Queue) -> Finding:
    """Messages that failed stay here until somebody moves them back."""
    what = f"events that failed, in queue {where.dead_queue}: {messages(dead):,}"
    if not messages(dead):
        return Finding(what, True)
    if where.delivery is Delivery.SQS:
        move = Call("sqs", "StartMessageMoveTask", {"SourceArn": where.dead_queue_arn}).command(settings)
        return Finding(
            what, False, f"they could not be stored. Once the reason in the worker's log is mended:\n\n{move}\n"
        )
    pull = f"MAILRAIL_EVENT_QUEUE={where.dead_queue} mailrail worker"
    return Finding(what, False, f"SNS could not post them for an hour. A worker takes them from there:\n\n{pull}\n")


def messages(queue: Queue) -> int:
    """Those that wait, and those that somebody has just received."""
    names = (
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    )
    return sum(int(queue.attributes.get(name, 0)) for name in names)


def refused(what: str, error: AwsError, where: Place, who: Caller) -> Finding:
    """A look that Amazon did not allow or did not answer."""
    if action := error.missing_action:
        return Finding(what, False, f"the credentials lack {action}; {attaching(where, who)}")
    detail = f" ({error.detail.rstrip('.')})" if error.detail else ""
    return Finding(
        what, False, f"{str(error).rstrip('.')}{detail}; try again, and look at https://health.aws.amazon.com"
    )


def attaching(where: Place, who: Caller) -> str:
    """How these credentials get what doctor reads."""
    option = policies.holder_option(who)
    if option is None:
        return "`mailrail aws policy doctor` prints a policy with all that this command reads"
    return (
        "an administrator gives them all that this command reads by:\n\n"
        f"aws iam put-{option.partition('-')[0]}-policy --{option} --policy-name mailrail-doctor "
        f'--policy-document "$(mailrail aws policy doctor --account-id {who.account_id}{where.options})"\n'
    )
