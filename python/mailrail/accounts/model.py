"""Facts of accounts and their keys."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mailrail.errors import MailrailError

# Test keys begin with this, all others with LIVE_PREFIX.
LIVE_PREFIX, TEST_PREFIX = "sk_live_", "sk_test_"


class Plan(StrEnum):
    """What an account may ask of the API per minute."""

    STARTER = "starter"
    PROFESSIONAL = "professional"
    ENTERPRISE = "enterprise"
    # Only an operator gives it.
    UNLIMITED = "unlimited"

    @property
    def requests_per_minute(self) -> int | None:
        """Requests that the API answers, over all processes; None without a limit."""
        return REQUESTS_PER_MINUTE[self]


REQUESTS_PER_MINUTE: dict[Plan, int | None] = {
    Plan.STARTER: 100,
    Plan.PROFESSIONAL: 500,
    Plan.ENTERPRISE: 2000,
    Plan.UNLIMITED: None,
}


class UnknownPolicy(StrEnum):
    """What happens to a recipient of whom nobody knows whether SES took the mail."""

    RESEND = "resend"
    NEVER_RESEND = "never_resend"


class Scope(StrEnum):
    """What a key may do. Every route names the one that it needs."""

    FULL = "full"
    # Not part of FULL: what the operator of the installation alone may do, such as adding money to a wallet.
    OPERATOR = "operator"
    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    WALLET_READ = "wallet:read"
    EMAILS_READ = "emails:read"
    EMAILS_SEND = "emails:send"
    TEMPLATES_READ = "templates:read"
    TEMPLATES_WRITE = "templates:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    CONTACTS_READ = "contacts:read"
    CONTACTS_WRITE = "contacts:write"
    CAMPAIGNS_READ = "campaigns:read"
    CAMPAIGNS_WRITE = "campaigns:write"
    CAMPAIGNS_SEND = "campaigns:send"
    DOMAINS_READ = "domains:read"
    DOMAINS_WRITE = "domains:write"
    STATS_READ = "stats:read"


@dataclass(frozen=True, slots=True)
class Tracking:
    """Whether it may be known that a mail was opened, and which links were followed."""

    opens: bool = True
    clicks: bool = True

    def __and__(self, other: "Tracking") -> "Tracking":
        """What both allow: whoever switches something off has the last word."""
        return Tracking(self.opens and other.opens, self.clicks and other.clicks)


TRACKED = Tracking()
UNTRACKED = Tracking(opens=False, clicks=False)


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant. `sender_*`, `postal_address` and `track_*` are the defaults of its mail."""

    id: int
    name: str
    plan: Plan
    price_micros: int
    sender_name: str | None
    sender_email: str | None
    postal_address: str | None
    track_opens: bool
    track_clicks: bool
    unknown_policy: UnknownPolicy
    created_at: datetime

    @property
    def tracking(self) -> Tracking:
        """What the account allows."""
        return Tracking(self.track_opens, self.track_clicks)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: its text is known to its owner alone."""

    id: int
    account_id: int
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def is_test(self) -> bool:
        """Whether mail of this key never reaches SES."""
        return self.prefix.startswith(TEST_PREFIX)


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A key to be made; without `scopes` it may do what its maker may."""

    name: str
    scopes: list[Scope] | None
    is_test: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the account and the key that came with it. Mail of a test key never reaches SES."""

    account: Account
    key_id: int
    scopes: frozenset[str]
    is_test: bool


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What proves a key that came with a request."""

    id: int
    account_id: int
    hash: bytes
    scopes: frozenset[str]


class AccountNotFound(MailrailError):
    """There is no such account."""

    code = "account_not_found"


class KeyNotFound(MailrailError):
    """There is no such key."""

    code = "key_not_found"


class KeyInUse(MailrailError):
    """This request came with that very key. Revoke it with another key, or with `?self=true`."""

    code = "key_in_use"


class KeyLimitReached(MailrailError):
    """The account has as many keys as it may. Revoke one that is not needed."""

    code = "key_limit_reached"


class ScopeTooWide(MailrailError):
    """A key makes only keys that may do no more than itself."""

    code = "scope_too_wide"
    param = "scopes"


class KeyMissing(MailrailError):
    """Send your API key as `Authorization: Bearer sk_live_…`."""

    code = "api_key_missing"


class KeyInvalid(MailrailError):
    """This API key is not valid: it was mistyped, revoked, or belongs to another installation."""

    code = "api_key_invalid"


class ScopeMissing(MailrailError):
    """This API key may not do that."""

    code = "scope_missing"
