"""…/domains, and PATCH …/account."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.accounts.form import read_changes
from mailrail.accounts.routes import AccountAnswer, shown_account
from mailrail.domains import service
from mailrail.domains.form import read_domain
from mailrail.domains.model import CheckedDomain, Domain, DomainExists, DomainNotFound, SenderNotVerified
from mailrail.ids import Ids, Kind
from mailrail.ses.control import ControlError
from mailrail.web.answers import DeletedAnswer, answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none


class DomainAnswer(TypedDict):
    """A sending domain; `status` is pending, verified or failed."""

    id: str
    domain: str
    status: str
    createdAt: str
    verifiedAt: str | None


class DomainsAnswer(PageAnswer):
    """A page of sending domains."""

    domains: list[DomainAnswer]


class RecordAnswer(TypedDict):
    """A DNS record."""

    type: str
    name: str
    value: str


class CheckedDomainAnswer(DomainAnswer):
    """A sending domain as Amazon SES sees it now, with the DNS records that its owner has to publish."""

    dnsRecords: list[RecordAnswer]


@operation(answers={201: CheckedDomainAnswer}, reads=read_domain, raises=(DomainExists,))
async def create(request: Request) -> HTTPResponse:
    """POST …/domains: adds a domain to send from. The answer has the DNS records that its owner has to publish."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    domain = read_domain(fields)
    fields.finish()
    checked = await service.create(request.transaction, request.ctx.account.id, domain, ctx.settings)
    return answer(_shown_checked(checked, ctx.ids), 201)


@operation(answers={200: DomainsAnswer}, query=PAGE_QUERY)
async def page(request: Request) -> HTTPResponse:
    """GET …/domains: sending domains, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.DOMAIN, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    return answer(page_answer("domains", [_shown(domain, ctx.ids) for domain in found], asked, total))


@operation(answers={200: CheckedDomainAnswer}, raises=(DomainNotFound, ControlError))
async def verify(request: Request, domain_id: str) -> HTTPResponse:
    """POST …/domains/:id/verify: asks Amazon SES now whether the domain is verified."""
    ctx = request.app.ctx
    Fields(read_object(request)).finish()
    row_id = ctx.ids.find(Kind.DOMAIN, domain_id)
    checked = await service.verify(request.transaction, request.ctx.account.id, row_id, ctx.settings)
    return answer(_shown_checked(checked, ctx.ids))


@operation(answers={200: CheckedDomainAnswer}, raises=(DomainNotFound,))
async def get(request: Request, domain_id: str) -> HTTPResponse:
    """GET …/domains/:id: one domain, with the DNS records that its owner has to publish. While Amazon SES does not answer
    there are none.
    """
    ctx = request.app.ctx
    row_id = ctx.ids.find(Kind.DOMAIN, domain_id)
    return answer(
        _shown_checked(await service.get(request.transaction, request.ctx.account.id, row_id, ctx.settings), ctx.ids)
    )


@operation(answers={200: DeletedAnswer}, raises=(DomainNotFound,))
async def delete(request: Request, domain_id: str) -> HTTPResponse:
    """DELETE …/domains/:id: takes the domain from the account, which can no longer send from it."""
    ids = request.app.ctx.ids
    row_id = ids.find(Kind.DOMAIN, domain_id)
    async with request.transaction() as conn:
        await service.delete(conn, request.ctx.account.id, row_id)
    return answer(DeletedAnswer(id=ids.encode(Kind.DOMAIN, row_id), deleted=True))


def _shown(domain: Domain, ids: Ids) -> DomainAnswer:
    return {
        "id": ids.encode(Kind.DOMAIN, domain.id),
        "domain": domain.domain,
        "status": domain.status,
        "createdAt": shown_time(domain.created_at),
        "verifiedAt": shown_time_or_none(domain.verified_at),
    }


def _shown_checked(checked: CheckedDomain, ids: Ids) -> CheckedDomainAnswer:
    records: list[RecordAnswer] = [
        {"type": record.type, "name": record.name, "value": record.value} for record in checked.records
    ]
    return {**_shown(checked.domain, ids), "dnsRecords": records}


# —— the account's settings; here because its default sender must be of a verified domain ——————————————————————————————


@operation(answers={200: AccountAnswer}, reads=read_changes, raises=(SenderNotVerified,))
async def change_account(request: Request) -> HTTPResponse:
    """PATCH …/account: changes the account's settings. Only what is given changes; null clears `senderName`, `senderEmail` and `postalAddress`."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    fields = Fields(read_object(request))
    changes = read_changes(fields)
    fields.finish()
    async with request.transaction() as conn:
        changed = await service.change_account(conn, account_id, changes)
    ctx.proven_keys.forget(account_id)
    return answer(shown_account(changed, ctx.settings, ctx.ids))
