"""What the API reads of sending domains."""

from mailrail.addresses import parse_domain
from mailrail.web.fields import Fields

DOMAIN_MAX_CHARS = 253


def read_domain(fields: Fields) -> str:
    """`domain`, as it is stored: without a dot at the end, in lower case, international ones in ASCII."""
    name = fields.required_text("domain", DOMAIN_MAX_CHARS)
    return (fields.parsed("domain", parse_domain, name) if name else None) or ""
