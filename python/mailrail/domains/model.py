"""Facts of sending domains."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mailrail.errors import MailrailError
from mailrail.ids import Kind
from mailrail.ses.control import DnsRecord, Identity


class DomainStatus(StrEnum):
    """Whether SES lets the account send from the domain."""

    PENDING = "pending"
    VERIFIED = "verified"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as stored."""

    id: int
    account_id: int
    domain: str
    status: DomainStatus
    created_at: datetime
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class CheckedDomain:
    """A domain right after SES was asked, with what its owner has to publish."""

    domain: Domain
    records: tuple[DnsRecord, ...]


def status_of(identity: Identity) -> DomainStatus:
    """What SES's answer means for the domain. A temporary failure of DKIM is still pending: SES tries again itself."""
    if identity.verified:
        return DomainStatus.VERIFIED
    return DomainStatus.FAILED if identity.dkim_status == "FAILED" else DomainStatus.PENDING


class DomainNotFound(MailrailError):
    """There is no such domain."""

    code = "domain_not_found"


class DomainExists(MailrailError):
    """The account has this domain already."""

    code = "domain_exists"

    def __init__(self, domain_id: int) -> None:
        super().__init__()
        self.existing = (Kind.DOMAIN, domain_id)


class SenderNotVerified(MailrailError):
    """The sender's domain is not verified for this account. Add it with POST /api/v1/domains and verify it."""

    code = "sender_not_verified"
    param = "from"


class NoDefaultSender(MailrailError):
    """No sender is given and the account has none: give `from`, set the account's sender, or verify a domain."""

    code = "no_default_sender"
    param = "from"
