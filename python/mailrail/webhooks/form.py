"""What the API reads of webhook endpoints."""

from typing import Any

from mailrail.web.fields import Fields
from mailrail.webhooks.model import EVENT_WORDS, URL_MAX_CHARS, EndpointDraft, chosen_events

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
