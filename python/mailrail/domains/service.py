"""The verbs of sending domains. SES may take seconds to answer, so it is asked outside of the transactions that are begun here."""

import logging

from mailrail.accounts import service as accounts
from mailrail.accounts.model import Account
from mailrail.addresses import domain_of
from mailrail.config import Settings
from mailrail.db.pool import Begin, Connection
from mailrail.domains import store
from mailrail.domains.model import (
    CheckedDomain,
    Domain,
    DomainExists,
    NoDefaultSender,
    SenderNotVerified,
    status_of,
)
from mailrail.ses import control

log = logging.getLogger(__name__)


async def create(begin: Begin, account_id: int, domain: str, settings: Settings) -> CheckedDomain:
    """Adds a domain and asks SES about it at once; while SES is away it stays pending. Raises DomainExists."""
    async with begin() as conn:
        added = await store.insert_domain(conn, account_id, domain)
        if added is None:
            raise DomainExists((await store.read_domain_by_name(conn, account_id, domain)).id)
    try:
        return await verify(begin, account_id, added.id, settings)
    except control.ControlError as error:
        log.warning("domains: a new domain stays pending (%s)", error)
        return CheckedDomain(added, ())


async def verify(begin: Begin, account_id: int, domain_id: int, settings: Settings) -> CheckedDomain:
    """Asks SES where the domain stands, and tells SES of it first if need be. Raises DomainNotFound, ControlError."""
    async with begin() as conn:
        domain = await store.read_domain(conn, account_id, domain_id)
    identity = await _find_or_create_identity(settings, domain.domain)
    async with begin() as conn:
        checked = await store.set_status(conn, account_id, domain_id, status_of(identity))
    return CheckedDomain(checked, identity.records)


async def get(begin: Begin, account_id: int, domain_id: int, settings: Settings) -> CheckedDomain:
    """A domain as it was last checked, and its records as far as SES tells them. Raises DomainNotFound."""
    async with begin() as conn:
        domain = await store.read_domain(conn, account_id, domain_id)
    try:
        return CheckedDomain(domain, (await control.get_identity(settings, domain.domain)).records)
    except (control.ControlError, control.IdentityUnknown) as error:
        log.warning("domains: no records to show (%s)", error.code)
        return CheckedDomain(domain, ())


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


def covering_domains(domain: str) -> list[str]:
    """The domain and those above it, the top level aside: SES lets a verified domain send from its subdomains."""
    labels = domain.split(".")
    return [".".join(labels[start:]) for start in range(len(labels) - 1)]


async def _find_or_create_identity(settings: Settings, domain: str) -> control.Identity:
    try:
        return await control.get_identity(settings, domain)
    except control.IdentityUnknown:
        return await control.create_identity(settings, domain)
