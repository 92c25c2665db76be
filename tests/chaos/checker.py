"""The judge. He reads what the SES stand-in accepted, the claims in the history, and the addresses that the harness made up itself;
never a table or an answer of mailrail.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from mailrail._core import Codec

# By a worker for a campaign's round, by the API for transactional mail.
CLAIMED = ("claim.committed", "mail.committed")
# Mail to SES's own mailbox simulator proves the way back of events; nobody asked for it.
CANARY = "success@simulator.amazonses.com"
PAGE = 10_000
SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Accepted:
    """One mail that the stand-in took; `tag` names recipient and attempt under the installation's secret, `at` is in ISO 8601."""

    to: str
    tag: str
    at: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """Recipients for whom an attempt was made durable before its call."""

    stream_id: int
    attempt: int
    seqs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What he found. Each list has addresses; `resent` counts claims of recipients beyond their first attempt."""

    asked: int
    accepted: int
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    resent: int = 0

    def sentences(self) -> list[str]:
        """What is wrong, with a few examples."""
        found = {
            "accepted twice": self.duplicates,
            "never accepted": self.lost,
            "accepted but never asked for": self.strangers,
            "accepted without a committed claim": self.unclaimed,
            "accepted under the number of somebody else": self.mixed_up,
        }
        return [f"{len(them)} {what}: {', '.join(them[:SHOWN_MAX])}" for what, them in found.items() if them]


def judge(
    accepted: Iterable[Accepted],
    claims: Iterable[Claim],
    asked: Mapping[str, Iterable[str]],
    codec: Codec,
    excused: frozenset[str] = frozenset(),
) -> Verdict:
    """The verdict over all campaigns: `asked` has the addresses of each.

    An address belongs to one campaign only, so that no id of mailrail is needed to tell campaigns apart. `excused` are addresses of
    which mailrail says openly that it cannot know (`unresolved`): not accepted is no loss there, accepted twice still is a duplicate.
    Raises ValueError where campaigns share an address.
    """
    campaign_of: dict[str, str] = {}
    for campaign, addresses in asked.items():
        for address in addresses:
            if campaign_of.setdefault(address, campaign) != campaign:
                raise ValueError(f"{address} is in two campaigns")
    claimed, resent = _cover(claims)
    times: Counter[str] = Counter()
    strangers, unclaimed, mixed_up = [], [], []
    address_of: dict[tuple[int, int], str] = {}
    total = 0
    for mail in accepted:
        if mail.to == CANARY:
            continue
        total += 1
        if mail.to not in campaign_of:
            strangers.append(mail.to)
            continue
        times[mail.to] += 1
        match decoded(mail, codec):
            case (stream_id, seq, attempt) if seq in claimed.get((stream_id, attempt), ()):
                # A claim covers a number; whom it was for, only the first mail under it tells.
                if address_of.setdefault((stream_id, seq), mail.to) != mail.to:
                    mixed_up.append(mail.to)
            case _:
                unclaimed.append(mail.to)
    return Verdict(
        asked=len(campaign_of),
        accepted=total,
        duplicates=[address for address, count in times.items() if count > 1],
        lost=[address for address in campaign_of if address not in times and address not in excused],
        strangers=strangers,
        unclaimed=unclaimed,
        mixed_up=mixed_up,
        resent=resent,
    )


def _cover(claims: Iterable[Claim]) -> tuple[dict[tuple[int, int], set[int]], int]:
    """The recipients of each stream and attempt that were claimed, and how many beyond their first attempt."""
    claimed: dict[tuple[int, int], set[int]] = defaultdict(set)
    resent = 0
    for claim in claims:
        claimed[claim.stream_id, claim.attempt].update(claim.seqs)
        if claim.attempt > 1:
            resent += len(claim.seqs)
    return claimed, resent


def decoded(mail: Accepted, codec: Codec) -> tuple[int, int, int] | None:
    """(stream, seq, attempt) of a mail; None if its tag is none of the installation's."""
    # The tag is the block of an id without its prefix (`rust/src/token.rs`).
    return codec.decode_id("tag", f"tag_{mail.tag}")


# —— where he reads ————————————————————————————————————————————————————————————————————————————————————————————————————


def claims_of(history: Iterable[Mapping[str, Any]]) -> Iterator[Claim]:
    """The claims that processes said were committed."""
    for line in history:
        if line["point"] in CLAIMED:
            seqs = line.get("seqs")
            if seqs is None:
                seqs = range(line["first_seq"], line["last_seq"] + 1)
            yield Claim(line["stream_id"], line["attempt"], seqs)


async def accepted_by(session: aiohttp.ClientSession, simulator_url: str) -> list[Accepted]:
    """The stand-in's whole log. Raises RuntimeError if it forgot some of it."""
    found: list[Accepted] = []
    number = 0
    while True:
        async with session.get(f"{simulator_url}/_simulator/accepted?from={number}&limit={PAGE}") as answer:
            page = orjson.loads(await answer.read())
        if not page["complete"]:
            raise RuntimeError("the stand-in forgot the oldest of its mails; give it a larger accept_log_bytes")
        found += _mails(page["mails"])
        number += len(page["mails"])
        if not page["mails"] or number >= page["total"]:
            return found
        await asyncio.sleep(0)


def accepted_in(file: Path) -> list[Accepted]:
    """The same from an accept log of JSON lines."""
    with file.open("rb") as lines:
        return list(_mails(orjson.loads(line) for line in lines))


def _mails(lines: Iterable[Mapping[str, Any]]) -> Iterator[Accepted]:
    for line in lines:
        addresses = line["to"] if isinstance(line["to"], list) else line["to"].split()
        for address in addresses:
            yield Accepted(address, line["tag"], line.get("at", ""))
