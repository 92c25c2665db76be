"""What only Amazon SES itself can tell: questions whose answers its documents leave open, and the answers as they are stored."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Question(StrEnum):
    """One thing to find out."""

    BULK_CALLS = "bulk_calls"
    SLOT_LETTERS = "slot_letters"
    SLOT_DIGITS = "slot_digits"
    CLOSING_BRACES = "closing_braces"
    BRACE_NEIGHBOURS = "brace_neighbours"
    BRACES_IN_VALUES = "braces_in_values"
    REQUEST_BYTES = "request_bytes"
    INVALID_ADDRESS = "invalid_address"
    THROTTLED_ENTRIES = "throttled_entries"
    DAILY_QUOTA = "daily_quota"
    HEADER_ORDER = "header_order"
    DKIM_HEADERS = "dkim_headers"
    TAGS_MERGE = "tags_merge"
    SUBJECT_UTF8 = "subject_utf8"
    SLOTS_IN_HEADERS = "slots_in_headers"
    HTTP_2 = "http_2"
    IDLE_TIMEOUT = "idle_timeout"
    PAUSED_TENANT = "paused_tenant"


# The check that finds it out, counted as the probe runs them, and the question in words.
QUESTIONS: dict[Question, tuple[int, str]] = {
    Question.BULK_CALLS: (1, "SendBulkEmail takes more than one call a second"),
    Question.SLOT_LETTERS: (2, "a mail by slots, named by letters, is delivered"),
    Question.SLOT_DIGITS: (2, "names of slots may have digits"),
    Question.CLOSING_BRACES: (2, "a lone }} may stand in the static text, as in CSS"),
    Question.BRACE_NEIGHBOURS: (2, "a slot may stand beside { or \\"),
    Question.BRACES_IN_VALUES: (2, "braces in values are left alone"),
    Question.REQUEST_BYTES: (3, "a request with an inline template may have more than 1,000,000 bytes"),
    Question.INVALID_ADDRESS: (4, "an invalid address costs its own entry alone, not the whole call"),
    Question.THROTTLED_ENTRIES: (4, "beyond the rate single entries are refused, not the whole call"),
    Question.DAILY_QUOTA: (4, "beyond the daily quota single entries are refused, not the whole call"),
    Question.HEADER_ORDER: (5, "List-Unsubscribe comes out before List-Unsubscribe-Post"),
    Question.DKIM_HEADERS: (5, "DKIM signs both unsubscribe headers"),
    Question.TAGS_MERGE: (6, "ReplacementTags are merged with DefaultEmailTags"),
    Question.SUBJECT_UTF8: (7, "a subject beyond ASCII comes out as written"),
    Question.SLOTS_IN_HEADERS: (8, "slots in values of headers are filled"),
    Question.HTTP_2: (9, "the endpoint speaks HTTP/2"),
    Question.IDLE_TIMEOUT: (9, "the endpoint closes a connection that stays silent"),
    Question.PAUSED_TENANT: (10, "a tenant that is paused has an error of its own"),
}


class Verdict(StrEnum):
    """What is known of a question; nothing is guessed."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found out, with a figure where there is one, and in a sentence how it was seen or why it was not."""

    question: Question
    verdict: Verdict
    detail: str
    value: float | None = None
    asked_at: datetime | None = None
