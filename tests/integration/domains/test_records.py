"""Each record beside what a real name server says, with the mistakes that people make."""

import asyncio
import time
from collections.abc import Callable

import pytest

from mailrail.domains import records
from mailrail.domains.dns import Dns, Reply
from mailrail.domains.inspection import INSPECTION_TIMEOUT_S, inspect
from mailrail.domains.model import Purpose, Record, RecordStatus, Verdict
from mailrail.ses.control import DkimRecord, Identity
from tests.support.dns import Zone

KEY = "aaa._domainkey.acme.com"
TARGET = "aaa.dkim.amazonses.com"
IDENTITY = Identity("acme.com", True, "SUCCESS", (DkimRecord(KEY, TARGET),), "bounce.acme.com", "SUCCESS")
MX = "10 feedback-smtp.eu-west-1.amazonses.com."
SPF = "v=spf1 include:amazonses.com ~all"

Given = Callable[[Zone], None]


@pytest.fixture
def dns(zone: Zone) -> Dns:
    """Asks the test's own server."""
    return Dns([("127.0.0.1", zone.port)])


def publish_all(zone: Zone) -> None:
    """Everything as it should be."""
    zone.publish(KEY, "CNAME", f"{TARGET.upper()}.")
    zone.publish("bounce.acme.com", "MX", MX)
    zone.publish("bounce.acme.com", "TXT", SPF)
    zone.publish("amazonses.com", "TXT", "v=spf1 ip4:199.255.192.0/22 -all")
    zone.publish("acme.com", "TXT", "google-site-verification=x", SPF)
    zone.publish("_dmarc.acme.com", "TXT", "v=DMARC1; p=reject; rua=mailto:d@acme.com")


async def seen(dns: Dns, purpose: Purpose, kind: str | None = None) -> Record:
    """The one record of that purpose, after a look."""
    report = await inspect(dns, IDENTITY, "eu-west-1", "proof")
    (found,) = [one for one in report.records if one.purpose is purpose and kind in (None, one.type)]
    return found


async def test_what_is_published_as_asked_is_found(zone: Zone, dns: Dns) -> None:
    publish_all(zone)
    zone.publish("_mailrail.acme.com", "TXT", "mailrail-verification=another", "mailrail-verification=proof")
    report = await inspect(dns, IDENTITY, "eu-west-1", "proof")
    assert {(one.purpose, one.type): one.status for one in report.records} == dict.fromkeys(
        [
            (Purpose.OWNERSHIP, "TXT"),
            (Purpose.DKIM, "CNAME"),
            (Purpose.MAIL_FROM, "MX"),
            (Purpose.MAIL_FROM, "TXT"),
            (Purpose.SPF, "TXT"),
            (Purpose.DMARC, "TXT"),
        ],
        RecordStatus.FOUND,
    )
    assert [one.remedy for one in report.records] == [None] * 6
    assert report.alignment is not None
    assert (report.alignment.verdict, report.alignment.dkim, report.alignment.spf) == (Verdict.PASS, True, True)
    assert (report.alignment.policy, report.alignment.reasons) == ("reject", ())


async def test_what_is_not_there_is_missing_and_told_with_name_and_value(dns: Dns) -> None:
    report = await inspect(dns, IDENTITY, "eu-west-1", "proof")
    assert {one.status for one in report.records} == {RecordStatus.MISSING}
    for record in report.records:
        if record.purpose is Purpose.SPF:
            assert record.remedy is None  # mail from here does not need it
        else:
            assert record.remedy is not None
            assert record.name in record.remedy
            assert record.value in record.remedy
    assert report.alignment is not None
    assert (report.alignment.verdict, report.alignment.dkim) == (Verdict.NONE, False)


