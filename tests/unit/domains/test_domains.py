"""What SES's answers mean, and which domains cover a sender."""

import pytest

from mailrail.domains.model import DomainStatus, status_of
from mailrail.domains.service import covering_domains
from mailrail.ses.control import DnsRecord, read_identity


def test_a_verified_domain_covers_those_under_it() -> None:
    assert covering_domains("a.b.example.com") == ["a.b.example.com", "b.example.com", "example.com"]
    assert covering_domains("com") == []


@pytest.mark.parametrize(
    ("verified", "dkim", "status"),
    [
        (True, "SUCCESS", DomainStatus.VERIFIED),
        (True, "TEMPORARY_FAILURE", DomainStatus.VERIFIED),
        (False, "PENDING", DomainStatus.PENDING),
        (False, "NOT_STARTED", DomainStatus.PENDING),
        (False, "TEMPORARY_FAILURE", DomainStatus.PENDING),
        (False, "FAILED", DomainStatus.FAILED),
    ],
)
def test_each_state_of_an_identity(verified: bool, dkim: str, status: DomainStatus) -> None:
    answer = {"VerifiedForSendingStatus": verified, "DkimAttributes": {"Status": dkim}}
    assert status_of(read_identity("a.com", answer)) is status


def test_dns_records_follow_the_zone_that_ses_names() -> None:
    answer = {"DkimAttributes": {"Tokens": ["t1"], "SigningHostedZone": "dkim.eu-south-1.amazonses.com"}}
    assert read_identity("a.com", answer).records == (
        DnsRecord("CNAME", "t1._domainkey.a.com", "t1.dkim.eu-south-1.amazonses.com"),
    )
