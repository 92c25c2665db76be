"""Reads the fields of a JSON object and collects everything that is wrong with them, so that one answer says it all.

A reader returns a harmless value where the field is wrong; `finish` raises before anybody uses it. `null` counts as not
given. A field that nobody asked for is an error: a misspelt `listId` must not turn into mail to everybody.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from mailrail.addresses import ADDRESS_MAX_CHARS, DOMAIN_MAX_CHARS, parse_address, parse_domain, parse_mailbox
from mailrail.errors import MailrailError

# C0, C1, DEL and the two Unicode line breaks: none of them belongs into a header, a name or a tag.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 3339, section 5.6; what the pattern lets through and no calendar has, `fromisoformat` refuses.
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

MAILBOX_NAME_MAX_CHARS = 200
MAILBOX_MAX_CHARS = MAILBOX_NAME_MAX_CHARS + ADDRESS_MAX_CHARS + 3
WORD_MAX_CHARS = 100

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; `param` is its path, as `content.html`."""

    code: str
    message: str
    param: str


class FieldsInvalid(MailrailError):
    """Some fields are not valid; `errors` has each of them."""

    code = "fields_invalid"

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__(
            self.errors[0].message if len(self.errors) == 1 else f"{len(self.errors)} fields are not valid."
        )


class Fields:
    """One JSON object being read."""

    def __init__(self, values: Mapping[str, Any], path: str = "", errors: list[FieldError] | None = None) -> None:
        self._values = values
        self._path = path
        self._errors = [] if errors is None else errors
        self._asked: set[str] = set()
        self._nested: list[Fields] = []

    def has(self, name: str) -> bool:
        """Whether the field is given and not null."""
        return self._values.get(name) is not None

    def is_null(self, name: str) -> bool:
        """Whether the field is given as null, for changes: there null clears, and what is not given stays."""
        self._asked.add(name)
        return name in self._values and self._values[name] is None

    def is_text(self, name: str) -> bool:
        """Whether the field is a string, for fields that may be a string or an object."""
        return isinstance(self._values.get(name), str)

    def text(self, name: str, max_chars: int, *, lines: bool = False) -> str | None:
        """A string of one line, or of several where `lines` is set."""
        value = self._take(name, str, "a string")
        return None if value is None else self._checked_text(name, value, max_chars, lines=lines)

    def required_text(self, name: str, max_chars: int, *, lines: bool = False) -> str:
        """A string that must be there and must not be blank."""
        value = self.text(name, max_chars, lines=lines)
        if not self.has(name):
            self.error(name, "field_missing", f"{self._name(name)} is required.")
        elif value is not None and not value.strip():
            self.error(name, "field_empty", f"{self._name(name)} must not be empty.")
        return value or ""

    def texts(self, name: str, max_items: int, max_chars: int) -> list[str] | None:
        """A list of one-line strings, doubles dropped."""
        items = self._items(name, max_items)
        if items is None:
            return None
        return distinct(self._item(f"{name}[{i}]", item, max_chars) for i, item in enumerate(items))

    def word(self, name: str, words: Collection[str]) -> str | None:
        """One of the words."""
        value = self._take(name, str, "a string")
        if value is not None and value not in words:
            self.error(name, "value_unknown", f"{self._name(name)} must be one of {', '.join(words)}.")
        return value

    def choices(self, name: str, words: Collection[str]) -> list[str] | None:
        """A list of some of the words, doubles dropped."""
        items = self._items(name, len(words))
        if items is None:
            return None
        read = [self._item(f"{name}[{i}]", item, WORD_MAX_CHARS) for i, item in enumerate(items)]
        for i, word in enumerate(read):
            if word.strip() and word not in words:
                self.error(
                    f"{name}[{i}]", "value_unknown", f"{self._name(name)}[{i}] must be one of {', '.join(words)}."
                )
        return distinct(read)

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number from `least` to `most`."""
        value = self._take(name, int, "a whole number")
        if isinstance(value, bool) or (value is not None and not least <= value <= most):
            self.error(name, "number_invalid", f"{self._name(name)} must be a whole number from {least} to {most}.")
            return least
        return value

    def boolean(self, name: str) -> bool | None:
        """True or false."""
        return self._take(name, bool, "true or false")

    def moment(self, name: str) -> datetime | None:
        """A time with its zone (RFC 3339), as 2027-04-08T10:15:00Z."""
        value = self._take(name, str, "a string")
        if value is None:
            return None
        try:
            if MOMENT.fullmatch(value):
                return datetime.fromisoformat(value.upper())
        except ValueError:
            pass
        self.error(name, "time_invalid", f"{self._name(name)} must be a time with its zone, as 2027-04-08T10:15:00Z.")
        return None

    def address(self, name: str) -> str | None:
        """An email address, normalised."""
        value = self._take(name, str, "a string")
        return None if value is None else self.parsed(name, parse_address, value)

    def required_address(self, name: str) -> str:
        """An email address that must be there."""
        if not self.has(name):
            self._asked.add(name)
            self.error(name, "field_missing", f"{self._name(name)} is required.")
            return ""
        return self.address(name) or ""

    def domain(self, name: str) -> str | None:
        """A domain name, in lower case and ASCII."""
        value = self.text(name, DOMAIN_MAX_CHARS)
        return None if value is None else self.parsed(name, parse_domain, value)

    def addresses(self, name: str, max_items: int) -> list[str]:
        """One address or a list of them, normalised, doubles dropped."""
        if self.is_text(name):
            return [self.address(name) or ""]
        items = self._items(name, max_items) or []
        return distinct(self._address_item(f"{name}[{i}]", item) for i, item in enumerate(items))

    def mailbox(self, name: str) -> tuple[str | None, str | None]:
        """`{name, email}`, `Name <address>` or the address alone: (name, address), both None where the field is not given."""
        if not self.has(name):
            self._asked.add(name)
            return None, None
        if self.is_text(name):
            value = self._take(name, str, "a string") or ""
            return self.parsed(name, parse_mailbox, value) or (None, None)
        sender = self.nested(name)
        return sender.text("name", MAILBOX_NAME_MAX_CHARS), sender.required_address("email")

    def mailboxes(self, name: str, max_items: int) -> list[tuple[str | None, str]]:
        """One address or a list of them, each plain or as `Name <address>`: (name, address), doubles kept."""
        if self.is_text(name):
            value = self._take(name, str, "a string") or ""
            return [self.parsed(name, parse_mailbox, value) or (None, "")]
        items = self._items(name, max_items) or []
        return [self._mailbox_item(f"{name}[{i}]", item) for i, item in enumerate(items)]

    def words(self, name: str, max_items: int, name_max_chars: int, max_chars: int) -> dict[str, str]:
        """An object of one-line strings under names of the caller's choice."""
        values = self._take(name, dict, "an object of strings") or {}
        if len(values) > max_items:
            self.error(name, "list_too_long", f"{self._name(name)} has at most {max_items} entries.")
            return {}
        return {
            self._checked_text(f"{name}.{key[:80]}", key, name_max_chars, lines=False): self._item(
                f"{name}.{key[:80]}", value, max_chars
            )
            for key, value in values.items()
        }

    def objects(self, name: str, max_items: int | None) -> "list[Fields]":
        """A list of objects, each to be read like this one; empty where it is not given."""
        items = self._take(name, list, "a list of objects") or []
        if max_items is not None and len(items) > max_items:
            self.error(name, "list_too_long", f"{self._name(name)} has at most {max_items} items.")
            return []
        read = []
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                self.error(f"{name}[{i}]", "type_wrong", f"{self._name(name)}[{i}] must be an object.")
            values = item if isinstance(item, dict) else {}
            read.append(Fields(values, f"{self._path}{name}[{i}].", self._errors))
        self._nested.extend(read)
        return read

    def nested(self, name: str) -> "Fields":
        """A nested object; empty where it is not given."""
        values = self._take(name, dict, "an object")
        nested = Fields(values or {}, f"{self._path}{name}.", self._errors)
        self._nested.append(nested)
        return nested

    def array(self, name: str, max_items: int, like: Mapping[str, Any]) -> list[Any]:
        """A list whose items the caller judges itself; empty where it is not given. `like` is JSON Schema, for the document."""
        items = self._take(name, list, "a list") or []
        if len(items) > max_items:
            self.error(name, "list_too_long", f"{self._name(name)} has at most {max_items} items.")
            return []
        return items

    def mapping(self, name: str) -> dict[str, Any] | None:
        """An object whose keys the caller knows nothing of."""
        return self._take(name, dict, "an object")

    def require_any(self, *names: str) -> None:
        """Notes it if none of the fields is given."""
        if not any(map(self.has, names)):
            self.error(names[0], "field_missing", f"Give {' or '.join(names)}.")

    def parsed(self, name: str, parse: Callable[[str], Value], text: str) -> Value | None:
        """`parse(text)`, its domain error noted against the field."""
        try:
            return parse(text)
        except MailrailError as error:
            self.error(name, error.code, str(error))
            return None

    def error(self, name: str, code: str, message: str) -> None:
        """Notes that a field is wrong."""
        self._errors.append(FieldError(code, message, self._name(name)))

    def finish(self) -> None:
        """Raises FieldsInvalid if anything was wrong or unknown, here or in a nested object."""
        self._refuse_unknown()
        if self._errors:
            raise FieldsInvalid(self._errors)

    def _refuse_unknown(self) -> None:
        for name in filter(self.has, self._values):
            if name not in self._asked:
                near = difflib.get_close_matches(name, self._asked, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                self.error(name[:80], "field_unknown", f"{self._name(name[:80])} is not a field of this request.{hint}")
        for nested in self._nested:
            nested._refuse_unknown()  # noqa: SLF001  another object of this class

    def _take(self, name: str, kind: type[Value], wanted: str) -> Value | None:
        self._asked.add(name)
        value = self._values.get(name)
        if value is None or isinstance(value, kind):
            return value
        self.error(name, "type_wrong", f"{self._name(name)} must be {wanted}.")
        return None

    def _items(self, name: str, max_items: int) -> list[Any] | None:
        items = self._take(name, list, "a list of strings")
        if items is not None and len(items) > max_items:
            self.error(name, "list_too_long", f"{self._name(name)} has at most {max_items} items.")
            return []
        return items

    def _address_item(self, name: str, value: object) -> str:
        text = self._item(name, value, ADDRESS_MAX_CHARS)
        return (self.parsed(name, parse_address, text) or "") if text.strip() else ""

    def _mailbox_item(self, name: str, value: object) -> tuple[str | None, str]:
        text = self._item(name, value, MAILBOX_MAX_CHARS)
        return (self.parsed(name, parse_mailbox, text) if text.strip() else None) or (None, "")

    def _item(self, name: str, value: object, max_chars: int) -> str:
        if not isinstance(value, str):
            self.error(name, "type_wrong", f"{self._name(name)} must be a string.")
            return ""
        if not value.strip():
            self.error(name, "field_empty", f"{self._name(name)} must not be empty.")
        return self._checked_text(name, value, max_chars, lines=False)

    def _checked_text(self, name: str, value: str, max_chars: int, *, lines: bool) -> str:
        if len(value) > max_chars:
            self.error(name, "text_too_long", f"{self._name(name)} has at most {max_chars} characters.")
        elif lines and "\x00" in value:
            self.error(name, "text_control_character", f"{self._name(name)} must not have NUL characters.")
        elif not lines and CONTROL.search(value):
            self.error(
                name, "text_control_character", f"{self._name(name)} must be one line without control characters."
            )
        return value

    def _name(self, name: str) -> str:
        return self._path + name


def distinct(texts: Iterable[str]) -> list[str]:
    """In their order, doubles and empty ones dropped."""
    return list(dict.fromkeys(filter(None, texts)))
