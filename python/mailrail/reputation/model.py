"""Facts of a tenant's reputation, and the rule that judges it.

Amazon SES reviews an account from 5 % bounces or 0.1 % complaints on, and may stop all of its mail from 10 % or 0.5 % on. Its
account is shared by all tenants here, so a tenant has to be stopped sooner.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mailrail.config import Settings
from mailrail.errors import MailrailError

# The last 24 hours are judged; where they have less mail than this, as many hours before them as it takes, up to 30 days.
REPRESENTATIVE_MAILS = 10_000
WINDOW_HOURS = 24
WINDOW_MAX_DAYS = 30
# One angry reader of a few hundred is no rate.
COMPLAINTS_MIN = 3
# The part of what stops campaigns from which on there is a warning.
WARNING_SHARE = 0.75
# Where Amazon SES stops all mail, in percent.
SES_BOUNCE_PERCENT = 10
SES_COMPLAINT_PERCENT = 0.5


class Level(StrEnum):
    """How a tenant stands, from good to bad."""

    GOOD = "good"
    WARNING = "warning"
    # Campaigns pause and none starts; transactional mail goes on.
    CAMPAIGNS_STOPPED = "campaigns_stopped"
    MAIL_STOPPED = "mail_stopped"

    @property
    def stops_campaigns(self) -> bool:
        """Whether no campaign may be sent."""
        return self in (Level.CAMPAIGNS_STOPPED, Level.MAIL_STOPPED)


@dataclass(frozen=True, slots=True)
class Tally:
    """What is new of an account's mail: mails by what SES told of them."""

    account_id: int
    delivered: int
    bounced: int
    soft_bounced: int
    complained: int

    @property
    def is_trouble(self) -> bool:
        """Whether it can make anything worse."""
        return self.bounced > 0 or self.complained > 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What is judged: mails with a last word from SES, those of them that bounced for good, and those that were called spam.
    `since` is the beginning of the time that they cover.
    """

    mails: int = 0
    bounced: int = 0
    complained: int = 0
    since: datetime | None = None

    @property
    def bounce_percent(self) -> float:
        """Of a hundred mails."""
        return 100 * self.bounced / self.mails if self.mails else 0.0

    @property
    def complaint_percent(self) -> float:
        """Of a hundred mails."""
        return 100 * self.complained / self.mails if self.mails else 0.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which rates on a level is reached, in percent."""

    level: Level
    bounce_percent: float
    complaint_percent: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an account stands; the reason is for its owner, and None where all is well."""

    level: Level
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reputation:
    """An account's verdict as it holds, and the figures of now."""

    verdict: Verdict
    figures: Figures


def thresholds(settings: Settings) -> list[Threshold]:
    """Worst first."""
    bounce, complaint = settings.bounce_percent_max, settings.complaint_percent_max
    return [
        Threshold(Level.MAIL_STOPPED, settings.mail_bounce_percent_max, settings.mail_complaint_percent_max),
        Threshold(Level.CAMPAIGNS_STOPPED, bounce, complaint),
        Threshold(Level.WARNING, bounce * WARNING_SHARE, complaint * WARNING_SHARE),
    ]


def judge(figures: Figures, settings: Settings) -> Verdict:
    """The worst level whose threshold the figures reach; few mails are not judged at all."""
    if figures.mails < settings.reputation_mails_min:
        return Verdict(Level.GOOD)
    for threshold in thresholds(settings):
        if figures.bounced and figures.bounce_percent >= threshold.bounce_percent:
            return Verdict(threshold.level, _bounce_reason(figures, threshold))
        if figures.complained >= COMPLAINTS_MIN and figures.complaint_percent >= threshold.complaint_percent:
            return Verdict(threshold.level, _complaint_reason(figures, threshold))
    return Verdict(Level.GOOD)


def _bounce_reason(figures: Figures, threshold: Threshold) -> str:
    return (
        f"{figures.bounced:,} of the last {figures.mails:,} mails bounced for good ({figures.bounce_percent:.2g} %). "
        f"{_CONSEQUENCE[threshold.level].format(percent=threshold.bounce_percent, ses=SES_BOUNCE_PERCENT)} "
        f"Write only to addresses whose owners confirmed them, and remove those that did not get mail for long.{_WAY_OUT[threshold.level]}"
    )


def _complaint_reason(figures: Figures, threshold: Threshold) -> str:
    return (
        f"{figures.complained:,} of the last {figures.mails:,} mails were called spam ({figures.complaint_percent:.2g} %). "
        f"{_CONSEQUENCE[threshold.level].format(percent=threshold.complaint_percent, ses=SES_COMPLAINT_PERCENT)} "
        f"Write only to people who asked for your mail, and make unsubscribing easy.{_WAY_OUT[threshold.level]}"
    )


_CONSEQUENCE = {
    Level.WARNING: "From {percent:g} % on you are warned: Amazon SES stops all mail at {ses:g} %, and campaigns are stopped before.",
    Level.CAMPAIGNS_STOPPED: "From {percent:g} % on campaigns are stopped, because Amazon SES stops all mail at {ses:g} %.",
    Level.MAIL_STOPPED: "From {percent:g} % on all mail is stopped, because Amazon SES stops the mail of everybody here at {ses:g} %.",
}
_ENDS = (
    " This ends by itself once the rate has fallen, or by your operator (`mailrail reputation release`); "
    "campaigns that were paused then go on by POST …/resume."
)
_WAY_OUT = {Level.WARNING: "", Level.CAMPAIGNS_STOPPED: _ENDS, Level.MAIL_STOPPED: _ENDS}


class ReputationStopped(MailrailError):
    """Too much of this account's mail bounces or is called spam, so no more is taken; GET …/account/reputation tells."""

    code = "reputation_stopped"
