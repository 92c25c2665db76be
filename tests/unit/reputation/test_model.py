"""What the figures of a tenant amount to."""

import pytest

from mailrail.config import Settings
from mailrail.reputation.model import (
    SES_BOUNCE_PERCENT,
    SES_COMPLAINT_PERCENT,
    Figures,
    Level,
    Verdict,
    judge,
    thresholds,
)

SETTINGS = Settings()


@pytest.mark.parametrize(
    ("mails", "bounced", "complained", "level"),
    [
        (0, 0, 0, Level.GOOD),
        (499, 499, 499, Level.GOOD),  # too few to tell
        (500, 14, 0, Level.GOOD),
        (500, 15, 0, Level.WARNING),
        (500, 19, 0, Level.WARNING),
        (500, 20, 0, Level.CAMPAIGNS_STOPPED),
        (500, 40, 0, Level.MAIL_STOPPED),
        (500, 0, 2, Level.GOOD),  # two angry readers are no rate
        (500, 0, 3, Level.MAIL_STOPPED),
        (10_000, 0, 5, Level.GOOD),
        (10_000, 0, 6, Level.WARNING),
        (10_000, 0, 8, Level.CAMPAIGNS_STOPPED),
        (10_000, 0, 40, Level.MAIL_STOPPED),
        # The worse of the two counts.
        (10_000, 300, 8, Level.CAMPAIGNS_STOPPED),
        (10_000, 800, 6, Level.MAIL_STOPPED),
    ],
)
def test_levels(mails: int, bounced: int, complained: int, level: Level) -> None:
    verdict = judge(Figures(mails, bounced, complained), SETTINGS)
    assert verdict.level is level
    assert (verdict.reason is None) is (level is Level.GOOD)


def test_a_tenant_is_stopped_before_amazon_stops_everybody() -> None:
    worst_first = thresholds(SETTINGS)
    assert worst_first[0].bounce_percent < SES_BOUNCE_PERCENT
    assert worst_first[0].complaint_percent < SES_COMPLAINT_PERCENT
    bounces = [one.bounce_percent for one in worst_first]
    assert bounces == sorted(bounces, reverse=True)


def test_the_reason_has_the_figures_the_threshold_and_what_to_do() -> None:
    assert judge(Figures(1200, 51), SETTINGS) == Verdict(
        Level.CAMPAIGNS_STOPPED,
        "51 of the last 1,200 mails bounced for good (4.2 %). From 4 % on campaigns are stopped, because Amazon SES stops "
        "all mail at 10 %. Write only to addresses whose owners confirmed them, and remove those that did not get mail for "
        "long. This ends by itself once the rate has fallen, or by your operator (`mailrail reputation release`); campaigns "
        "that were paused then go on by POST …/resume.",
    )
    warned = judge(Figures(10_000, 0, 6), SETTINGS).reason
    assert warned is not None
    assert warned.startswith("6 of the last 10,000 mails were called spam (0.06 %). From 0.06 % on you are warned")
