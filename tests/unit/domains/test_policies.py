"""SPF and DMARC records as they are read, and the walk up the tree."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrail.domains.dmarc import Dmarc, is_aligned, is_dmarc, organisation_of, parse_dmarc, policy_of, walk
from mailrail.domains.spf import Spf, is_spf, parse_spf

# What looks like a record and what does not, so that both sides of every branch are met.
TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(["v=spf1", "v=DMARC1", ";", "=", ":", "include", "a", "all", "p", "-", "rua", ",", " ", "%{i}"])
    ).map("".join),
)


@given(TEXTS)
@example("v=spf1 include:")
@example("v=DMARC1;=;p")
def test_readers_of_records_never_raise(text: str) -> None:
    spf, dmarc = parse_spf(text), parse_dmarc(text)
    assert spf.lookups >= len(spf.includes)
    assert is_spf(text) in (True, False)
    assert dmarc.policy in (None, "none", "quarantine", "reject")
    assert dmarc.mistakes or dmarc.is_valid
    assert not dmarc.is_valid or is_dmarc(text)


@pytest.mark.parametrize(
    ("text", "spf"),
    [
        ("v=spf1 include:amazonses.com ~all", Spf(("amazonses.com",), None, 1)),
        ("v=spf1 +a mx/24 a:x.example/24 ip4:1.2.3.4 ip6:2001:db8::/32 exists:%{i}.x ?all", Spf((), None, 4)),
        ("v=spf1 redirect=_spf.x.example", Spf((), "_spf.x.example", 1)),
        ("v=spf1 redirect=_spf.x.example -all", Spf()),
        ("v=spf1 include:A.Example. exp=e.example new=1 -all", Spf(("a.example",), None, 1)),
        ("v=spf1 include -all", Spf(unknown=("include",))),
        ("v=spf1 ipv4:1.2.3.4 all=", Spf(unknown=("ipv4:1.2.3.4",))),
    ],
)
def test_an_spf_record_is_read(text: str, spf: Spf) -> None:
    assert parse_spf(text) == spf


def test_names_that_depend_on_the_mail_are_not_followed() -> None:
    assert parse_spf("v=spf1 include:%{d}.x.example include:y.example").led_to == ("y.example",)


@pytest.mark.parametrize(("text", "expected"), [("v=spf1", True), ("V=SPF1 -all", True), ("v=spf10 -all", False)])
def test_only_the_first_version_is_spf(text: str, expected: bool) -> None:
    assert is_spf(text) is expected


@pytest.mark.parametrize(
    ("text", "dmarc"),
    [
        ("v=DMARC1; p=none", Dmarc("none")),
        (
            "v = DMARC1;p=Reject; sp=none ; adkim=s; aspf=S;rua=mailto:a@x.example, mailto:b@x.example;psd=n",
            Dmarc("reject", "none", True, True, ("mailto:a@x.example", "mailto:b@x.example"), "n"),
        ),
        ("v=DMARC1; p=none; sp=all", Dmarc("none")),
    ],
)
def test_a_dmarc_record_is_read(text: str, dmarc: Dmarc) -> None:
    assert parse_dmarc(text) == dmarc


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("v=DMARC1; rua=mailto:a@x.example", "none"),
        ("v=DMARC1", None),
        ("v=dmarc1; p=reject", None),
        ("p=reject; v=DMARC1", None),
        ("v=DMARC1; p=none; p=reject", "none"),
    ],
)
def test_a_mistake_is_told_and_leaves_what_receivers_make_of_it(text: str, policy: str | None) -> None:
    read = parse_dmarc(text)
    assert read.mistakes
    assert read.policy == policy


def test_a_walk_ends_at_the_top_and_never_takes_more_than_eight_steps() -> None:
    assert walk("a.mail.example.com") == ["a.mail.example.com", "mail.example.com", "example.com", "com"]
    deep = "a.b.c.d.e.f.g.h.i.j.mail.example.com"
    assert walk(deep)[:3] == [deep, "g.h.i.j.mail.example.com", "h.i.j.mail.example.com"]
    assert len(walk(deep)) == 8


NONE, NOT_PUBLIC, PUBLIC = Dmarc("none"), Dmarc("none", psd="n"), Dmarc("none", psd="y")


@pytest.mark.parametrize(
    ("domain", "records", "organisation"),
    [
        ("a.mail.example.com", {"mail.example.com": NONE, "example.com": NONE}, "example.com"),
        ("a.mail.example.com", {"mail.example.com": NOT_PUBLIC, "example.com": NONE}, "mail.example.com"),
        ("a.mail.example.com", {"com": PUBLIC}, "example.com"),
        ("a.example.co.uk", {"a.example.co.uk": NONE, "co.uk": PUBLIC}, "example.co.uk"),
        ("co.uk", {"co.uk": PUBLIC}, "co.uk"),
        ("a.example.com", {}, "a.example.com"),
    ],
)
def test_the_organisation_is_found_by_the_records_above(
    domain: str, records: dict[str, Dmarc], organisation: str
) -> None:
    assert organisation_of(domain, records) == organisation


def test_the_policy_is_the_domains_own_else_its_organisations() -> None:
    own = Dmarc("reject")
    assert policy_of("a.example.com", {"a.example.com": own, "example.com": NONE}) == ("a.example.com", own)
    assert policy_of("b.a.example.com", {"a.example.com": own, "example.com": NONE}) == ("example.com", NONE)
    assert policy_of("a.example.com", {}) is None


def test_alignment_is_of_organisations_or_strictly_of_names() -> None:
    records = {"example.com": NONE}
    assert is_aligned("news.example.com", "bounce.example.com", records, is_strict=False)
    assert not is_aligned("news.example.com", "bounce.example.com", records, is_strict=True)
    assert is_aligned("example.com", "example.com", {}, is_strict=True)
    assert not is_aligned("example.com", "amazonses.com", records, is_strict=False)
