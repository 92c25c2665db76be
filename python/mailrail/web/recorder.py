"""The body of a request as JSON Schema, from the very form that reads it: a form asks a `Recorder` as it asks `Fields`, and what
it asks for is what it takes. So the document cannot say anything else than the code does.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from mailrail.addresses import ADDRESS_MAX_CHARS, DOMAIN_MAX_CHARS
from mailrail.ids import Ids
from mailrail.web.fields import MAILBOX_MAX_CHARS, MAILBOX_NAME_MAX_CHARS, Fields, Value

Schema: TypeAlias = dict[str, Any]

ADDRESS: Schema = {"type": "string", "format": "email", "maxLength": ADDRESS_MAX_CHARS}
MAILBOX: Schema = {"type": "string", "maxLength": MAILBOX_MAX_CHARS}
# As `fields.CONTROL` has it, in the words of JSON Schema.
ONE_LINE = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$"


def body_schema(reads: Callable[..., object], ids: Ids) -> Schema:
    """The schema of the object that `reads(fields)` or `reads(fields, ids)` takes."""
    recorder = Recorder()
    if len(inspect.signature(reads).parameters) > 1:
        reads(recorder, ids)
    else:
        reads(recorder)
    return recorder.schema()


class Recorder(Fields):
    """An object in which nothing is given. Each reader notes what it was asked for; what a form misses is required."""

    def __init__(self, *, is_item: bool = False) -> None:
        super().__init__({})
        self._is_item = is_item
        self._properties: dict[str, Schema | Recorder] = {}
        self._lists: dict[str, tuple[Recorder, int | None]] = {}
        self._required: list[str] = []
        self._nullable: set[str] = set()
        self._alternatives: list[tuple[str, ...]] = []

    def schema(self) -> Schema:
        """What was noted."""
        if not self._properties and not self._lists and self._is_item:
            # Nobody asked for its fields: they are the caller's own.
            return {"type": "object"}
        properties = {name: self._property(name) for name in (*self._properties, *self._lists)}
        required = [name for name in properties if name in self._required or self._is_needed(name)]
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        alternatives = [{"anyOf": [{"required": [name]} for name in names]} for names in self._alternatives]
        if not alternatives:
            return schema
        return schema | (alternatives[0] if len(alternatives) == 1 else {"allOf": alternatives})

    def is_null(self, name: str) -> bool:
        """Notes that null means something."""
        self._nullable.add(name)
        return False

    def text(self, name: str, max_chars: int, *, lines: bool = False) -> str | None:
        """As `Fields` has it, like all that follow."""
        self._properties[name] = text_schema(max_chars, lines=lines)
        return None

    def required_text(self, name: str, max_chars: int, *, lines: bool = False) -> str:
        self._properties[name] = {**text_schema(max_chars, lines=lines), "minLength": 1}
        self._required.append(name)
        return ""

    def texts(self, name: str, max_items: int, max_chars: int) -> list[str] | None:
        self._properties[name] = array({**text_schema(max_chars), "minLength": 1}, max_items)
        return None

    def word(self, name: str, words: Collection[str]) -> str | None:
        self._properties[name] = {"type": "string", "enum": list(words)}
        return None

    def choices(self, name: str, words: Collection[str]) -> list[str] | None:
        self._properties[name] = array({"type": "string", "enum": list(words)}, len(words))
        return None

    def integer(self, name: str, least: int, most: int) -> int | None:
        self._properties[name] = {"type": "integer", "minimum": least, "maximum": most}
        return None

    def boolean(self, name: str) -> bool | None:
        self._properties[name] = {"type": "boolean"}
        return None

    def moment(self, name: str) -> datetime | None:
        self._properties[name] = {"type": "string", "format": "date-time"}
        return None

    def address(self, name: str) -> str | None:
        self._properties[name] = ADDRESS
        return None

    def required_address(self, name: str) -> str:
        self._properties[name] = ADDRESS
        self._required.append(name)
        return ""

    def domain(self, name: str) -> str | None:
        self._properties[name] = {"type": "string", "format": "hostname", "maxLength": DOMAIN_MAX_CHARS}
        return None

    def addresses(self, name: str, max_items: int) -> list[str]:
        self._properties[name] = {"anyOf": [ADDRESS, array(ADDRESS, max_items)]}
        return []

    def mailbox(self, name: str) -> tuple[str | None, str | None]:
        parts = Recorder()
        parts.text("name", MAILBOX_NAME_MAX_CHARS)
        parts.required_address("email")
        self._properties[name] = {"anyOf": [MAILBOX, parts.schema()]}
        return None, None

    def mailboxes(self, name: str, max_items: int) -> list[tuple[str | None, str]]:
        self._properties[name] = {"anyOf": [MAILBOX, array(MAILBOX, max_items)]}
        return []

    def words(self, name: str, max_items: int, name_max_chars: int, max_chars: int) -> dict[str, str]:
        self._properties[name] = {
            "type": "object",
            "maxProperties": max_items,
            "propertyNames": text_schema(name_max_chars),
            "additionalProperties": {**text_schema(max_chars), "minLength": 1},
        }
        return {}

    def objects(self, name: str, max_items: int | None) -> list[Fields]:
        item = Recorder(is_item=True)
        self._lists[name] = (item, max_items)
        return [item]

    def nested(self, name: str) -> Fields:
        nested = Recorder()
        self._properties[name] = nested
        return nested

    def array(self, name: str, max_items: int, like: Mapping[str, Any]) -> list[Any]:
        self._properties[name] = array(dict(like), max_items)
        return []

    def mapping(self, name: str) -> dict[str, Any] | None:
        self._properties[name] = {"type": "object"}
        return None

    def parsed(self, name: str, parse: Callable[[str], Value], text: str) -> Value | None:
        return None

    def require_any(self, *names: str) -> None:
        self._alternatives.append(names)

    def error(self, name: str, code: str, message: str) -> None:
        """Notes what a form cannot do without; all else that it complains of is a matter of values."""
        if code == "field_missing":
            self._required.append(name)

    def finish(self) -> None:
        """There is nothing to raise."""

    def _property(self, name: str) -> Schema:
        if name in self._lists:
            item, max_items = self._lists[name]
            return array(item.schema(), max_items)
        noted = self._properties[name]
        schema = noted.schema() if isinstance(noted, Recorder) else noted
        return nullable(schema) if name in self._nullable else schema

    def _is_needed(self, name: str) -> bool:
        """Whether it is an object that has to have something."""
        noted = self._properties.get(name)
        return isinstance(noted, Recorder) and "required" in noted.schema()


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def text_schema(max_chars: int, *, lines: bool = False) -> Schema:
    """A string, of one line unless `lines` is set."""
    schema: Schema = {"type": "string", "maxLength": max_chars}
    return schema if lines else {**schema, "pattern": ONE_LINE}


def array(items: Schema, max_items: int | None) -> Schema:
    """A list; None is no limit but that of the body."""
    schema: Schema = {"type": "array", "items": items}
    return schema if max_items is None else {**schema, "maxItems": max_items}
