"""Email addresses and domain names as mailrail stores them. SES speaks no SMTPUTF8: a local part must be ASCII, a domain
outside ASCII travels as punycode.
"""

import re

from email_validator import EmailNotValidError, validate_email

from mailrail._core import check_address
from mailrail.errors import MailrailError

ADDRESS_MAX_CHARS = 254
DOMAIN_MAX_CHARS = 253
MAILBOX = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]+)>", re.DOTALL)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class AddressInvalid(MailrailError):
    """This is not an email address that mail can be sent to."""

    code = "email_invalid"


class DomainInvalid(MailrailError):
    """This is not a domain name that mail can be sent from."""

    code = "domain_invalid"


def parse_address(text: str) -> str:
    """The address with its local part as written and its domain in lower case and ASCII. Raises AddressInvalid."""
    # The core agrees with the library where it says yes, at a twentieth of the time; the library knows the reasons and all
    # international domains.
    stored, _ = check_address(text)
    if stored is not None:
        return stored
    if len(text) > ADDRESS_MAX_CHARS:
        raise AddressInvalid(f"An email address has at most {ADDRESS_MAX_CHARS} characters.")
    try:
        # test_environment admits the reserved top-level domain .test, which reaches nobody and serves try-outs.
        # `strict` adds the 64 characters that RFC 5321 allows before the @-sign.
        found = validate_email(
            text, check_deliverability=False, allow_smtputf8=False, test_environment=True, strict=True
        )
    except EmailNotValidError as error:
        raise AddressInvalid(str(error)) from error
    if "." not in found.ascii_domain:
        raise AddressInvalid("The part after the @-sign needs a period.")
    return f"{found.local_part}@{found.ascii_domain}"


def parse_mailbox(text: str) -> tuple[str | None, str]:
    """(name, address) of `Name <address>`, `"Name" <address>` or the address alone. Raises AddressInvalid."""
    match = MAILBOX.fullmatch(text.strip())
    if match is None:
        return None, parse_address(text)
    if CONTROL.search(match["name"]):
        raise AddressInvalid("A name must be one line without control characters.")
    name = match["name"].strip()
    if name.startswith('"') and name.endswith('"') and len(name) > 1:
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name or None, parse_address(match["address"])


def parse_domain(text: str) -> str:
    """The domain name in lower case and ASCII. Raises DomainInvalid."""
    try:
        return parse_address(f"hello@{text.removesuffix('.')}").partition("@")[2]
    except AddressInvalid as error:
        raise DomainInvalid(f"{text[:80]!r} is not a domain name that mail can be sent from.") from error


def domain_of(address: str) -> str:
    """The part after the @-sign, in lower case."""
    return address.rpartition("@")[2].lower()
