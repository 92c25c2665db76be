"""Clients of Amazon's own SDK, for everything but the mail itself: SES, and where its events go, SNS and SQS."""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mailrail.config import Settings, sends_to_aws
from mailrail.errors import MailrailError

Answer = TypeVar("Answer")

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 5
ATTEMPTS_MAX = 2
# What is no service of Amazon's may answer with a page.
DETAIL_MAX_CHARS = 300

NAMES = {"sesv2": "SES", "sns": "SNS", "sqs": "SQS", "sts": "STS", "cloudwatch": "CloudWatch"}
# What a refresh of credentials raises beside botocore's own errors: STS refuses, or gives what has expired already.
NO_CREDENTIALS = (BotoCoreError, ClientError, RuntimeError)
# Each service has its own word for "there is no such thing".
MISSING_CODES = ("NotFoundException", "NotFound", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
DENIED_CODES = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException")
# As IAM names it where that is another name; SES often checks another action than the call's own, and then says which.
IAM_PREFIXES = {"sesv2": "ses"}
DENIED_ACTION = re.compile(r"not authorized to perform:? [`'\"]?(\w+:\w+)")


class AwsError(MailrailError):
    """Amazon did not answer, or refused the request."""

    code = "aws_unavailable"

    def __init__(self, sentence: str, service: str, operation: str = "", reason: str = "", detail: str = "") -> None:
        """`reason` is Amazon's own code and `detail` its sentence; both are empty where it did not answer."""
        super().__init__(sentence)
        self.service = service
        self.operation = operation
        self.reason = reason
        self.detail = detail

    @property
    def is_missing(self) -> bool:
        """Whether what was asked for does not exist."""
        return self.reason in MISSING_CODES

    @property
    def missing_action(self) -> str | None:
        """The action that IAM does not allow us, where that is what went wrong."""
        if self.reason not in DENIED_CODES:
            return None
        named = DENIED_ACTION.search(self.detail)
        return named[1] if named else f"{IAM_PREFIXES.get(self.service, self.service)}:{self.operation}"


@lru_cache(maxsize=4)
def session(settings: Settings) -> Any:
    """One session, and so one refreshed set of credentials, for the control calls and for the core."""
    if sends_to_aws(settings):
        return boto3.session.Session()
    return boto3.session.Session(
        aws_access_key_id=settings.ses_access_key, aws_secret_access_key=settings.ses_secret_key
    )


def endpoint(settings: Settings, service: str) -> str:
    """Where requests to `service` go; empty means Amazon's own."""
    return settings.ses_endpoint if service == "sesv2" else settings.aws_endpoint


@lru_cache(maxsize=16)
def client(
    settings: Settings, service: str, read_timeout_s: float = READ_TIMEOUT_S, attempts_max: int = ATTEMPTS_MAX
) -> Any:
    """A client of `service`, one of NAMES. It takes some 100 ms to make and may be shared between threads."""
    return session(settings).client(
        service,
        region_name=settings.ses_region,
        endpoint_url=endpoint(settings, service) or None,
        verify=settings.ses_ca_file or None,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            retries={"total_max_attempts": attempts_max, "mode": "standard"},
            # An endpoint of our own is reached directly, whatever proxy the environment names.
            proxies=None if sends_to_aws(settings) else {},
        ),
    )


async def ask(settings: Settings, service: str, call: Callable[[Any], Answer]) -> Answer:
    """One call of the service's client, in a thread. Raises AwsError."""
    try:
        return await asyncio.to_thread(lambda: call(client(settings, service)))
    except ClientError as error:
        told = error.response.get("Error", {})
        reason = told.get("Code", "an unnamed error")
        sentence = f"{NAMES[service]} answered {reason}."
        detail = " ".join(str(told.get("Message", "")).split())[:DETAIL_MAX_CHARS]
        raise AwsError(sentence, service, error.operation_name, reason, detail) from error
    except (*NO_CREDENTIALS, OSError) as error:
        raise AwsError(f"{NAMES[service]} did not answer ({type(error).__name__}).", service) from error
