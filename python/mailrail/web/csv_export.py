"""Exports as CSV that may be larger than memory, to clients that may be slow."""

import logging
from collections.abc import AsyncIterator
from typing import Any

from mailrail.db.pool import DATABASE_ERRORS
from mailrail.web.context import Request

log = logging.getLogger(__name__)


async def send_csv(request: Request, file_name: str, header: bytes, slices: AsyncIterator[bytes]) -> None:
    """Answers with the header and then each slice of lines. A slice begins its own transaction, so that no connection is held
    while a slow client reads. Where the database fails midway the connection is cut.
    """
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{file_name}"'}
    response = await request.respond(content_type="text/csv; charset=utf-8", headers=headers)
    await response.send(header)
    try:
        async for lines in slices:
            await response.send(lines)
    except DATABASE_ERRORS as error:
        log.warning("%s: an export broke off (%s)", request.ctx.request_id, type(error).__name__)
        # Sanic would end the answer in order, and half a list would look whole.
        transport: Any = request.transport
        transport.abort()
        return
    await response.eof()
