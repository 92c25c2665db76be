"""The verbs of sending domains. SES and DNS may take seconds to answer, so they are asked outside of the transactions that are begun
here.
"""

import base64
import hmac
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mailrail.accounts import service as accounts
from mailrail.accounts.model import Account, Tracking
from mailrail.addresses import domain_of
from mailrail.config import Settings
from mailrail.db.pool import Begin, Connection
from mailrail.domains import store
from mailrail.domains.dns import Dns, asks_dns, open_dns
from mailrail.domains.inspection import findings, inspect
from mailrail.domains.model import (
    MAIL_FROM_LABEL,
    Domain,
    DomainChange,
    DomainExists,
    DomainNotProven,
    DomainStatus,
    Finding,
    MailFromInvalid,
    NoDefaultSender,
    Purpose,
    Report,
    SenderCheck,
    SenderNotVerified,
    Severity,
    is_proven,
    is_published,
    may_configure,
    pause_before_check,
    status_of,
)
from mailrail.ses import control

log = logging.getLogger(__name__)

# A sender is judged by a check that is no older.
CHECK_MAX_AGE = timedelta(hours=1)


async def create(begin: Begin, account_id: int, domain: str, mail_from: str | None, settings: Settings) -> Domain:
    """Adds a domain and asks SES about it at once; while SES is away it stays pending. Raises DomainExists, MailFromInvalid."""
    require_below(mail_from, domain)
    async with begin() as conn:
        added = await store.insert_domain(conn, account_id, domain, mail_from)
        if added is None:
            raise DomainExists((await store.read_domain_by_name(conn, account_id, domain)).id)
    try:
        # Nothing can have been published yet, so DNS is asked later.
        return await _check(begin, added, settings, dns=None, is_asked=True)
    except control.ControlError as error:
        log.warning("domains: a new domain stays pending (%s)", error)
        return added


async def verify(begin: Begin, account_id: int, domain_id: int, settings: Settings) -> Domain:
    """Looks at SES and DNS now, and tells SES of the domain first if need be. Raises DomainNotFound, ControlError."""
    async with begin() as conn:
        domain = await store.read_domain(conn, account_id, domain_id)
    return await _check(begin, domain, settings, open_dns(settings), is_asked=True)


async def watch(begin: Begin, domain: Domain, settings: Settings) -> Domain:
    """The same on the timer. Raises DomainNotFound, ControlError."""
    return await _check(begin, domain, settings, open_dns(settings), is_asked=False)


async def change(begin: Begin, account_id: int, domain_id: int, changes: DomainChange, settings: Settings) -> Domain:
    """Another MAIL FROM, and what may be known of mail from the domain: campaigns and mails go by it that are sent from now on.

    Raises DomainNotFound, DomainNotProven, MailFromInvalid, ControlError.
    """
    async with begin() as conn:
        domain = await store.set_tracking(conn, account_id, domain_id, changes.track_opens, changes.track_clicks)
        if changes.has_mail_from:
            require_below(changes.mail_from, domain.domain)
            if not may_configure(domain):
                raise DomainNotProven
    return await _change_mail_from(begin, domain, changes.mail_from, settings) if changes.has_mail_from else domain


async def tracking_of(conn: Connection, account_id: int, email: str) -> Tracking:
    """What may be known of mail from this address: the domain decides that signs for it."""
    domain = await store.read_covering(conn, account_id, covering_domains(domain_of(email)))
    return Tracking() if domain is None else domain.tracking


async def _change_mail_from(begin: Begin, domain: Domain, mail_from: str | None, settings: Settings) -> Domain:
    await _find_or_create_identity(settings, domain.domain)
    await control.set_mail_from(settings, domain.domain, mail_from)
    async with begin() as conn:
        changed = await store.set_mail_from(conn, domain.account_id, domain.id, mail_from)
    return await _check(begin, changed, settings, open_dns(settings), is_asked=True)


async def get(conn: Connection, account_id: int, domain_id: int) -> Domain:
    """A domain as it was last checked. Raises DomainNotFound."""
    return await store.read_domain(conn, account_id, domain_id)


async def delete(conn: Connection, account_id: int, domain_id: int) -> None:
    """Takes the domain from the account; Amazon SES goes on knowing it, since another account may send from it. Mail that was
    taken before still goes out; a scheduled campaign finds out when its time comes. Raises DomainNotFound.
    """
    await store.delete_domain(conn, account_id, domain_id)


