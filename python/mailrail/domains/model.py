"""Facts of sending domains."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mailrail.accounts.model import Tracking
from mailrail.addresses import DOMAIN_MAX_CHARS
from mailrail.errors import MailrailError
from mailrail.ids import Kind
from mailrail.ses.control import Identity


class DomainStatus(StrEnum):
    """Whether SES lets the account send from the domain."""

    PENDING = "pending"
    VERIFIED = "verified"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as stored. `mail_from` is what its owner wishes; `needs_proof` says that DKIM alone proves nothing."""

    id: int
    account_id: int
    domain: str
    status: DomainStatus
    created_at: datetime
    verified_at: datetime | None
    mail_from: str | None
    needs_proof: bool
    watched_since: datetime
    checked_at: datetime | None
    report: "Report | None"
    track_opens: bool = True
    track_clicks: bool = True

    @property
    def tracking(self) -> Tracking:
        """What may be known of mail from the domain."""
        return Tracking(self.track_opens, self.track_clicks)


@dataclass(frozen=True, slots=True)
class DomainChange:
    """What of a domain is to change. `mail_from` counts where `has_mail_from` says so, for None is Amazon's."""

    has_mail_from: bool
    mail_from: str | None
    track_opens: bool | None
    track_clicks: bool | None


class Purpose(StrEnum):
    """What a record is for."""

    OWNERSHIP = "ownership"
    DKIM = "dkim"
    MAIL_FROM = "mail_from"
    SPF = "spf"
    DMARC = "dmarc"


class RecordStatus(StrEnum):
    """What DNS says of a record; unreachable is what it did not say in time."""

    FOUND = "found"
    MISSING = "missing"
    DIFFERENT = "different"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Record:
    """A record that the owner of a domain has to publish, or had better. What DNS had instead is in `found`, what to do about it
    in `remedy`; without a status nobody has looked yet.
    """

    type: str
    name: str
    value: str
    purpose: Purpose
    required: bool
    status: RecordStatus | None = None
    found: tuple[str, ...] = ()
    remedy: str | None = None


class Verdict(StrEnum):
    """What DMARC makes of mail from the domain; none where no policy is published, so that nobody asks."""

    PASS = "pass"  # noqa: S105  no password
    FAIL = "fail"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Alignment:
    """Whether the domain of From is that of DKIM's signature, or of SPF's MAIL FROM."""

    verdict: Verdict
    dkim: bool
    spf: bool
    # What receivers are asked to do with mail that fails: none, quarantine, reject.
    policy: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A domain as it was last seen: SES's word, and that of DNS, record by record."""

    identity: Identity
    records: tuple[Record, ...]
    # None where DNS was not asked, or did not say enough.
    alignment: Alignment | None


class Severity(StrEnum):
    """How much a finding matters: an error stops mail, a warning costs some of it."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a sender that its owner should know; the sentence says what to do."""

    code: str
    severity: Severity
    sentence: str


@dataclass(frozen=True, slots=True)
class SenderCheck:
    """What DNS says of a sender: the domain of the account that covers it, when that was looked at, and what was found."""

    domain: str | None
    checked_at: datetime | None
    alignment: Alignment | None
    findings: tuple[Finding, ...]


# —— rules —————————————————————————————————————————————————————————————————————————————————————————————————————————————

# Where replies of servers to mail from `example.com` go unless its owner wishes otherwise. Nothing else may use the name: its
# only MX is Amazon's.
MAIL_FROM_LABEL = "bounce"

PAUSE_MIN = timedelta(minutes=1)
PAUSE_MAX = timedelta(hours=1)
PAUSE_SETTLED = timedelta(days=1)
# For so long SES itself looks for the records (Amazon SES, Verifying a DKIM domain identity).
WATCHED_FOR = timedelta(hours=72)


def status_of(identity: Identity, domain: Domain, *, is_proven: bool) -> DomainStatus:
    """What SES's answer means for the domain. A temporary failure of DKIM is still pending: SES tries again itself.

    Where the proof is needed, it is for becoming verified: who is, stays so for as long as SES says it.
    """
    if identity.verified:
        may_send = is_proven or not domain.needs_proof or domain.status is DomainStatus.VERIFIED
        return DomainStatus.VERIFIED if may_send else DomainStatus.PENDING
    return DomainStatus.FAILED if identity.dkim_status == "FAILED" else DomainStatus.PENDING


