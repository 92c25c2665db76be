"""/confirm: what the link in a confirmation mail leads to. Public; the token says who it is."""

from sanic.response import HTTPResponse

from mailrail.confirmations import pages, service
from mailrail.confirmations.model import Request as Asked
from mailrail.db.pool import transaction
from mailrail.web.context import Request
from mailrail.web.openapi import FORM, HTML, URLENCODED, operation
from mailrail.web.reader_pages import missing, shown


@operation(answers={200: HTML, 404: HTML, 410: HTML})
async def show(request: Request, token: str) -> HTTPResponse:
    """GET /confirm/:token: the page that asks for a yes. Scanners follow every link, so this changes nothing."""
    asked = _read(request, token)
    if asked is None:
        return missing()
    if asked.is_over:
        return shown(pages.over_page(), 410)
    async with transaction(request.app.ctx.pool, asked.account_id) as conn:
        words = await service.find_question(conn, asked)
    return shown(pages.over_page(), 410) if words is None else shown(pages.confirm_page(words))


@operation(answers={200: HTML, 400: HTML, 404: HTML, 410: HTML}, also_reads=(URLENCODED, FORM))
async def confirm(request: Request, token: str) -> HTTPResponse:
    """POST /confirm/:token: subscribes. By the button of the page."""
    asked = _read(request, token)
    if asked is None:
        return missing()
    if request.form is None or request.form.get("confirm") != "yes":
        return shown(pages.unclear_page(), 400)
    if asked.is_over:
        return shown(pages.over_page(), 410)
    async with transaction(request.app.ctx.pool, asked.account_id) as conn:
        words = await service.find_question(conn, asked)
        is_in = words is not None and await service.confirm(conn, asked, words, request.client_ip)
    return shown(pages.confirmed_page(words)) if words is not None and is_in else shown(pages.over_page(), 410)


def _read(request: Request, token: str) -> Asked | None:
    parts = request.app.ctx.codec.read_confirm_token(token)
    return None if parts is None else Asked(*parts)