async def page(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[Domain]:
    """Newest first."""
    return await store.read_page(conn, account_id, limit, offset, after_id)


async def count(conn: Connection, account_id: int) -> int:
    """How many domains the account has."""
    return await store.count_domains(conn, account_id)


async def require_verified_sender(conn: Connection, account_id: int, email: str) -> None:
    """Raises SenderNotVerified unless the account may send from this address."""
    if not await store.any_verified(conn, account_id, covering_domains(domain_of(email))):
        raise SenderNotVerified


async def default_sender(conn: Connection, account: Account) -> tuple[str | None, str]:
    """(name, address) of mail that names no sender: the account's setting, else hello@ its first verified domain.

    Raises NoDefaultSender, and SenderNotVerified if the setting's domain is not verified (any more).
    """
    if account.sender_email is not None:
        await require_verified_sender(conn, account.id, account.sender_email)
        return account.sender_name, account.sender_email
    domain = await store.first_verified(conn, account.id)
    if domain is None:
        raise NoDefaultSender
    return account.sender_name, f"hello@{domain}"


async def change_account(conn: Connection, account_id: int, changes: dict[str, str | bool | None]) -> Account:
    """Changes settings of the account, its default sender among them. Raises SenderNotVerified."""
    if isinstance(address := changes.get("sender_email"), str):
        await require_verified_sender(conn, account_id, address)
    return await accounts.change(conn, account_id, **changes)


async def check_sender(begin: Begin, account_id: int, from_email: str, settings: Settings) -> SenderCheck:
    """What receivers will make of mail from this address, by the last check of its domain, or by a new look at DNS where that is
    older than CHECK_MAX_AGE or of another name. Takes at most a few seconds and raises nothing of its own.
    """
    sender = domain_of(from_email)
    async with begin() as conn:
        domain = await store.read_covering(conn, account_id, covering_domains(sender))
    if domain is None:
        return SenderCheck(
            None, None, None, (Finding(SenderNotVerified.code, Severity.ERROR, str(SenderNotVerified())),)
        )
    dns = open_dns(settings)
    if dns is None or domain.report is None:
        why = (
            "Nobody has looked at the DNS of the domain yet." if dns else "With a stand-in for SES nobody looks at DNS."
        )
        finding = Finding("dns_not_asked", Severity.INFO, why)
        return SenderCheck(domain.domain, domain.checked_at, None, (finding,))
    report, checked_at = domain.report, domain.checked_at
    now = datetime.now(UTC)
    if sender != domain.domain or checked_at is None or now - checked_at > CHECK_MAX_AGE or report.alignment is None:
        report, checked_at = await inspect(dns, report.identity, settings.ses_region, None, sender), now
    return SenderCheck(domain.domain, checked_at, report.alignment, tuple(findings(report)))


def covering_domains(domain: str) -> list[str]:
    """The domain and those above it, the top level aside: SES lets a verified domain send from its subdomains."""
    labels = domain.split(".")
    return [".".join(labels[start:]) for start in range(len(labels) - 1)]


def require_below(mail_from: str | None, domain: str) -> None:
    """Raises MailFromInvalid."""
    if mail_from is not None and not mail_from.endswith(f".{domain}"):
        raise MailFromInvalid(f"mailFrom must be a name below {domain}, such as {MAIL_FROM_LABEL}.{domain}.")


def proof_of(secret_key: str, account_id: int, domain: str) -> str:
    """What an account publishes to show that a domain is its own; nobody can tell it beforehand, and it is always the same."""
    said = f"mailrail v1 domain {account_id} {domain}"
    return base64.b32encode(hmac.digest(secret_key.encode(), said.encode(), "sha256")[:20]).decode().lower()


async def _check(begin: Begin, domain: Domain, settings: Settings, dns: Dns | None, *, is_asked: bool) -> Domain:
    """SES's word and DNS's, outside of any transaction; then what follows from both is written down."""
    identity, is_new = await _find_or_create_identity(settings, domain.domain)
    if domain.report is None and not is_new and asks_dns(settings):
        async with begin() as conn:
            domain = await store.require_proof(conn, domain.account_id, domain.id)
    identity = await _tell_mail_from(settings, domain, identity)
    report = await inspect(dns, identity, settings.ses_region, _asked_proof(domain, settings))
    await _begin_again(settings, report)
    async with begin() as conn:
        # Somebody else may have added it meanwhile.
        now = await store.lock_domain(conn, domain.account_id, domain.id)
        status = status_of(identity, now, is_proven=is_proven(report) or not asks_dns(settings))
        watched = timedelta() if is_asked else datetime.now(UTC) - now.watched_since
        pause_s = pause_before_check(status, watched).total_seconds()
        return await store.note_check(conn, now.account_id, now.id, status, report, pause_s, is_asked=is_asked)


def _asked_proof(domain: Domain, settings: Settings) -> str | None:
    """None where none is needed: a stand-in for SES verifies what is nobody's."""
    if not domain.needs_proof or domain.status is DomainStatus.VERIFIED or not asks_dns(settings):
        return None
    return proof_of(settings.secret_key, domain.account_id, domain.domain)


async def _find_or_create_identity(settings: Settings, domain: str) -> tuple[control.Identity, bool]:
    """The identity, and whether SES did not know it before."""
    try:
        return await control.get_identity(settings, domain), False
    except control.IdentityUnknown:
        created = await control.create_identity(settings, domain)
        # One that is verified before anybody could publish anything is so by the domain above it, whosever that is.
        return created, not created.verified


async def _tell_mail_from(settings: Settings, domain: Domain, identity: control.Identity) -> control.Identity:
    """Tells SES whose name MAIL FROM has, where it has none yet; mail goes out without, too."""
    if domain.mail_from is None or identity.mail_from is not None or not may_configure(domain):
        return identity
    try:
        await control.set_mail_from(settings, domain.domain, domain.mail_from)
    except (control.ControlError, control.IdentityUnknown) as error:
        log.warning("domains: MAIL FROM of domain %d stays Amazon's (%s)", domain.id, error)
        return identity
    return replace(identity, mail_from=domain.mail_from, mail_from_status="PENDING")


async def _begin_again(settings: Settings, report: Report) -> None:
    """SES gives up after 72 hours; what was published later it sees only if it is asked to look again."""
    identity = report.identity
    try:
        if identity.dkim_status == "FAILED" and is_published(report, Purpose.DKIM):
            await control.look_again(settings, identity.name)
        if identity.mail_from_status == "FAILED" and is_published(report, Purpose.MAIL_FROM):
            await control.set_mail_from(settings, identity.name, identity.mail_from)
    except (control.ControlError, control.IdentityUnknown) as error:
        log.warning("domains: SES does not look again (%s)", error)
