"""SPF records (RFC 7208), as far as a sender has to know them."""

import re
from dataclasses import dataclass

# RFC 7208, 4.6.4: mechanisms that make a receiver ask, in the record and in all it includes.
LOOKUPS_MAX = 10
ASKING = frozenset(("include", "a", "mx", "ptr", "exists"))
KNOWN = ASKING | {"all", "ip4", "ip6"}
_TERM = re.compile(r"([+\-~?])?([A-Za-z][A-Za-z0-9._-]*)(?:([:=/])(.*))?", re.DOTALL)
_MACRO = "%{"


@dataclass(frozen=True, slots=True)
class Spf:
    """One record: whom it includes, where it sends on to, how often it asks, and which of its terms no receiver understands."""

    includes: tuple[str, ...] = ()
    redirect: str | None = None
    lookups: int = 0
    unknown: tuple[str, ...] = ()

    @property
    def led_to(self) -> tuple[str, ...]:
        """The names whose records count as parts of this one; those that depend on the mail are not known before."""
        named = (*self.includes, *((self.redirect,) if self.redirect else ()))
        return tuple(name for name in named if _MACRO not in name)


def is_spf(text: str) -> bool:
    """Whether a TXT record means to be one: a receiver that finds two of them gives up."""
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")


def parse_spf(text: str) -> Spf:
    """What the record says; never raises, what is not SPF is unknown."""
    includes: list[str] = []
    unknown: list[str] = []
    redirect: str | None = None
    lookups = 0
    has_all = False
    for term in text.split()[1:]:
        found = _TERM.fullmatch(term)
        name = found[2].lower() if found else ""
        if found and found[3] == "=" and not found[1]:
            if name == "redirect":
                redirect = found[4].lower()
            # Modifiers that are not known are to be ignored (RFC 7208, 6).
        elif not found or name not in KNOWN or found[3] == "=" or (name == "include" and not found[4]):
            unknown.append(term[:100])
        else:
            has_all = has_all or name == "all"
            lookups += name in ASKING
            if name == "include":
                includes.append(found[4].lower().rstrip("."))
    # A redirect behind an `all` is never looked at (RFC 7208, 6.1).
    if has_all:
        redirect = None
    return Spf(tuple(includes), redirect, lookups + (redirect is not None), tuple(unknown))
