"""What the API reads of sending domains."""

from mailrail.addresses import parse_domain
from mailrail.domains.model import DOMAIN_MAX_CHARS, default_mail_from
from mailrail.web.fields import Fields


def read_new_domain(fields: Fields) -> tuple[str, str | None]:
    """`domain` and `mailFrom`, which null leaves to Amazon."""
    domain = read_domain(fields)
    mail_from = read_mail_from(fields)
    return domain, mail_from if fields.has("mailFrom") or fields.is_null("mailFrom") else default_mail_from(domain)


def read_mail_from(fields: Fields) -> str | None:
    """`mailFrom`, as it is stored."""
    name = fields.text("mailFrom", DOMAIN_MAX_CHARS)
    return None if name is None else fields.parsed("mailFrom", parse_domain, name)


def read_domain_change(fields: Fields) -> str | None:
    """`mailFrom`, which must be there; null is Amazon's."""
    mail_from = read_mail_from(fields)
    if not fields.is_null("mailFrom") and not fields.has("mailFrom"):
        fields.error("mailFrom", "field_missing", "mailFrom is required; null leaves it to Amazon.")
    return mail_from


def read_domain(fields: Fields) -> str:
    """`domain`, as it is stored: without a dot at the end, in lower case, international ones in ASCII."""
    name = fields.required_text("domain", DOMAIN_MAX_CHARS)
    return (fields.parsed("domain", parse_domain, name) if name else None) or ""
