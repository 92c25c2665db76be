"""What SES's answers mean, when they are asked for, and which domains cover a sender."""

from datetime import UTC, datetime, timedelta

import pytest

from mailrail.domains.model import WATCHED_FOR, Domain, DomainStatus, may_configure, pause_before_check, status_of
from mailrail.domains.service import covering_domains, proof_of
from mailrail.ses.control import DkimRecord, read_identity

PENDING, VERIFIED, FAILED = DomainStatus


def domain(status: DomainStatus = PENDING, *, needs_proof: bool = False) -> Domain:
    """One as stored."""
    now = datetime.now(UTC)
    return Domain(1, 1, "a.com", status, now, None, None, needs_proof, now, None, None)


def test_a_verified_domain_covers_those_under_it() -> None:
    assert covering_domains("a.b.example.com") == ["a.b.example.com", "b.example.com", "example.com"]
    assert covering_domains("com") == []


@pytest.mark.parametrize(
    ("verified", "dkim", "status"),
    [
        (True, "SUCCESS", VERIFIED),
        (True, "TEMPORARY_FAILURE", VERIFIED),
        (False, "PENDING", PENDING),
        (False, "NOT_STARTED", PENDING),
        (False, "TEMPORARY_FAILURE", PENDING),
        (False, "FAILED", FAILED),
    ],
)
def test_each_state_of_an_identity(verified: bool, dkim: str, status: DomainStatus) -> None:
    answer = {"VerifiedForSendingStatus": verified, "DkimAttributes": {"Status": dkim}}
    assert status_of(read_identity("a.com", answer), domain(), is_proven=False) is status


@pytest.mark.parametrize("before", DomainStatus)
@pytest.mark.parametrize("is_proven", [True, False])
def test_the_proof_is_for_becoming_verified(before: DomainStatus, is_proven: bool) -> None:
    identity = read_identity("a.com", {"VerifiedForSendingStatus": True, "DkimAttributes": {"Status": "SUCCESS"}})
    now = domain(before, needs_proof=True)
    expected = VERIFIED if is_proven or before is VERIFIED else PENDING
    assert status_of(identity, now, is_proven=is_proven) is expected
    assert may_configure(now) is (before is VERIFIED)


def test_dns_records_follow_the_zone_that_ses_names() -> None:
    answer = {"DkimAttributes": {"Tokens": ["t1"], "SigningHostedZone": "dkim.eu-south-1.amazonses.com"}}
    assert read_identity("a.com", answer).dkim_records == (
        DkimRecord("t1._domainkey.a.com", "t1.dkim.eu-south-1.amazonses.com"),
    )


def test_a_key_of_the_operators_own_has_no_record_that_ses_could_tell() -> None:
    answer = {"DkimAttributes": {"Tokens": ["selector"], "SigningAttributesOrigin": "EXTERNAL"}}
    assert read_identity("a.com", answer).dkim_records == ()


def test_the_pauses_grow_from_a_minute_to_an_hour_and_end_at_a_day() -> None:
    watched, pauses = timedelta(), []
    while watched < WATCHED_FOR:
        pauses.append(pause_before_check(PENDING, watched))
        watched += pauses[-1]
    assert pauses[0] == timedelta(minutes=1)
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(hours=1)
    assert len(pauses) < 100
    assert pause_before_check(PENDING, watched) == timedelta(days=1)
    assert {pause_before_check(status, timedelta()) for status in (VERIFIED, FAILED)} == {timedelta(days=1)}


def test_a_proof_is_of_one_account_and_one_domain() -> None:
    proofs = {
        proof_of(key, account, name)
        for key in ("k" * 32, "l" * 32)
        for account in (1, 2)
        for name in ("a.com", "b.com")
    }
    assert len(proofs) == 8
    assert proof_of("k" * 32, 1, "a.com") == proof_of("k" * 32, 1, "a.com")