DKIM_MISTAKES: dict[str, tuple[Given, str]] = {
    "the name has the domain twice": (
        lambda zone: zone.publish(f"{KEY}.acme.com", "CNAME", f"{TARGET}."),
        "enter aaa._domainkey as its name",
    ),
    "the value has the domain at its end": (
        lambda zone: zone.publish(KEY, "CNAME", f"{TARGET}.acme.com."),
        f"write {TARGET} and a period",
    ),
    "TXT instead of CNAME": (lambda zone: zone.publish(KEY, "TXT", TARGET), "delete it, and publish a CNAME"),
    "behind a proxy": (lambda zone: zone.publish(KEY, "A", "104.16.0.1"), "switch the proxy off"),
    "another value": (
        lambda zone: zone.publish(KEY, "CNAME", "old.dkim.amazonses.com."),
        f"change its value to {TARGET}",
    ),
}


@pytest.mark.parametrize("mistake", DKIM_MISTAKES)
async def test_a_mistake_with_dkim_is_named(zone: Zone, dns: Dns, mistake: str) -> None:
    publish_all(zone)
    zone.withdraw(KEY, "CNAME")
    given, remedy = DKIM_MISTAKES[mistake]
    given(zone)
    record = await seen(dns, Purpose.DKIM)
    assert record.status is RecordStatus.DIFFERENT
    assert record.found
    assert remedy in (record.remedy or "")


async def test_a_cname_may_lead_there_by_another_one_and_never_in_circles(zone: Zone, dns: Dns) -> None:
    zone.publish(KEY, "CNAME", "keys.agency.example.")
    zone.publish("keys.agency.example", "CNAME", f"{TARGET}.")
    assert (await seen(dns, Purpose.DKIM)).status is RecordStatus.FOUND
    zone.publish("keys.agency.example", "CNAME", "keys.agency.example.")
    assert (await seen(dns, Purpose.DKIM)).status is RecordStatus.DIFFERENT


MAIL_FROM_MISTAKES: dict[str, tuple[str, list[str], str]] = {
    "a second MX": ("MX", [MX, "20 mail.acme.com."], "takes only one"),
    "the MX of another region": ("MX", ["10 feedback-smtp.us-east-1.amazonses.com."], "replace it by"),
    "two SPF records": ("TXT", [SPF, "v=spf1 -all"], "has 2 SPF records"),
    "SPF without Amazon": ("TXT", ["v=spf1 ip4:1.2.3.4 -all"], "add include:amazonses.com"),
    "a misspelt term": ("TXT", ["v=spf1 inlcude:amazonses.com ~all"], "'inlcude:amazonses.com'"),
    "too many lookups": (
        "TXT",
        ["v=spf1 include:amazonses.com " + " ".join(f"include:s{n}.example" for n in range(10)) + " ~all"],
        "more than 10 times",
    ),
}


@pytest.mark.parametrize("mistake", MAIL_FROM_MISTAKES)
async def test_a_mistake_with_mail_from_is_named(zone: Zone, dns: Dns, mistake: str) -> None:
    publish_all(zone)
    kind, values, remedy = MAIL_FROM_MISTAKES[mistake]
    zone.publish("bounce.acme.com", kind, *values)
    record = await seen(dns, Purpose.MAIL_FROM, kind)
    assert (record.status, len(record.found)) == (RecordStatus.DIFFERENT, len(values))
    assert remedy in (record.remedy or "")


async def test_lookups_count_what_includes_include_and_end(zone: Zone, dns: Dns) -> None:
    zone.publish("acme.com", "TXT", "v=spf1 include:a.example ~all")
    zone.publish("a.example", "TXT", "v=spf1 include:b.example mx ~all")
    zone.publish("b.example", "TXT", "v=spf1 a redirect=_spf.example")
    assert await records.count_lookups(dns, "v=spf1 include:a.example ~all") == 5
    zone.publish("b.example", "TXT", "v=spf1 include:a.example ~all")
    assert await records.count_lookups(dns, "v=spf1 include:a.example ~all") > 10


DMARC_MISTAKES = {
    "two records": (["v=DMARC1; p=none", "v=DMARC1; p=reject"], "has 2 DMARC records"),
    "no policy": (["v=DMARC1; rua=mailto:d@acme.com"], "add p=none"),
    "no such policy": (["v=DMARC1; p=block"], "p=block is no policy"),
    "reports to a bare address": (["v=DMARC1; p=none; rua=d@acme.com"], "must begin with mailto:"),
    "the version in small letters": (["v=dmarc1; p=none"], "in capitals"),
    "the policy later": (["v=DMARC1; rua=mailto:d@acme.com; p=none"], "right behind v=DMARC1"),
}


