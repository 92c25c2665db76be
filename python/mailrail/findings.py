"""What `mailrail doctor` finds: one line a check, with the remedy."""

from collections.abc import Awaitable
from dataclasses import dataclass

from mailrail.errors import MailrailError


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, and what to do if not."""

    what: str
    good: bool
    remedy: str = ""

    def line(self) -> str:
        """As it is printed."""
        return f"{'ok  ' if self.good else 'FAIL'}  {self.what}" + (f": {self.remedy}" if self.remedy else "")


async def attempt(what: str, check: Awaitable[None]) -> Finding:
    """A check that raises when something is wrong."""
    try:
        await check
    except MailrailError as error:
        return Finding(what, False, str(error))
    return Finding(what, True)
