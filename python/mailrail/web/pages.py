"""Lists by page number, or by a cursor that stays right while rows are added."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypedDict

from mailrail.ids import Ids, Kind
from mailrail.web.context import Request
from mailrail.web.fields import FieldError, FieldsInvalid
from mailrail.web.openapi import Query

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
PAGE_MAX = 1_000_000
PAGE_QUERY = (
    Query(
        "limit", "Items of a page.", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    ),
    Query("page", "Which page, counted from 1.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 1}),
    Query("after", "Go on behind the item with this id; then `page` does not matter."),
)


class PageAnswer(TypedDict):
    """What every list says of itself, beside its items. `after` is the cursor of the next page, null on the last one."""

    total: int
    page: int
    pages: int
    limit: int
    after: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows are asked for: `after_id` goes on behind that row, else `offset` skips."""

    limit: int
    number: int
    after_id: int | None

    @property
    def offset(self) -> int:
        """Rows to skip; none behind a cursor."""
        return 0 if self.after_id is not None else (self.number - 1) * self.limit


def read_page(request: Request, kind: Kind, ids: Ids) -> Page:
    """`limit` (20, at most 100), `page` (1) and `after` (an id) of the query. Raises FieldsInvalid."""
    return read_page_after(request, lambda text: ids.decode(kind, text))


def read_page_after(request: Request, decode: Callable[[str], int | None]) -> Page:
    """As `read_page`; `decode` turns an id of the list into the number by which it is ordered, or None."""
    errors: list[FieldError] = []
    limit = _number(request, "limit", LIMIT_DEFAULT, LIMIT_MAX, errors)
    number = _number(request, "page", 1, PAGE_MAX, errors)
    after = request.args.get("after")
    after_id = None if after is None else decode(after)
    if after is not None and after_id is None:
        errors.append(FieldError("cursor_invalid", "after must be an id from this list.", "after"))
    if errors:
        raise FieldsInvalid(errors)
    return Page(limit, number, after_id)


def page_answer(name: str, items: Sequence[Mapping[str, Any]], page: Page, total: int) -> dict[str, Any]:
    """The list under `name`, with what a client needs to go on: `after` is null on the last page."""
    full = len(items) == page.limit
    return {
        name: items,
        "total": total,
        "page": page.number,
        "pages": ceil(total / page.limit),
        "limit": page.limit,
        "after": items[-1]["id"] if full else None,
    }


def _number(request: Request, name: str, default: int, most: int, errors: list[FieldError]) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most:
        return int(text)
    errors.append(FieldError("number_invalid", f"{name} must be a whole number from 1 to {most}.", name))
    return default
