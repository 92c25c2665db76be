"""JSON bodies, read strictly: what two parsers could read in two ways is refused."""

import json
import math
from typing import Any, NoReturn

from mailrail.errors import MailrailError
from mailrail.web.context import Request

DEPTH_MAX = 32
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# More digits than any int64 has, refused before Python converts them.
INT_MAX_CHARS = 20


class BodyUnreadable(MailrailError):
    """The body is not JSON that mailrail reads."""

    code = "body_unreadable"


def read_object(request: Request) -> dict[str, Any]:
    """The request's JSON object; an empty body counts as `{}`. Raises BodyUnreadable."""
    if not request.body:
        return {}
    value = decode(request.body)
    if not isinstance(value, dict):
        raise BodyUnreadable("The body must be a JSON object.")
    return value


def decode(body: bytes) -> Any:
    """JSON without NaN, infinities, duplicate keys, integers outside int64, lone surrogates or deep nesting."""
    try:
        value = _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise BodyUnreadable("The body is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise BodyUnreadable(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from error
    except RecursionError as error:
        raise BodyUnreadable(_TOO_DEEP) from error
    _check(value, 1)
    return value


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        _check_depth(depth)
        for key, item in value.items():
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        _check_depth(depth)
        for item in value:
            _check(item, depth + 1)


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise BodyUnreadable(_TOO_DEEP)


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BodyUnreadable("The body has half of a surrogate pair, which is no character.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise BodyUnreadable(f"The body has the key {double[:80]!r} twice in one object.")
    return value


def _int(text: str) -> int:
    if len(text) > INT_MAX_CHARS or not INT64_MIN <= (number := int(text)) <= INT64_MAX:
        raise BodyUnreadable("The body has an integer outside of 64 bits.")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BodyUnreadable("The body has a number that is too large.")
    return number


def _constant(text: str) -> NoReturn:
    raise BodyUnreadable(f"The body has {text}, which is not JSON.")


_TOO_DEEP = f"The body is nested deeper than {DEPTH_MAX} levels."
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
