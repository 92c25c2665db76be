"""The pieces of an AWS account that mailrail needs, as facts: their names, how each is set, and a call that makes it so."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from botocore import xform_name

from mailrail.config import Settings, sends_to_aws
from mailrail.errors import ConfigError
from mailrail.ses.clients import endpoint

DEFAULT_NAME = "mailrail-events"
INTAKE_PATH = "/events/sns"
DESTINATION = "mailrail"
TOPIC_MAX_CHARS = 256
# With `-dead` behind it a name of SQS still is one.
QUEUE_MAX_CHARS = 75

# What mailrail settles mail by. OPEN and CLICK are not among them: a destination that asks for either makes SES rewrite the
# mail, and mailrail tracks by itself. SUBSCRIPTION is about SES's own contact lists, which mailrail does not use.
EVENT_TYPES = ("SEND", "REJECT", "BOUNCE", "COMPLAINT", "DELIVERY", "RENDERING_FAILURE", "DELIVERY_DELAY")
TRACKING_TYPES = ("OPEN", "CLICK")
# SES's own list is a second net under ours.
SUPPRESSED_REASONS = ("BOUNCE", "COMPLAINT")
# 1 is SHA-1 (SNS guide, verifying signatures).
SIGNATURE_VERSION = "2"

# A worker stores ten messages within a second; what it took to its grave comes back to the others after this.
VISIBILITY_S = 60
# The most that SQS has, for the queue and for what failed: a weekend must cost no event.
RETENTION_S = 14 * 86_400
# A database that is away takes no events; so many receipts at VISIBILITY_S are 16 hours of that.
RECEIVES_MAX = 1000
# 3 × 5 s, then ever longer up to 60 s, then every 60 s: just under the 3,600 s that SNS allows in all.
DELIVERY_POLICY = {
    "healthyRetryPolicy": {
        "minDelayTarget": 5,
        "maxDelayTarget": 60,
        "numRetries": 60,
        "numNoDelayRetries": 0,
        "numMinDelayRetries": 3,
        "numMaxDelayRetries": 50,
        "backoffFunction": "exponential",
    }
}

# Where the CLI has another name than the service: --endpoint-url was taken.
CLI_OPTIONS = {"Endpoint": "notification-endpoint"}


class Delivery(StrEnum):
    """How events come from the topic to mailrail: workers pull them from a queue, or SNS posts them to the API."""

    SQS = "sqs"
    HTTPS = "https"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who we are in AWS."""

    account_id: str
    arn: str

    @property
    def partition(self) -> str:
        """`aws`, or that of China or of a government."""
        return self.arn.split(":")[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the pieces are. Names decide their ARNs, so all of them can be written down before anything exists."""

    partition: str
    account_id: str
    region: str
    configuration_set: str
    topic: str
    queue: str
    delivery: Delivery
    # Where SNS posts to with Delivery.HTTPS.
    intake_url: str

    @property
    def configuration_set_arn(self) -> str:
        """Of the set in whose name SES publishes."""
        return self._arn("ses", f"configuration-set/{self.configuration_set}")

    @property
    def topic_arn(self) -> str:
        """Of the topic to which SES publishes."""
        return self._arn("sns", self.topic)

    @property
    def queue_arn(self) -> str:
        """Of the queue that workers pull from."""
        return self._arn("sqs", self.queue)

    @property
    def dead_queue(self) -> str:
        """The queue of what could not be delivered, or not be stored."""
        return f"{self.queue}-dead"

    @property
    def dead_queue_arn(self) -> str:
        """As above."""
        return self._arn("sqs", self.dead_queue)

    @property
    def subscriber(self) -> str:
        """What SNS calls the endpoint of the subscription."""
        return self.queue_arn if self.delivery is Delivery.SQS else self.intake_url

    @property
    def options(self) -> str:
        """What `mailrail aws` has to be told to find this place again, with a blank before it."""
        names = {"delivery": self.delivery.value, "topic": self.topic, "queue": self.queue}
        usual = (Delivery.SQS.value, DEFAULT_NAME)
        return "".join(f" --{name} {value}" for name, value in names.items() if value not in usual)

    def _arn(self, service: str, name: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{name}"


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that exists."""

    url: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription that exists; without an ARN it has not been confirmed."""

    arn: str | None
    protocol: str
    endpoint: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an AWS service: what setup makes, and what a person can paste."""

    service: str
    operation: str
    parameters: Mapping[str, Any]

    def command(self, settings: Settings) -> str:
        """The same call for the AWS CLI."""
        words = ["aws", self.service, xform_name(self.operation, "-"), "--region", settings.ses_region]
        if own := endpoint(settings, self.service):
            words += ["--endpoint-url", own]
        for name, value in self.parameters.items():
            option = CLI_OPTIONS.get(name) or xform_name(name, "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words)


class Verb(StrEnum):
    """What a step does with its piece."""

    CREATE = "create"
    CHANGE = "change"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Step:
    """A piece, what differs from how it should be, and the calls that mend it."""

    piece: str
    verb: Verb
    differences: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()


def place(
    settings: Settings, caller: Caller, delivery: Delivery, topic: str | None = None, queue: str | None = None
) -> Place:
    """Where the pieces are or shall be: names that are asked for, else those of the settings, else the usual ones."""
    if not settings.configuration_set:
        raise ConfigError("MAILRAIL_CONFIGURATION_SET is empty; without a configuration set no event comes back")
    intake_url = f"{settings.public_url}{INTAKE_PATH}"
    if delivery is Delivery.HTTPS and urlsplit(settings.public_url).scheme != "https":
        raise ConfigError(
            f"MAILRAIL_PUBLIC_URL is {settings.public_url}, and SNS posts events by https alone here; set an address with "
            "https, or have the events pulled from a queue (--delivery sqs)"
        )
    return Place(
        partition=caller.partition,
        account_id=caller.account_id,
        region=settings.ses_region,
        configuration_set=settings.configuration_set,
        topic=checked_name("topic", topic or known_topic(settings, caller) or DEFAULT_NAME, TOPIC_MAX_CHARS),
        queue=checked_name("queue", queue or queue_name(settings.event_queue) or DEFAULT_NAME, QUEUE_MAX_CHARS),
        delivery=delivery,
        intake_url=intake_url,
    )


def known_topic(settings: Settings, caller: Caller) -> str | None:
    """The name of the first topic in the settings that is of this account and region."""
    prefix = f"arn:{caller.partition}:sns:{settings.ses_region}:{caller.account_id}:"
    return next((arn.removeprefix(prefix) for arn in settings.sns_topics if arn.startswith(prefix)), None)


def queue_name(text: str) -> str:
    """The name in a queue's name or URL."""
    return text.rstrip("/").rpartition("/")[2]


def checked_name(what: str, name: str, max_chars: int) -> str:
    """The name of a standard topic or queue; those in order end in `.fifo`, and SES takes none of them."""
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{max_chars}}}", name):
        raise ConfigError(
            f"the {what} {name!r} cannot be used: its name must be at most {max_chars} letters, digits, hyphens and underscores"
        )
    return name


def require_amazon(settings: Settings) -> None:
    """Stop where mail goes to a stand-in, unless SNS, SQS and STS have one too: its keys mean nothing to Amazon."""
    if not settings.aws_endpoint and not sends_to_aws(settings):
        raise ConfigError(
            f"MAILRAIL_SES_ENDPOINT is {settings.ses_endpoint}, which is not Amazon's; unset it, and give this shell AWS "
            "credentials, to work on an AWS account"
        )
