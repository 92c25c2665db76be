"""DMARC: records, the walk up the tree by which they are found (RFC 9989, 4.10), and alignment. Pure: who asks DNS is elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass

POLICIES = ("none", "quarantine", "reject")
# A name with more labels is cut to so many at the first step up, so that no name costs more than eight questions.
WALK_LABELS_MAX = 7


@dataclass(frozen=True, slots=True)
class Dmarc:
    """One record; `mistakes` say why receivers ignore it, or part of it. Alignment is strict or relaxed."""

    policy: str | None = None
    subdomain_policy: str | None = None
    is_dkim_strict: bool = False
    is_spf_strict: bool = False
    reports_to: tuple[str, ...] = ()
    # Whether it is of a public suffix (y), of an organisation (n), or does not say (u).
    psd: str = "u"
    mistakes: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether receivers follow it at all."""
        return self.policy is not None


def is_dmarc(text: str) -> bool:
    """Whether a TXT record means to be one. Receivers ignore it where `v=DMARC1` is not the first tag."""
    return text.replace(" ", "").lower().startswith("v=dmarc1")


def parse_dmarc(text: str) -> Dmarc:
    """What the record says; never raises."""
    tags: dict[str, str] = {}
    mistakes: list[str] = []
    parts = [part.strip() for part in text.split(";")]
    if parts[0].replace(" ", "") != "v=DMARC1":
        mistakes.append("it must begin with v=DMARC1; in capitals, and a semicolon behind it")
    for part in filter(None, parts[1:]):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            mistakes.append(f"{part[:40]!r} is not of the form name=value")
        elif name.lower() in tags:
            mistakes.append(f"{name[:20]} stands in it twice")
        else:
            tags[name.lower()] = value
    reports_to = tuple(address.strip() for address in tags.get("rua", "").split(",") if address.strip())
    policy = tags.get("p", "").lower()
    if policy not in POLICIES:
        mistakes.append(f"p={policy[:20]} is no policy" if policy else "it has no policy: add p=none")
        # With somewhere to report to it counts as p=none, else as no record (RFC 9989).
        policy = "none" if reports_to else ""
    elif next(iter(tags)) != "p":
        mistakes.append("older receivers want p= right behind v=DMARC1")
    if mistaken := [address for address in reports_to if not address.lower().startswith(("mailto:", "https:"))]:
        mistakes.append(f"reports go to {mistaken[0][:60]!r}, which must begin with mailto:")
    wanted = tags.get("sp", "").lower()
    return Dmarc(
        policy=(policy or None) if parts[0].replace(" ", "") == "v=DMARC1" else None,
        subdomain_policy=wanted if wanted in POLICIES else None,
        is_dkim_strict=tags.get("adkim", "r").lower() == "s",
        is_spf_strict=tags.get("aspf", "r").lower() == "s",
        reports_to=reports_to,
        psd=tags.get("psd", "u").lower(),
        mistakes=tuple(mistakes),
    )


def walk(domain: str) -> list[str]:
    """The names under which a record for the domain may stand (each with `_dmarc.` before it), nearest first."""
    labels = domain.split(".")
    above = labels[1:] if len(labels) <= WALK_LABELS_MAX else labels[-WALK_LABELS_MAX:]
    return [domain, *(".".join(above[start:]) for start in range(len(above)))]


def organisation_of(domain: str, records: Mapping[str, Dmarc]) -> str:
    """The domain of the organisation that the domain belongs to, by the records of its walk (RFC 9989, 4.10.2)."""
    last = domain
    below = domain
    for name in walk(domain):
        record = records.get(name)
        if record is not None and record.psd == "n":
            return name
        if record is not None and record.psd == "y" and name != domain:
            return below
        last = name if record is not None else last
        below = name
    return last


def policy_of(domain: str, records: Mapping[str, Dmarc]) -> tuple[str, Dmarc] | None:
    """The record that receivers follow for mail from the domain, and whose it is: its own, else the organisation's."""
    for name in (domain, organisation_of(domain, records)):
        if (record := records.get(name)) is not None:
            return name, record
    return None


def is_aligned(from_domain: str, other: str, records: Mapping[str, Dmarc], *, is_strict: bool) -> bool:
    """Strict: the same name. Relaxed: the same organisation."""
    if from_domain == other:
        return True
    return not is_strict and organisation_of(from_domain, records) == organisation_of(other, records)
