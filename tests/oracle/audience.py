"""Whom an audience reaches, in plain Python, one contact at a time. Shares nothing with the statement that it judges."""

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from mailrail.campaigns.model import Audience, Condition

COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?", re.ASCII)
TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)


@dataclass
class Person:
    """A contact with all that decides whether mail reaches it. `lists` has the status of each membership."""

    email: str
    names: Mapping[str, str | None]
    status: str
    tags: list[str]
    custom_fields: Mapping[str, Any]
    created_at: datetime
    is_suppressed: bool
    lists: dict[int, str] = field(default_factory=dict)


def verdict(person: Person, audience: Audience) -> str | None:
    """Whether the person is reached, else why not; None for somebody whom it does not match."""
    if not matches(person, audience) or (audience.exclude and matches(person, audience.exclude)):
        return None
    if person.status != "subscribed":
        return person.status
    if audience.lists and "subscribed" not in {person.lists.get(one) for one in audience.lists}:
        return "unsubscribed"
    return "suppressed" if person.is_suppressed else "reached"


def matches(person: Person, audience: Audience) -> bool:
    """Tags, lists and conditions, whatever the person agreed to."""
    on_list = not audience.lists or bool(set(audience.lists) & set(person.lists))
    return set(audience.tags) <= set(person.tags) and on_list and all(holds(person, one) for one in audience.where)


def holds(person: Person, one: Condition) -> bool:
    """Whether one condition is true of the person."""
    value = value_of(person, one.field)
    match str(one.op):
        case "exists":
            return (value not in (None, "")) is one.value
        case "=":
            return equal(value, one.value, one.field)
        case "!=":
            return not equal(value, one.value, one.field)
        case "in":
            return any(equal(value, item, one.field) for item in one.value)
        case "contains":
            if isinstance(value, list):
                return one.value in value
            return isinstance(value, str) and folded(one.value, one.field) in value
        case "startsWith":
            return isinstance(value, str) and value.startswith(folded(one.value, one.field))
        case "before" | "after" as word:
            found, wanted = moment(value), moment(one.value)
            assert wanted is not None
            return found is not None and (found < wanted if word == "before" else found > wanted)
        case order:
            return ordered(value, order, one)


def ordered(value: Any, order: str, one: Condition) -> bool:
    """<, <=, > and >= of two times, numbers or texts."""
    if one.field == "createdAt":
        wanted = moment(one.value)
        assert wanted is not None
        return bool(COMPARE[order](value, wanted))
    if isinstance(one.value, str):
        return isinstance(value, str) and bool(COMPARE[order](value, folded(one.value, one.field)))
    found = number(value)
    return found is not None and bool(COMPARE[order](found, Decimal(str(one.value))))


def equal(value: Any, wanted: Any, name: str) -> bool:
    """As the type of what is wanted has it."""
    if isinstance(wanted, bool):
        return value is wanted or value == ("true" if wanted else "false")
    if isinstance(wanted, str):
        return isinstance(value, str) and value == folded(wanted, name)
    found = number(value)
    return found is not None and found == Decimal(str(wanted))


def value_of(person: Person, name: str) -> Any:
    """The field; addresses in small letters."""
    if name == "email":
        return person.email.lower()
    if name == "createdAt":
        return person.created_at
    if name.startswith("customFields."):
        return person.custom_fields.get(name.removeprefix("customFields."))
    return person.names[name]


def folded(text: str, name: str) -> str:
    """Addresses are compared whatever their case."""
    return text.lower() if name == "email" else text


def number(value: Any) -> Decimal | None:
    """A number, or a text that reads as one."""
    if isinstance(value, str):
        return Decimal(value) if NUMBER.fullmatch(value) else None
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def moment(value: Any) -> datetime | None:
    """A time, or a text that reads as one; UTC where it has no zone."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not TIME.fullmatch(value):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
