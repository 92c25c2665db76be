"""What the API reads of sending domains."""

from mailrail.addresses import DOMAIN_MAX_CHARS, parse_domain
from mailrail.domains.model import DomainChange, default_mail_from
from mailrail.web.fields import Fields


def read_new_domain(fields: Fields) -> tuple[str, str | None]:
    """`domain` and `mailFrom`, which null leaves to Amazon."""
    domain = read_domain(fields)
    mail_from = fields.domain("mailFrom")
    return domain, mail_from if fields.has("mailFrom") or fields.is_null("mailFrom") else default_mail_from(domain)


def read_domain_change(fields: Fields) -> DomainChange:
    """`mailFrom`, which null leaves to Amazon, `openTracking` and `clickTracking`."""
    return DomainChange(
        mail_from=fields.domain("mailFrom"),
        has_mail_from=fields.is_null("mailFrom") or fields.has("mailFrom"),
        track_opens=fields.boolean("openTracking"),
        track_clicks=fields.boolean("clickTracking"),
    )


def read_domain(fields: Fields) -> str:
    """`domain`, as it is stored: without a dot at the end, in lower case, international ones in ASCII."""
    name = fields.required_text("domain", DOMAIN_MAX_CHARS)
    return (fields.parsed("domain", parse_domain, name) if name else None) or ""
