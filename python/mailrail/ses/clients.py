"""Clients of Amazon's own SDK, for everything but the mail itself: SES, and where its events go, SNS and SQS."""

from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config

from mailrail.config import Settings, sends_to_aws

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 5
ATTEMPTS_MAX = 2


@lru_cache(maxsize=4)
def session(settings: Settings) -> Any:
    """One session, and so one refreshed set of credentials, for the control calls and for the core."""
    if sends_to_aws(settings):
        return boto3.session.Session()
    return boto3.session.Session(
        aws_access_key_id=settings.ses_access_key, aws_secret_access_key=settings.ses_secret_key
    )


@lru_cache(maxsize=16)
def client(settings: Settings, service: str, read_timeout_s: float = READ_TIMEOUT_S) -> Any:
    """A client of `service` (`sesv2`, `sns`, `sqs`, `sts`). It takes some 100 ms to make and may be shared between threads."""
    endpoint = settings.ses_endpoint if service == "sesv2" else settings.aws_endpoint
    return session(settings).client(
        service,
        region_name=settings.ses_region,
        endpoint_url=endpoint or None,
        verify=settings.ses_ca_file or None,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            retries={"total_max_attempts": ATTEMPTS_MAX, "mode": "standard"},
            # An endpoint of our own is reached directly, whatever proxy the environment names.
            proxies=None if sends_to_aws(settings) else {},
        ),
    )