def may_configure(domain: Domain) -> bool:
    """Whether the account may change what SES does for the domain, which all accounts share that have it."""
    return domain.status is DomainStatus.VERIFIED or not domain.needs_proof


def pause_before_check(status: DomainStatus, watched: timedelta) -> timedelta:
    """When to look again: soon after the domain was added, then ever less often, once a day when SES has given up or is content."""
    if status is DomainStatus.PENDING and watched < WATCHED_FOR:
        return min(max(watched / 3, PAUSE_MIN), PAUSE_MAX)
    return PAUSE_SETTLED


def default_mail_from(domain: str) -> str | None:
    """None where the name would be too long."""
    name = f"{MAIL_FROM_LABEL}.{domain}"
    return name if len(name) <= DOMAIN_MAX_CHARS else None


# Why SES gave up (VerificationError of its API), for people.
_WHY_FAILED = {
    "DNS_SERVER_ERROR": "the name servers of the domain answered with an error",
    "HOST_NOT_FOUND": "DNS does not know the names of the DKIM records",
    "TYPE_NOT_FOUND": "at the names of the DKIM records there are no CNAME records",
    "INVALID_VALUE": "the DKIM records have other values than they should",
    "SERVICE_ERROR": "Amazon SES had an error of its own",
}


def reason_of(domain: Domain) -> str | None:
    """Why a domain is not verified, as far as that is known."""
    if domain.report is None or domain.status is DomainStatus.VERIFIED:
        return None
    identity = domain.report.identity
    if domain.status is DomainStatus.FAILED:
        why = _WHY_FAILED.get(identity.error or "", "the DKIM records were not there")
        return f"Amazon SES gave up after 72 hours: {why}. Correct the records, then verify the domain again."
    if identity.verified:
        return "Amazon SES knows the domain already; what is missing is the proof that it is yours."
    return "Amazon SES has not found the DKIM records yet."


def missing(domain: Domain) -> tuple[str, ...]:
    """What stands between the domain and mail that arrives, a sentence each."""
    records = domain.report.records if domain.report else ()
    remedies = tuple(record.remedy for record in records if record.remedy is not None)
    if domain.status is not DomainStatus.VERIFIED and any(record.status is None for record in records):
        return ("Publish the DNS records, then verify the domain; nobody has looked for them yet.", *remedies)
    return remedies


def is_proven(report: Report) -> bool:
    """Whether the record that proves the ownership was found."""
    return any(record.purpose is Purpose.OWNERSHIP and record.status is RecordStatus.FOUND for record in report.records)


def is_published(report: Report, purpose: Purpose) -> bool:
    """Whether DNS has all records of a purpose, of which there are some."""
    found = [record.status is RecordStatus.FOUND for record in report.records if record.purpose is purpose]
    return bool(found) and all(found)


class DomainNotFound(MailrailError):
    """There is no such domain."""

    code = "domain_not_found"


class DomainExists(MailrailError):
    """The account has this domain already."""

    code = "domain_exists"

    def __init__(self, domain_id: int) -> None:
        super().__init__()
        self.existing = (Kind.DOMAIN, domain_id)


class DomainNotProven(MailrailError):
    """The domain is known here already, so its settings change only once it is verified for this account. Publish the record
    whose purpose is `ownership`, then verify the domain.
    """

    code = "domain_not_proven"


class MailFromInvalid(MailrailError):
    """The MAIL FROM domain must be one below the domain itself, as bounce.example.com is below example.com."""

    code = "mail_from_invalid"
    param = "mailFrom"


class SenderNotVerified(MailrailError):
    """The sender's domain is not verified for this account. Add it with POST /api/v1/domains and verify it."""

    code = "sender_not_verified"
    param = "from"


class NoDefaultSender(MailrailError):
    """No sender is given and the account has none: give `from`, set the account's sender, or verify a domain."""

    code = "no_default_sender"
    param = "from"
