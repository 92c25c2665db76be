"""Facts of double opt-in."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# How long a link is good for.
VALID_FOR = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Request:
    """What a confirm token names."""

    account_id: int
    contact_id: int
    list_id: int
    expires_s: int

    @property
    def is_over(self) -> bool:
        """Whether the answer comes too late."""
        return datetime.now(UTC).timestamp() > self.expires_s


@dataclass(frozen=True, slots=True)
class Question:
    """What the person is asked, in words."""

    account: str
    list: str
    wording: str


@dataclass(frozen=True, slots=True)
class Due:
    """Somebody to be asked by mail, and how his list asks."""

    list_id: int
    contact_id: int
    email: str
    list_name: str
    subject: str | None
    wording: str | None
    sender_name: str | None
    sender_email: str | None


def question(account: str, list_name: str, wording: str | None) -> Question:
    """With the words of the list, or ours."""
    return Question(account, list_name, wording or f"I want to get mail of the list “{list_name}” from {account}.")
