"""…/domains, and PATCH …/account."""

from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.accounts.form import read_changes
from mailrail.accounts.routes import AccountAnswer, shown_account
from mailrail.domains import service
from mailrail.domains.form import read_domain_change, read_new_domain
from mailrail.domains.model import (
    Alignment,
    Domain,
    DomainExists,
    DomainNotFound,
    DomainNotProven,
    MailFromInvalid,
    Record,
    SenderNotVerified,
    missing,
    reason_of,
)
from mailrail.ids import Ids, Kind
from mailrail.ses.control import ControlError, Identity
from mailrail.web.answers import DeletedAnswer, answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import Fields
from mailrail.web.openapi import operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none


class DomainAnswer(TypedDict):
    """A sending domain; `status` is pending, verified or failed. The two switches are for what may be known of its mail."""

    id: str
    domain: str
    status: str
    openTracking: bool
    clickTracking: bool
    createdAt: str
    verifiedAt: str | None


class DomainsAnswer(PageAnswer):
    """A page of sending domains."""

    domains: list[DomainAnswer]


class RecordAnswer(TypedDict):
    """A DNS record; `status` is found, missing, different or unreachable, and null until somebody has looked."""

    type: str
    name: str
    value: str
    purpose: str
    required: bool
    status: str | None
    found: list[str]
    remedy: str | None


class MailFromAnswer(TypedDict):
    """Whose name stands in MAIL FROM; `status` is what Amazon SES says of it: pending, success, failed or temporary_failure."""

    domain: str
    status: str


class AlignmentAnswer(TypedDict):
    """What DMARC makes of mail from the domain; `verdict` is pass, fail or none."""

    verdict: str
    dkim: bool
    spf: bool
    policy: str | None
    reasons: list[str]


class CheckedDomainAnswer(DomainAnswer):
    """A sending domain as it was last seen, with the DNS records that its owner has to publish, and what is missing."""

    dnsRecords: list[RecordAnswer]
    checkedAt: str | None
    statusReason: str | None
    missing: list[str]
    mailFrom: MailFromAnswer | None
    alignment: AlignmentAnswer | None


@operation(answers={201: CheckedDomainAnswer}, reads=read_new_domain, raises=(DomainExists, MailFromInvalid))
async def create(request: Request) -> HTTPResponse:
    """POST …/domains: adds a domain to send from. The answer has the DNS records that its owner has to publish."""
    ctx = request.app.ctx
    fields = Fields(read_object(request))
    domain, mail_from = read_new_domain(fields)
    fields.finish()
    added = await service.create(request.transaction, request.ctx.account.id, domain, mail_from, ctx.settings)
    return answer(_shown_checked(added, ctx.ids), 201)


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
    """POST …/domains/:id/verify: asks Amazon SES and DNS now whether the domain is verified, and what is missing. Without asking
    it is done again and again, first each minute, then less often.
    """
    ctx = request.app.ctx
    Fields(read_object(request)).finish()
    row_id = ctx.ids.find(Kind.DOMAIN, domain_id)
    checked = await service.verify(request.transaction, request.ctx.account.id, row_id, ctx.settings)
    return answer(_shown_checked(checked, ctx.ids))


@operation(
    answers={200: CheckedDomainAnswer},
    reads=read_domain_change,
    raises=(DomainNotFound, DomainNotProven, MailFromInvalid, ControlError),
)
async def change(request: Request, domain_id: str) -> HTTPResponse:
    """PATCH …/domains/:id: changes whose name stands in MAIL FROM (null is Amazon's), and whether opens and clicks of mail from
    the domain may be known. What was sent before stays as it is.
    """
    ctx = request.app.ctx
    row_id = ctx.ids.find(Kind.DOMAIN, domain_id)
    fields = Fields(read_object(request))
    changes = read_domain_change(fields)
    fields.finish()
    changed = await service.change(request.transaction, request.ctx.account.id, row_id, changes, ctx.settings)
    return answer(_shown_checked(changed, ctx.ids))


@operation(answers={200: CheckedDomainAnswer}, raises=(DomainNotFound,))
async def get(request: Request, domain_id: str) -> HTTPResponse:
    """GET …/domains/:id: one domain as it was last seen, with the DNS records that its owner has to publish. There are none until
    Amazon SES was asked.
    """
    ids = request.app.ctx.ids
    row_id = ids.find(Kind.DOMAIN, domain_id)
    async with request.transaction() as conn:
        domain = await service.get(conn, request.ctx.account.id, row_id)
    return answer(_shown_checked(domain, ids))


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
        "openTracking": domain.track_opens,
        "clickTracking": domain.track_clicks,
        "createdAt": shown_time(domain.created_at),
        "verifiedAt": shown_time_or_none(domain.verified_at),
    }


def _shown_checked(domain: Domain, ids: Ids) -> CheckedDomainAnswer:
    report = domain.report
    return {
        **_shown(domain, ids),
        "dnsRecords": [_shown_record(record) for record in report.records] if report else [],
        "checkedAt": shown_time_or_none(domain.checked_at),
        "statusReason": reason_of(domain),
        "missing": list(missing(domain)),
        "mailFrom": _shown_mail_from(report.identity) if report else None,
        "alignment": _shown_alignment(report.alignment) if report and report.alignment else None,
    }


def _shown_record(record: Record) -> RecordAnswer:
    return {
        "type": record.type,
        "name": record.name,
        "value": record.value,
        "purpose": record.purpose,
        "required": record.required,
        "status": record.status,
        "found": list(record.found),
        "remedy": record.remedy,
    }


def _shown_mail_from(identity: Identity) -> MailFromAnswer | None:
    if identity.mail_from is None:
        return None
    return {"domain": identity.mail_from, "status": (identity.mail_from_status or "PENDING").lower()}


def _shown_alignment(alignment: Alignment) -> AlignmentAnswer:
    return {
        "verdict": alignment.verdict,
        "dkim": alignment.dkim,
        "spf": alignment.spf,
        "policy": alignment.policy,
        "reasons": list(alignment.reasons),
    }


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
