"""The pace of sending as figures and rules: one token bucket per AWS account and region, one token a recipient."""

import math
from dataclasses import dataclass

# A campaign's round takes at most so many seconds' worth of tokens, so that those who ask later wait no longer.
SLICE_S = 0.25
# The bucket's depth in seconds. SES's own bucket seems to hold a second's worth: the rest is for mail that arrives late.
BURST_S = 0.5
# What SES's throttling leaves of the rate, at most once in THROTTLE_PAUSE_S, and what returns of the full rate a second.
DECREASE = 0.7
RECOVERY_PER_S = 0.05
THROTTLE_PAUSE_S = 1.0
# What campaigns leave of the daily quota to mail that may not wait: a share, and at least so many recipients.
RESERVE_SHARE = 0.01
RESERVE_MIN = 100
# Transactional mail that would queue up for longer is told so instead.
DEBT_MAX_S = 10.0

PAUSE_MIN_S = 0.005
PAUSE_MAX_S = 1.0
# How soon someone looks again while nothing is granted at all: before the first figures, and later.
UNPOLLED_PAUSE_S = 0.2
CLOSED_PAUSE_S = 5.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be sent just now; all in recipients and seconds."""

    # Whether SES ever told its figures, and whether it lets the account send.
    polled: bool
    enabled: bool
    # The rate after throttling took its part, and how many tokens there are; below zero, the debt.
    rate: float
    tokens: float
    # What the rolling day leaves to all mail, infinity without a quota, and how much of that is kept from campaigns.
    day_left: float
    day_quota: float

    @property
    def reserve(self) -> float:
        """What campaigns leave of the daily quota."""
        return 0.0 if math.isinf(self.day_quota) else max(self.day_quota * RESERVE_SHARE, float(RESERVE_MIN))

    @property
    def is_open(self) -> bool:
        """Whether campaigns may send at all, however slowly."""
        return self.polled and self.enabled and self.rate > 0 and self.day_left - self.reserve >= 1

    def pause_s(self, wanted: int) -> float:
        """How long to wait before `wanted` tokens may be there, or before looking again whether campaigns may send."""
        if not self.is_open:
            return CLOSED_PAUSE_S if self.polled else UNPOLLED_PAUSE_S
        return min(PAUSE_MAX_S, max(PAUSE_MIN_S, (wanted - self.tokens) / self.rate))


UNPOLLED = Limits(polled=False, enabled=False, rate=0.0, tokens=0.0, day_left=0.0, day_quota=0.0)


def seconds_to_send(recipients: int, limits: Limits) -> float:
    """How long a campaign to `recipients` takes if nothing else is sent; infinity when nothing may be sent.

    What the daily quota does not cover today follows in whole days, which is never too hopeful: the quota rolls.
    """
    if not (limits.polled and limits.enabled and limits.rate > 0):
        return math.inf
    later = recipients - max(0.0, limits.day_left - limits.reserve)
    if later <= 0:
        return recipients / limits.rate
    a_day = min(limits.day_quota - limits.reserve, limits.rate * DAY_S)
    if a_day < 1:
        return math.inf
    days = math.ceil(later / a_day)
    return days * DAY_S + (later - (days - 1) * a_day) / limits.rate
