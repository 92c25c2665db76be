"""JSON answers."""

from collections.abc import Mapping
from typing import TypedDict

import orjson
from sanic.response import HTTPResponse


class DeletedAnswer(TypedDict):
    """What is gone."""

    id: str
    deleted: bool


def answer(body: Mapping[str, object], status: int = 200) -> HTTPResponse:
    """Compact JSON; nothing that an API key opened is kept by a cache."""
    return HTTPResponse(
        orjson.dumps(body), status=status, headers={"Cache-Control": "no-store"}, content_type="application/json"
    )
