"""Every error that a service may raise has a status, and codes are unique."""

from collections import Counter

import mailrail.app  # noqa: F401  loads every room
from mailrail.errors import MailrailError
from mailrail.web.errors import STATUS, domain_errors, reference_page

# Raised at the start of a process, by commands, or handled by the room itself: they never reach a request. Or our own
# fault, which ends as 500 and is logged.
NOT_OF_REQUESTS = {
    "aws_setup_incomplete",
    "aws_unavailable",
    "bus_down",
    "config_invalid",
    "no_tokens",
    "not_now",
    "probe_failed",
    "seal_broken",
    "ses_identity_unknown",
    "shard_unfoldable",
    "start_failed",
    "unreadable_message",
}


def test_every_domain_error_has_a_status() -> None:
    codes = {kind.code for kind in domain_errors(MailrailError) if kind.__module__.startswith("mailrail.")}
    assert codes - NOT_OF_REQUESTS == set(STATUS)


def test_a_code_means_one_thing() -> None:
    codes = Counter(kind.code for kind in domain_errors(MailrailError) if kind.__module__.startswith("mailrail."))
    assert [code for code, count in codes.items() if count > 1] == []


def test_every_error_says_something() -> None:
    page = reference_page()
    for code in STATUS:
        assert f'id="{code}"' in page
    assert "<td></td>" not in page
