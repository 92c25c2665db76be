"""/o and /c: what the links in a mail lead to. Public; the token says who it is."""

import base64
import time
from typing import TYPE_CHECKING

from sanic.response import HTTPResponse, empty

from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from mailrail.tracking import service
from mailrail.tracking.machines import machine_of
from mailrail.tracking.model import LinkNotFound, clicked, opened
from mailrail.web.context import Request
from mailrail.web.openapi import GIF, HTML, operation
from mailrail.web.reader_pages import missing

if TYPE_CHECKING:
    from mailrail._core import Codec

# A transparent GIF of one pixel, 43 bytes.
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
UNCACHED = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex"}


class Tracking:
    """The handlers, with what they share in a process. `start` belongs to the server's loop."""

    def __init__(self, codec: "Codec") -> None:
        self._codec = codec
        self._links: service.Links
        self._recorder: service.Recorder

    def start(self, pool: Pool) -> None:
        """Begins to write what is recorded."""
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
