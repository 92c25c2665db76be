"""What the API reads of webhook endpoints and of replays."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mailrail.web.fields import Fields
from mailrail.webhooks.destinations import URL_MAX_CHARS
from mailrail.webhooks.model import (
    EVENT_WORDS,
    TEST_TYPE,
    DeliveryFilter,
    DeliveryStatus,
    EndpointDraft,
    EventType,
    ReplayRange,
    chosen_events,
)

DESCRIPTION_MAX_CHARS = 500


def read_endpoint(fields: Fields) -> EndpointDraft:
    """`url`, `events`, and `description` and `isActive`, which may be left out. The URL is checked by the service."""
    return EndpointDraft(
        url=fields.required_text("url", URL_MAX_CHARS),
        events=chosen_events(_read_events(fields, required=True) or []),
        description=fields.text("description", DESCRIPTION_MAX_CHARS),
        is_active=fields.boolean("isActive") is not False,
    )


def read_changes(fields: Fields) -> dict[str, Any]:
    """What of an endpoint is to change, by the names of its columns; null clears `description`."""
    url = fields.text("url", URL_MAX_CHARS)
    events = _read_events(fields, required=False)
    given = {
        "url": url,
        "events": None if events is None else chosen_events(events),
        "description": fields.text("description", DESCRIPTION_MAX_CHARS),
        "is_active": fields.boolean("isActive"),
    }
    cleared = {"description"} if fields.is_null("description") else set()
    return {column: value for column, value in given.items() if value is not None or column in cleared}


def _read_events(fields: Fields, *, required: bool) -> list[str] | None:
    events = fields.choices("events", EVENT_WORDS)
    if required and not fields.has("events"):
        fields.error("events", "field_missing", "events is required: the words of what you want to hear of, or *.")
    elif events == []:
        fields.error("events", "field_empty", "events must name at least one event; * is all of them.")
    return events


DELIVERY_TYPES = (*map(str, EventType), TEST_TYPE)
DELIVERY_STATUSES = tuple(map(str, DeliveryStatus))


def read_filter(query: Mapping[str, str | None]) -> DeliveryFilter:
    """`status` and `type` of a query. Raises FieldsInvalid."""
    fields = Fields(query)
    status, type_ = fields.word("status", DELIVERY_STATUSES), fields.word("type", DELIVERY_TYPES)
    fields.finish()
    return DeliveryFilter(None if status is None else DeliveryStatus(status), type_)


def read_range(fields: Fields) -> ReplayRange:
    """`from`, and `to`, `types` and `status`, which may be left out: until now, of every type, however they ended."""
    since, until = fields.moment("from"), fields.moment("to")
    if not fields.has("from"):
        fields.error("from", "field_missing", "from is required: the time from which on to replay.")
    elif since is not None and until is not None and since >= until:
        fields.error("to", "range_empty", "to must be later than from.")
    status = fields.word("status", (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED))
    return ReplayRange(
        since=since or datetime.max.replace(tzinfo=UTC),
        until=until,
        types=fields.choices("types", DELIVERY_TYPES),
        status=DeliveryStatus(status) if status in DELIVERY_STATUSES else None,
    )
