"""Facts of webhook endpoints, of what they are told, and of each try to tell them."""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from mailrail.errors import MailrailError

ENDPOINTS_MAX = 20
EVERY_EVENT = "*"
SECRET_PREFIX = "whsec_"  # noqa: S105  the part that everybody knows
# Standard Webhooks asks for 24 to 64 bytes.
SECRET_BYTES = 32
PREVIOUS_VALID = timedelta(hours=24)


class EventType(StrEnum):
    """What an endpoint may ask for: the words of both dialects."""

    EMAIL_SENT = "email.sent"
    EMAIL_DELIVERED = "email.delivered"
    EMAIL_DELAYED = "email.delayed"
    EMAIL_OPENED = "email.opened"
    EMAIL_CLICKED = "email.clicked"
    EMAIL_BOUNCED = "email.bounced"
    EMAIL_COMPLAINED = "email.complained"
    EMAIL_FAILED = "email.failed"
    CAMPAIGN_SENT = "campaign.sent"
    CAMPAIGN_COMPLETED = "campaign.completed"
    CONTACT_UNSUBSCRIBED = "contact.unsubscribed"
    CONTACT_SUBSCRIBED = "contact.subscribed"
    DOMAIN_VERIFIED = "domain.verified"
    DOMAIN_FAILED = "domain.failed"


EVENT_WORDS = (*map(str, EventType), EVERY_EVENT)
# What `POST …/test` sends; nobody can ask for it.
TEST_TYPE = "webhook.test"


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookNotFound(MailrailError):
    """There is no such webhook endpoint."""

    code = "webhook_not_found"


class WebhookLimitReached(MailrailError):
    """The account has as many webhook endpoints as it may. Delete one that is not needed."""

    code = "webhook_limit_reached"


class WebhookInactive(MailrailError):
    """The webhook endpoint is switched off, so nothing is sent to it. Switch it on first: PATCH it with isActive true."""

    code = "webhook_inactive"


class DeliveryNotFound(MailrailError):
    """There is no such delivery."""

    code = "delivery_not_found"


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """An endpoint to be made."""

    url: str
    events: list[str]
    description: str | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint; its secrets are sealed for account and id, the one before signs beside the new one until then."""

    id: int
    account_id: int
    url: str
    events: list[str]
    description: str | None
    is_active: bool
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    created_at: datetime
    updated_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs an endpoint's messages at the moment."""

    current: str
    previous: str | None
    previous_until: datetime | None


def new_secret() -> str:
    """`whsec_` and base64 of random bytes, as Standard Webhooks writes it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def chosen_events(words: Sequence[str]) -> list[str]:
    """What an endpoint asks for: everything is everything, whatever else is named."""
    return [EVERY_EVENT] if EVERY_EVENT in words else list(words)


# —— deliveries ————————————————————————————————————————————————————————————————————————————————————————————————————————

# Pauses after a failed try (Standard Webhooks, operational considerations): three days in all.
RETRY_PAUSES_S = (5, 300, 1800, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
# Up to so much longer, by chance, so that what failed together does not come back together.
RETRY_JITTER = 0.2
# An endpoint may ask for a longer pause by Retry-After, and no more than this.
RETRY_AFTER_MAX_S = 24 * 3600
TIMEOUT_S = 15.0
ANSWER_MAX_BYTES = 4096
FAILING_MAX = timedelta(days=5)
KEPT = timedelta(days=30)
REPLAY_MAX = 10_000
# A list's total is counted no further.
TOTAL_CAP = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that happened; `facts` are what goes out as it is, the rest are numbers of rows."""

    id: int
    type: str
    at: datetime
    stream_id: int | None
    seq: int | None
    campaign_id: int | None
    contact_id: int | None
    list_id: int | None
    domain_id: int | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to one endpoint; `due_at` is when it is tried next."""

    id: int
    endpoint_id: int
    message_id: int
    type: str
    status: DeliveryStatus
    attempts: int
    due_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: its HTTP status and the beginning of its answer, or why there was none."""

    attempt: int
    at: datetime
    duration_ms: int
    http_status: int | None
    error: str | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries of an endpoint are asked for; None is any."""

    status: DeliveryStatus | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayRange:
    """What was told from a moment on, to another, and is to be told once more; None is no end, any type, any status."""

    since: datetime
    until: datetime | None
    types: list[str] | None
    status: DeliveryStatus | None


def is_success(http_status: int | None) -> bool:
    """Only 2xx is a receipt: a redirect is not followed, so it is a failure like any other."""
    return http_status is not None and 200 <= http_status < 300


def is_overloaded(http_status: int | None) -> bool:
    """Whether the endpoint asks for fewer requests, or does not answer at all."""
    return http_status is None or http_status in (429, 502, 503, 504)


def retry_pause_s(step: int, chance: float, retry_after_s: float | None) -> float | None:
    """How long to wait after the failure of try `step`, counted from 0; None when that was the last. `chance` is 0..1."""
    if step >= len(RETRY_PAUSES_S):
        return None
    asked_s = min(retry_after_s or 0.0, RETRY_AFTER_MAX_S)
    return max(RETRY_PAUSES_S[step] * (1 + RETRY_JITTER * chance), asked_s)
