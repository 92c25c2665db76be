"""/u: what the link to unsubscribe leads to, and where mail programs send their one click. Public; the token says who it is."""

from sanic.response import HTTPResponse

from mailrail.db.pool import transaction
from mailrail.preferences import form, pages, service
from mailrail.preferences.model import Link
from mailrail.web.context import Request
from mailrail.web.openapi import FORM, HTML, URLENCODED, operation
from mailrail.web.reader_pages import missing, shown


@operation(answers={200: HTML, 404: HTML})
async def show(request: Request, token: str) -> HTTPResponse:
    """GET /u/:token: the page that asks what the reader wants. Scanners follow every link, so this changes nothing."""
    link = _read(request, token)
    if link is None:
        return missing()
    async with transaction(request.app.ctx.pool, link.account_id) as conn:
        reader = await service.find(conn, link)
    return missing() if reader is None else shown(pages.asking_page(reader, request.app.ctx.ids))


@operation(answers={200: HTML, 400: HTML, 404: HTML}, also_reads=(URLENCODED, FORM))
async def change(request: Request, token: str) -> HTTPResponse:
    """POST /u/:token: takes the reader's word. By a mail program's one click (RFC 8058), or by the forms of the page."""
    link = _read(request, token)
    if link is None:
        return missing()
    ids, said = request.app.ctx.ids, request.form
    answer = None if said is None else form.read_answer({name: said.getlist(name) for name in said}, ids)
    if answer is None:
        return shown(pages.unclear_page(), 400)
    async with transaction(request.app.ctx.pool, link.account_id) as conn:
        reader = await service.find(conn, link, lock=True)
        if reader is None:
            return missing()
        changed = await service.take(conn, link, reader, answer, request.client_ip)
        after = await service.find(conn, link)
    return missing() if after is None else shown(pages.done_page(after, answer, changed, ids))


def _read(request: Request, token: str) -> Link | None:
    parts = request.app.ctx.codec.read_unsubscribe_token(token)
    if parts is None:
        return None
    account_id, contact_id, list_id, stream_id, seq = parts
    return Link(account_id, contact_id, list_id or None, stream_id, seq)
