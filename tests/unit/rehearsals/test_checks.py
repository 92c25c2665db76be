"""The judges of a pre-flight that no campaign of the integration tests comes before."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from mailrail.campaigns.audience import Gap
from mailrail.campaigns.model import EmptyAudience, Rendered
from mailrail.domains.model import Alignment, Finding, SenderCheck, Severity, Verdict
from mailrail.emails.model import SendingHeld
from mailrail.rehearsals import checks, links
from mailrail.rehearsals.links import Trouble
from mailrail.rehearsals.model import HTML_SHOWN_MAX_BYTES, Check, Size
from mailrail.ses.model import UNPOLLED, Limits
from mailrail.wallet.model import InsufficientFunds, WalletFrozen

LIMITS = Limits(polled=True, enabled=True, rate=14, tokens=7, day_left=50_000, day_quota=50_000)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAIL = Rendered("Hi", "<p>Hi <a href='https://m.example/u/x'>leave</a></p>", "Hi")


def told(check: Check) -> tuple[str, str]:
    return check.code, check.standing.value


def test_refusals_of_one_check_are_one_check_in_the_words_of_the_first() -> None:
    found = checks.judge_refusals([WalletFrozen(), InsufficientFunds(), EmptyAudience(), SendingHeld("Held. Do this.")])
    assert {code: check.message for code, check in found.items()} == {
        "wallet": str(WalletFrozen()),
        "audience": str(EmptyAudience()),
        "sending": "Held. Do this.",
    }
    assert [one.code for one in found["wallet"].details] == ["wallet_frozen", "insufficient_funds"]


def test_a_refusal_that_nobody_sorted_fails_all_the_same() -> None:
    class Unheard(InsufficientFunds):
        """It is so."""

        code = "unheard_of"

    (check,) = checks.judge_refusals([Unheard()]).values()
    assert told(check) == ("sending", "fail")
    assert check.message == "It is so."


@pytest.mark.parametrize(
    ("severities", "standing"),
    [([], "pass"), ([Severity.INFO], "pass"), ([Severity.INFO, Severity.WARNING], "warn"), ([Severity.ERROR], "warn")],
)
def test_what_dns_says_warns_and_never_fails(severities: list[Severity], standing: str) -> None:
    """A launch does not ask DNS, so it is not refused for it either."""
    findings = tuple(Finding(f"code_{one}", one, f"Sentence of {one}.") for one in severities)
    alignment = Alignment(Verdict.PASS, dkim=True, spf=True, policy="none", reasons=())
    check = checks.judge_alignment(SenderCheck("acme.com", NOW, alignment, findings))
    assert check.standing == standing
    assert len(check.details) == len(severities)
    if standing == "warn":
        assert check.message == next(one.sentence for one in findings if one.severity is not Severity.INFO)
        assert check.remedy


def test_gaps_are_counted_unless_the_name_is_unknown_anyway() -> None:
    gaps = {"city": Gap(2, (1, 2)), "plan": Gap(), "fristName": Gap(9, (3,))}
    check = checks.judge_variables(["fristName"], gaps, 9, [MAIL], {"firstName", "city", "plan"})
    assert [(one.code, one.variable, one.contacts) for one in check.details] == [
        ("unknown", "fristName", 9),
        ("missing", "city", 2),
    ]
    assert told(checks.judge_variables([], {"plan": Gap()}, 9, [MAIL], set())) == ("variables", "pass")
    assert told(checks.judge_variables([], None, 9, [MAIL], set())) == ("variables", "warn")


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [
        ("Hi {firstName}", True),
        ("Hi {{ firstName }}", True),
        ("Hi *|FNAME|*", True),
        ("Hi %%first_name%%", True),
        ("Hi [[name]]", True),
        ("{% if x %}", True),
        ("100 % off {today only} [1] ${5} a {b c}", False),
    ],
)
def test_variables_of_other_senders_are_seen(text: str, is_foreign: bool) -> None:
    check = checks.judge_variables([], {}, 1, [Rendered("Hi", "<p>", text)], set())
    assert (check.standing == "warn") is is_foreign


@pytest.mark.parametrize(
    ("html", "largest", "standing"),
    [
        (1, HTML_SHOWN_MAX_BYTES, "pass"),
        (1, HTML_SHOWN_MAX_BYTES + 1, "warn"),
        (HTML_SHOWN_MAX_BYTES + 1, HTML_SHOWN_MAX_BYTES + 1, "warn"),
    ],
)
def test_size_against_what_gmail_shows(html: int, largest: int, standing: str) -> None:
    check = checks.judge_size(Size(html, 1, html + 1, largest))
    assert check.standing == standing
    assert ("some recipients" in check.message) is (html < largest and standing == "warn")


def test_the_mail_in_the_middle_stands_for_the_others() -> None:
    mails = [Rendered("s", "é" * n, "text") for n in (5, 1, 30)]
    assert checks.measure_size(mails) == Size(10, 4, 15, 60)
    assert checks.measure_size([]) is None


@pytest.mark.parametrize(
    ("url", "mails", "standing"),
    [
        ("https://m.example", [MAIL], "pass"),
        ("http://m.example", [MAIL], "warn"),
        ("https://m.example", [MAIL, Rendered("Hi", "<p>Hi</p>", "Hi")], "warn"),
    ],
)
def test_a_way_to_unsubscribe(url: str, mails: list[Rendered], standing: str) -> None:
    assert checks.judge_unsubscribe(mails, url).standing == standing


@pytest.mark.parametrize(
    ("seconds", "limits", "standing", "words"),
    [
        (0.2, LIMITS, "pass", "takes a second at"),
        (5.0, LIMITS, "pass", "5 seconds"),
        (90.0, LIMITS, "pass", "2 minutes"),
        (9_000.0, LIMITS, "pass", "2.5 hours"),
        (200_000.0, LIMITS, "warn", "3 days"),
        (math.inf, LIMITS, "warn", "does not let"),
        (math.inf, UNPOLLED, "warn", "not told its figures"),
    ],
)
def test_how_long_it_takes(seconds: float, limits: Limits, standing: str, words: str) -> None:
    check = checks.judge_sending(seconds, limits)
    assert check.standing == standing
    assert words in check.message


def test_a_time_that_has_passed_warns() -> None:
    assert checks.judge_schedule(None, NOW).standing == "pass"
    assert checks.judge_schedule(NOW + timedelta(hours=1), NOW).standing == "pass"
    assert checks.judge_schedule(NOW - timedelta(hours=1), NOW).standing == "warn"


def test_links_that_were_not_seen_warn_and_notes_do_not() -> None:
    def judged(*troubles: Trouble) -> str:
        return checks.judge_links([links.Finding("u", one, "m") for one in troubles], 3, is_visited=True).standing.value

    assert judged() == "pass"
    assert judged(Trouble.DYNAMIC, Trouble.MOVED, Trouble.UNCLEAR) == "pass"
    assert judged(Trouble.NOT_VISITED) == "warn"
    assert judged(Trouble.INSECURE) == "warn"


def test_of_very_many_findings_the_worst_are_told() -> None:
    found = [links.Finding(f"u{n}", Trouble.DYNAMIC, "m") for n in range(500)] + [links.Finding("d", Trouble.DEAD, "m")]
    check = checks.judge_links(found, 501, is_visited=True)
    assert (len(check.details), check.details[0].url) == (checks.DETAILS_MAX, "d")
