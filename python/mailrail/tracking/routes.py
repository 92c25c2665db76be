"""/o, /c and /u: what the links in a mail lead to. Public; the token says who it is."""

import base64
import time
from typing import TYPE_CHECKING, NamedTuple

from sanic.response import HTTPResponse, empty, html

from mailrail.contacts.consent import Consent
from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from mailrail.tracking import pages, service
from mailrail.tracking.machines import machine_of
from mailrail.tracking.model import LinkNotFound, Sender, Subscription, clicked, opened
from mailrail.web.context import Request
from mailrail.web.openapi import FORM, GIF, HTML, URLENCODED, operation

if TYPE_CHECKING:
    from mailrail._core import Codec

# A transparent GIF of one pixel, 43 bytes.
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
UNCACHED = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex"}


class Found(NamedTuple):
    """What an unsubscribe token leads to."""

    subscription: Subscription
    sender: Sender


class Tracking:
    """The handlers, with what they share in a process. `start` belongs to the server's loop."""

    def __init__(self, codec: "Codec") -> None:
        self._codec = codec
        self._pool: Pool
        self._links: service.Links
        self._recorder: service.Recorder

    def start(self, pool: Pool) -> None:
        """Begins to write what is recorded."""
        self._pool = pool
        self._links = service.Links(pool)
        self._recorder = service.Recorder(pool)

    async def stop(self) -> None:
        """Writes what waits."""
        await self._recorder.stop()

    @operation(answers={200: GIF, 404: None})
    async def open(self, request: Request, token: str) -> HTTPResponse:
        """GET /o/:token: the picture in a mail, which counts an open. HEAD is a program that looks, not a reader."""
        mail = self._codec.read_track_token(token)
        if mail is None:
            return empty(404, headers=UNCACHED)
        if request.method == "GET":
            self._recorder.add(opened(*mail, time.time(), machine_of(EventKind.OPEN, request.headers)))
        return HTTPResponse(PIXEL, headers=UNCACHED, content_type="image/gif")

    @operation(answers={302: None, 404: HTML})
    async def click(self, request: Request, token: str, link: str) -> HTTPResponse:
        """GET /c/:token/:n: a link in a mail. It goes on to the stored address, and to no other."""
        mail = self._codec.read_track_token(token)
        if mail is None or not (link.isascii() and link.isdigit() and len(link) <= 10):
            return missing()
        stream_id, seq = mail
        try:
            location = await self._links.target(stream_id, seq, int(link))
        except LinkNotFound:
            return missing()
        if request.method == "GET":
            machine = machine_of(EventKind.CLICK, request.headers)
            self._recorder.add(clicked(stream_id, seq, int(link), time.time(), machine))
        return empty(302, headers={**UNCACHED, "Location": location})

    @operation(answers={200: HTML, 404: HTML})
    async def show_unsubscribe(self, request: Request, token: str) -> HTTPResponse:
        """GET /u/:token: the page that asks whether to unsubscribe. Scanners follow every link, so this changes nothing."""
        found = await self._find(token)
        return missing() if found is None else html(pages.unsubscribe_page(found.sender), headers=pages.HEADERS)

    @operation(answers={200: HTML, 400: HTML, 404: HTML}, also_reads=(URLENCODED, FORM))
    async def unsubscribe(self, request: Request, token: str) -> HTTPResponse:
        """POST /u/:token: unsubscribes. By a mail program's one click (RFC 8058) or by the form of the page."""
        found = await self._find(token)
        if found is None:
            return missing()
        form = request.form
        one_click = form is not None and form.get("List-Unsubscribe") == "One-Click"
        scope = form.get("unsubscribe") if form else None
        if not one_click and scope not in ("list", "all"):
            return html(pages.unclear_page(), status=400, headers=pages.HEADERS)
        everything = scope == "all"
        wording = pages.ONE_CLICK if one_click else pages.wording(found.sender, everything=everything)
        said = Consent(ip=request.client_ip, wording=wording)
        await service.unsubscribe(self._pool, found.subscription, said, everything=everything)
        return html(pages.unsubscribed_page(found.sender, everything=everything), headers=pages.HEADERS)

    async def _find(self, token: str) -> Found | None:
        parts = self._codec.read_unsubscribe_token(token)
        if parts is None:
            return None
        account_id, contact_id, list_id, stream_id, seq = parts
        subscription = Subscription(account_id, contact_id, list_id or None, stream_id, seq)
        sender = await service.sender(self._pool, subscription)
        return None if sender is None else Found(subscription, sender)


def missing() -> HTTPResponse:
    """404 as a page, since people see it."""
    return html(pages.missing_page(), status=404, headers=pages.HEADERS)
