"""/api/v1/domains, and PATCH …/account."""

from typing import Any

from sanic.response import HTTPResponse

from mailrail.accounts.form import read_changes
from mailrail.accounts.routes import AccountAnswer, shown_account
from mailrail.addresses import parse_domain
from mailrail.domains import service
from mailrail.domains.model import CheckedDomain, Domain, SenderNotVerified
from mailrail.ids import Ids, Kind
from mailrail.web.answers import answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import operation
from mailrail.web.pages import page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none

DOMAIN_MAX_CHARS = 253


async def create(request: Request) -> HTTPResponse:
    """POST /api/v1/domains `{domain}`: 201 with the DNS records that its owner has to publish."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    name = fields.required_text("domain", DOMAIN_MAX_CHARS)
    domain = fields.parsed("domain", parse_domain, name) if name else None
    fields.finish()
    assert domain is not None
    checked = await service.create(request.transaction, request.ctx.account.id, domain, ctx.settings)
    return answer(_shown_checked(checked, ctx.ids), 201)


async def page(request: Request) -> HTTPResponse:
    """GET /api/v1/domains, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.DOMAIN, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    return answer(page_answer("domains", [_shown(domain, ctx.ids) for domain in found], asked, total))


async def verify(request: Request, domain_id: str) -> HTTPResponse:
    """POST /api/v1/domains/:id/verify: asks SES now."""
    ctx = request.app.ctx
    Fields(read_object(request)).finish()
    row_id = ctx.ids.find(Kind.DOMAIN, domain_id)
    checked = await service.verify(request.transaction, request.ctx.account.id, row_id, ctx.settings)
    return answer(_shown_checked(checked, ctx.ids))


def _shown(domain: Domain, ids: Ids) -> dict[str, Any]:
    return {
        "id": ids.encode(Kind.DOMAIN, domain.id),
        "domain": domain.domain,
        "status": domain.status,
        "createdAt": shown_time(domain.created_at),
        "verifiedAt": shown_time_or_none(domain.verified_at),
    }


def _shown_checked(checked: CheckedDomain, ids: Ids) -> dict[str, Any]:
    records = [{"type": record.type, "name": record.name, "value": record.value} for record in checked.records]
    return {**_shown(checked.domain, ids), "dnsRecords": records}


# —— the account's settings; here because its default sender must be of a verified domain ——————————————————————————————


@operation(answers={200: AccountAnswer}, reads=read_changes, raises=(SenderNotVerified,))
async def change_account(request: Request) -> HTTPResponse:
    """PATCH …/account: changes what is given; null clears `senderName`, `senderEmail` and `postalAddress`."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    fields = Fields(read_object(request))
    changes = read_changes(fields)
    fields.finish()
    async with request.transaction() as conn:
        changed = await service.change_account(conn, account_id, changes)
    ctx.proven_keys.forget(account_id)
    return answer(shown_account(changed, ctx.settings, ctx.ids))
