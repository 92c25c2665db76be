"""Parameters of a query that are no filters of a room."""

from mailrail.web.context import Request
from mailrail.web.fields import FieldError, FieldsInvalid

FLAGS = {"true": True, "1": True, "false": False, "0": False}


def read_flag(request: Request, name: str, *, default: bool = False) -> bool:
    """`true` or `false`. Raises FieldsInvalid, so that a misspelt yes is never taken for a no."""
    text = request.args.get(name, str(default)).lower()
    if text not in FLAGS:
        raise FieldsInvalid([FieldError("value_unknown", f"{name} must be true or false.", name)])
    return FLAGS[text]