@pytest.mark.parametrize("mistake", DMARC_MISTAKES)
async def test_a_mistake_with_dmarc_is_named(zone: Zone, dns: Dns, mistake: str) -> None:
    values, remedy = DMARC_MISTAKES[mistake]
    zone.publish("_dmarc.acme.com", "TXT", *values)
    record = await seen(dns, Purpose.DMARC)
    assert record.status is RecordStatus.DIFFERENT
    assert remedy in (record.remedy or "")


async def test_a_record_above_holds_for_a_subdomain_and_strict_alignment_is_strict(zone: Zone, dns: Dns) -> None:
    publish_all(zone)
    zone.publish("_dmarc.acme.com", "TXT", "v=DMARC1; p=reject; sp=quarantine; adkim=s; aspf=s")
    below = await inspect(dns, IDENTITY, "eu-west-1", None, "news.acme.com")
    assert below.alignment is not None
    assert (below.alignment.verdict, below.alignment.policy) == (Verdict.FAIL, "quarantine")
    assert any("add news.acme.com as a domain of its own" in reason for reason in below.alignment.reasons)
    itself = await inspect(dns, IDENTITY, "eu-west-1", None)
    assert itself.alignment is not None
    assert (itself.alignment.verdict, itself.alignment.dkim, itself.alignment.spf) == (Verdict.PASS, True, False)
    zone.publish("_dmarc.acme.com", "TXT", "v=DMARC1; p=reject")
    relaxed = await inspect(dns, IDENTITY, "eu-west-1", None, "news.acme.com")
    assert relaxed.alignment is not None
    assert (relaxed.alignment.verdict, relaxed.alignment.dkim, relaxed.alignment.spf) == (Verdict.PASS, True, True)


async def test_silence_and_failure_are_unreachable_and_not_missing(zone: Zone, dns: Dns) -> None:
    publish_all(zone)
    zone.failing |= {KEY, "_dmarc.acme.com"}
    report = await inspect(dns, IDENTITY, "eu-west-1", None)
    unknown = {one.purpose for one in report.records if one.status is RecordStatus.UNREACHABLE}
    assert unknown == {Purpose.DKIM, Purpose.DMARC}
    assert report.alignment is None


async def test_silent_servers_take_a_look_no_longer_than_its_time(zone: Zone, dns: Dns) -> None:
    publish_all(zone)
    zone.silent |= {name for name, _ in zone.records}
    began = time.monotonic()
    report = await inspect(dns, IDENTITY, "eu-west-1", None)
    assert time.monotonic() - began < INSPECTION_TIMEOUT_S + 2
    assert {one.status for one in report.records} == {RecordStatus.UNREACHABLE}


async def test_questions_go_side_by_side(zone: Zone, dns: Dns) -> None:
    zone.silent |= {f"n{number}.example" for number in range(8)}
    began = time.monotonic()
    replies = await asyncio.gather(*(dns.ask(f"n{number}.example", "TXT") for number in range(8)))
    assert replies == [Reply(is_known=False)] * 8
    assert time.monotonic() - began < 6


async def test_an_answer_too_large_for_udp_comes_by_tcp(zone: Zone, dns: Dns) -> None:
    zone.publish("acme.com", "TXT", *("x" * 200 + str(number) for number in range(40)))
    zone.truncated.add("acme.com")
    reply = await dns.ask("acme.com", "TXT")
    assert reply.is_known
    assert len(reply.values) == 20
    assert zone.asked_by_tcp == [("acme.com", "TXT")]


@pytest.mark.parametrize(
    "name", ["a..b", "x" * 64 + ".com", ".".join(["x" * 60] * 5), "", "bad\\name.com", "é.com", "a b.com"]
)
async def test_names_that_cannot_exist_have_no_records(dns: Dns, name: str) -> None:
    assert (await dns.ask(name, "TXT")).values == ()
