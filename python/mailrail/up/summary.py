"""The figures of the demo's campaign: for the eye, for a file, and for the exit status."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import orjson

from mailrail.wallet.model import dollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One settled campaign. recipients = delivered + bounced + failed + skipped + open; money in micro-dollars.

    Both times run from the send request: `seconds` to the last result, `settle_seconds` until every recipient has its final state
    and the hold is closed.
    """

    base_url: str
    api_key: str
    domain: str
    recipients: int
    accepted: int
    delivered: int
    bounced: int
    failed: int
    skipped: int
    open: int
    seconds: float
    settle_seconds: float
    emails_per_second: float
    held_micros: int
    captured_micros: int
    released_micros: int


def problems(summary: Summary, ledger_violations: list[str]) -> list[str]:
    """What keeps `--exit` from status 0, in sentences."""
    found = []
    if summary.open:
        found.append(f"{summary.open} recipients are open")
    states = summary.delivered + summary.bounced + summary.failed + summary.skipped + summary.open
    if states != summary.recipients:
        found.append(f"the states count {states} recipients of {summary.recipients}")
    if summary.held_micros != summary.captured_micros + summary.released_micros:
        found.append(
            f"the hold of {dollars(summary.held_micros)} is not what was captured ({dollars(summary.captured_micros)}) "
            f"and released ({dollars(summary.released_micros)})"
        )
    return found + [f"the ledger does not balance: {violation}" for violation in ledger_violations]


def write(summary: Summary, file: Path) -> None:
    """As JSON, whole or not at all."""
    partial = file.with_name(f"{file.name}.new")
    partial.write_bytes(orjson.dumps(dataclasses.asdict(summary), option=orjson.OPT_INDENT_2) + b"\n")
    partial.rename(file)


def describe(summary: Summary) -> str:
    """The summary as `up` prints it."""
    count = summary.recipients
    return f"""
  Campaign of {count:,} recipients
    accepted   {summary.accepted:>9,}   in {summary.seconds:.2f} s: {summary.emails_per_second:,.0f} emails/s
    delivered  {summary.delivered:>9,}
    bounced    {summary.bounced:>9,}
    failed     {summary.failed:>9,}
    skipped    {summary.skipped:>9,}
    open       {summary.open:>9,}   settled after {summary.settle_seconds:.2f} s
  Wallet
    held       {dollars(summary.held_micros):>12}
    captured   {dollars(summary.captured_micros):>12}
    released   {dollars(summary.released_micros):>12}
"""
