"""How a campaign's mail reaches Amazon SES, and why so: by slots, which sends the body once for many recipients
(SendBulkEmail), or by simple, which sends each mail whole (SendEmail).

What SES does with slots its documents leave open, and what it cannot render it tells only later. So on Amazon itself a
campaign begins with simple and changes to slots once its canary has been delivered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mailrail.config import Settings, sends_to_aws
from mailrail.emails.model import Outcome
from mailrail.ses.answers import Answer, Question, Verdict
from mailrail.ses.model import SLICE_S

ENTRIES_MAX = 50


class Mode(StrEnum):
    """A way onto the wire."""

    SLOTS = "slots"
    SIMPLE = "simple"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The mode of a campaign and the reason, a sentence for its user; while a canary is out, both may change once."""

    mode: Mode
    reason: str
    awaits_canary: bool = False


@dataclass(frozen=True, slots=True)
class Canary:
    """A mail sent ahead: what its call came to, None while there is no answer, and what SES told of it later."""

    outcome: Outcome | None
    error: str | None
    delivered: bool
    failure: str | None


# What slots rely on.
REQUIRED = (
    Question.SLOT_LETTERS,
    Question.BRACES_IN_VALUES,
    Question.HEADER_ORDER,
    Question.SUBJECT_UTF8,
)

_SETTLED = (Outcome.ACCEPTED, Outcome.UNKNOWN)


def is_steered(settings: Settings) -> bool:
    """Whether answers and canaries have a say: a stand-in for SES is known to take slots."""
    return settings.wire_mode == Mode.SLOTS and (sends_to_aws(settings) or settings.slots_canary == "always")


def choose(settings: Settings, answers: Mapping[Question, Answer], max_send_rate: float) -> Delivery:
    """How a campaign starts, from what the probe found out and from the recipients a second that SES grants."""
    if settings.wire_mode == Mode.SIMPLE:
        return Delivery(Mode.SIMPLE, "MAILRAIL_WIRE_MODE is simple.")
    if not is_steered(settings):
        return Delivery(Mode.SLOTS, "MAILRAIL_WIRE_MODE is slots.")
    against = _objection(answers, max_send_rate)
    if against is not None:
        return Delivery(Mode.SIMPLE, against)
    if settings.slots_canary == "never":
        return Delivery(Mode.SLOTS, "MAILRAIL_SLOTS_CANARY is never: it goes by slots without a canary before it.")
    return Delivery(Mode.SIMPLE, "It changes to slots once its canary has been delivered.", awaits_canary=True)


def calls_needed_per_s(max_send_rate: float) -> float:
    """How many bulk calls a second use up the rate: a round has a slice of it, and a call at most fifty recipients."""
    return max(1 / SLICE_S, max_send_rate / ENTRIES_MAX)


def judge(canaries: Sequence[Canary], waited_s: float, *, is_overdue: bool) -> Delivery | None:
    """What the canaries of a campaign, which are all sent by now, say about slots; None while they have not said it."""
    for canary in canaries:
        if canary.failure is not None:
            return Delivery(Mode.SIMPLE, f"Amazon SES did not deliver the canary: {canary.failure}")
        if canary.outcome is not None and canary.outcome not in _SETTLED:
            return Delivery(Mode.SIMPLE, f"The canary was refused: {canary.error}")
    if canaries and all(canary.delivered for canary in canaries):
        return Delivery(Mode.SLOTS, "Its canary, with the hardest values there are, has been delivered.")
    if is_overdue:
        return Delivery(
            Mode.SIMPLE,
            f"Nothing was heard of the canary for {waited_s:g} s. `mailrail doctor --aws` tells the operator whether events come back.",
        )
    return None


# SES takes a mail first and fills its template later. So many of them that it could not fill stop the campaign: from the
# first number on, a share of what was accepted, which grows no further than the span.
STORM_MIN = 20
STORM_SHARE = 0.05
STORM_SPAN = 10_000


def is_storm(failures: int, accepted: int) -> bool:
    """Whether so many mails could not be rendered that the campaign has to stop."""
    return failures >= max(STORM_MIN, STORM_SHARE * min(accepted, STORM_SPAN))


def storm_reason(failures: int) -> str:
    """Why the campaign stands still, and what to do."""
    return (
        f"Amazon SES accepted {failures} mails by slots and could not render them: those recipients are `rejected` and got "
        "nothing. POST …/resume goes on with the others, each mail whole (simple)."
    )


def _objection(answers: Mapping[Question, Answer], max_send_rate: float) -> str | None:
    for question in REQUIRED:
        answer = answers.get(question)
        if answer is not None and answer.verdict is Verdict.NO:
            return f"The probe found a reason against slots{_on(answer)}: {answer.detail}"
    calls = answers.get(Question.BULK_CALLS)
    if calls is None or calls.verdict is not Verdict.NO or calls.value is None:
        return None
    needed_per_s = calls_needed_per_s(max_send_rate)
    if calls.value >= needed_per_s:
        return None
    return f"Amazon SES takes {calls.value:g} calls of SendBulkEmail a second here{_on(calls)}; slots would need {needed_per_s:g}."


def _on(answer: Answer) -> str:
    return f" on {answer.asked_at:%Y-%m-%d}" if answer.asked_at else ""
