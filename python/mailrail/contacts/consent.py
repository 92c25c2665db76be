"""Facts of consent: what a person said of getting mail, where, when and to which words."""

from dataclasses import dataclass
from datetime import datetime, timedelta

# Where a person said it, as far as mailrail knows; customers use words of their own beside these.
API, IMPORT, CONFIRMATION, UNSUBSCRIBE, COMPLAINT = "api", "import", "confirmation", "unsubscribe", "complaint"
PREFERENCE_PAGE = "preference_page"
# How far the clock of a customer may be ahead.
AHEAD_MAX = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a customer, or the person, tells of it; None where nothing was told."""

    source: str | None = None
    ip: str | None = None
    wording: str | None = None
    at: datetime | None = None

    def proves_return(self, withdrawn_at: datetime | None) -> bool:
        """Whether it brings back a person who withdrew: it says where, and when, and that is later."""
        return self.source is not None and self.at is not None and (withdrawn_at is None or self.at > withdrawn_at)


NOTHING_SAID = Consent()


@dataclass(frozen=True, slots=True)
class ConsentEntry:
    """One line of a contact's history. Without a list it is about all mail."""

    id: int
    list_id: int | None
    list_name: str | None
    status: str
    source: str
    ip: str | None
    wording: str | None
    import_id: int | None
    at: datetime
    recorded_at: datetime
