"""Facts of what a reader gets and wants."""

from dataclasses import dataclass
from enum import Enum, auto

from mailrail.contacts.model import ContactStatus, Offer


@dataclass(frozen=True, slots=True)
class Link:
    """What an unsubscribe token names. `list_id` is None for a mail that went to no list."""

    account_id: int
    contact_id: int
    list_id: int | None
    stream_id: int
    seq: int


class Standing(Enum):
    """How a reader stands with all mail of the account."""

    GETS = auto()
    LEFT = auto()
    # His address bounced, he marked a mail as spam, or the account suppressed him: none of it is his click's to lift.
    BOUNCED = auto()
    COMPLAINED = auto()
    SUPPRESSED = auto()
    # A preview, or a person who was erased.
    NOBODY = auto()


@dataclass(frozen=True, slots=True)
class Reader:
    """Who opened a link, and what he gets. Without `contact_id` the contact was deleted and only the address is known."""

    account: str
    standing: Standing
    contact_id: int | None
    email: str | None
    # The list that the mail went to, and all lists that are his to choose.
    list: Offer | None
    choices: tuple[Offer, ...]

    @property
    def may_return(self) -> bool:
        """Whether his click brings him mail again."""
        return self.contact_id is not None and self.standing in (Standing.GETS, Standing.LEFT)

    def gets(self, offer: Offer) -> bool:
        """Whether mail of the list reaches him."""
        return self.standing is Standing.GETS and offer.status is ContactStatus.SUBSCRIBED


class Wish(Enum):
    """What a form asks for."""

    LEAVE_LIST = auto()
    LEAVE_ALL = auto()
    JOIN_LIST = auto()
    RETURN = auto()
    CHOOSE = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader sent. A choice names the lists that he saw and those that he ticked."""

    wish: Wish
    is_one_click: bool = False
    seen: frozenset[int] = frozenset()
    ticked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What his answer changed: names of lists, and whether mail as such ended or began again."""

    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    left_all: bool = False
    came_back: bool = False


def masked(email: str) -> str:
    """An address as a page shows it that whoever gets a forwarded mail may open: `ann@example.com` → `a…@example.com`."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}…@{domain}"
