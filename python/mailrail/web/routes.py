"""What the API says of itself: /openapi.json, /docs and /docs/errors. Made once, the same for everybody."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from sanic.response import HTTPResponse, html, raw

from mailrail.web.context import Request
from mailrail.web.docs_page import docs_page
from mailrail.web.errors import reference_page
from mailrail.web.openapi import HTML, JSON, operation

# Nothing is loaded and nothing runs; the pages bring their style along.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Reference:
    """What the API says of itself. Both forms of the document are made when somebody first asks for them."""

    content: Mapping[str, Any]

    @cached_property
    def document(self) -> bytes:
        """As it is sent to programs."""
        return orjson.dumps(self.content)

    @cached_property
    def page(self) -> str:
        """As it is sent to people."""
        return docs_page(self.content)


@operation(answers={200: JSON})
async def show_document(request: Request) -> HTTPResponse:
    """GET /openapi.json: this document."""
    return raw(request.app.ctx.reference.document, content_type=JSON)


@operation(answers={200: HTML})
async def show_docs(request: Request) -> HTTPResponse:
    """GET /docs: this document as a page for people."""
    return html(request.app.ctx.reference.page, headers=PAGE_HEADERS)


@operation(answers={200: HTML})
async def show_errors(request: Request) -> HTTPResponse:
    """GET /docs/errors: every code of an error and what it means; `doc_url` of an error leads here."""
    return html(reference_page(), headers=PAGE_HEADERS)
