"""Everything that can be known of a launch before it. Nothing is written, and it ends in time: what was cut says so."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mailrail.accounts.model import Account
from mailrail.campaigns import audience, content, store
from mailrail.campaigns.audience import Gap
from mailrail.campaigns.model import CUSTOM, CampaignStateWrong, Rendered, Status
from mailrail.config import Settings
from mailrail.contacts import service as contacts
from mailrail.db.pool import Begin, Connection, at_most, only_read
from mailrail.domains import service as domains
from mailrail.rehearsals import checks, service
from mailrail.rehearsals.link_checker import LinkChecker
from mailrail.rehearsals.links import judge_all, literal
from mailrail.rehearsals.markup import Markup, survey
from mailrail.rehearsals.model import Check, DryRun, Preflight, Reader, Size
from mailrail.rehearsals.variables import printed_bare
from mailrail.reputation import service as reputation
from mailrail.reputation.model import Reputation
from mailrail.ses.model import Limits, seconds_to_send
from mailrail.templates.model import TemplateInvalid

TOTAL_S = 12.0
# Of that at most: for all that the database is asked, for counting gaps, for visits.
DATABASE_MAX_S = 8.0
GAPS_MAX_S = 3.0
VISITS_MAX_S = 10.0
# For so many contacts beside the one with most to say the mail is rendered.
SAMPLE_SIZE = 20
# One pass over the audience counts the gaps of so many variables.
VARIABLES_MAX = 16
# Variables of every contact → how an audience names them; all have an address.
NAMED = {"firstName": "firstName", "lastName": "lastName", "name": "name"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database knows. Without `frozen` the template does not compile."""

    run: DryRun
    now: datetime
    fields: set[str]
    frozen: content.Frozen | None
    gaps: dict[str, Gap] | None
    sample: list[dict[str, Any]]
    reputation: Reputation


@dataclass(frozen=True, slots=True)
class Proofs:
    """What the mail turned out to be: as it is written, and for those for whom it was rendered. `unknown` are the variables that
    no contact has.
    """

    markup: Markup
    mails: list[Rendered]
    failures: list[tuple[int | None, TemplateInvalid]]
    unknown: list[str]
    size: Size | None


async def preflight(
    begin: Begin,
    account: Account,
    campaign_id: int,
    limits: Limits,
    link_checker: LinkChecker,
    settings: Settings,
    *,
    visits_links: bool = True,
) -> Preflight:
    """All checks of a campaign that has not started; `limits` are the present ones of SES. `begin` opens the account's
    transaction, which ends before any link is visited.

    Raises CampaignNotFound, CampaignStateWrong.
    """
    ends_s = time.monotonic() + TOTAL_S
    async with begin() as conn:
        await only_read(conn)
        async with asyncio.timeout(DATABASE_MAX_S):
            facts = await _ask(conn, account, campaign_id, limits, settings)
    # Rendering and reading may take a while, and the loop has others to answer.
    proofs = await asyncio.to_thread(_prove, facts, account, settings)
    seconds = seconds_to_send(facts.run.reach.recipients, limits)
    found = _judge_launch(facts, account, seconds, limits)
    outside: list[Awaitable[Check]] = []
    if facts.run.sender is not None:
        outside.append(_check_alignment(begin, account, facts.run.sender[1], settings))
    if proofs is not None:
        found += _judge_mail(facts, proofs, settings)
        left_s = ends_s - time.monotonic() if visits_links else None
        outside.append(_check_links(proofs.markup, link_checker, left_s))
    found += await asyncio.gather(*outside)
    # A refusal takes the place of the check that it belongs to.
    by_code = {check.code: check for check in found} | checks.judge_refusals(facts.run.problems)
    ordered = [by_code[code] for code in ORDER if code in by_code]
    return Preflight(facts.run, ordered, limits, seconds, proofs.size if proofs else None)


# In which the checks are told: who, what, how, and what it takes.
ORDER = (
    "sender",
    "alignment",
    "reputation",
    "audience",
    "content",
    "subject",
    "variables",
    "text",
    "images",
    "links",
    "size",
    "unsubscribe",
    "postal_address",
    "wallet",
    "schedule",
    "sending",
)


async def _ask(conn: Connection, account: Account, campaign_id: int, limits: Limits, settings: Settings) -> Facts:
    run = await service.dry_run(conn, account, campaign_id, limits, settings)
    for problem in run.problems:
        if isinstance(problem, CampaignStateWrong):
            raise problem
    campaign, fields = run.campaign, await contacts.field_names(conn, account.id)
    standing = await reputation.get(conn, account.id)
    now = await store.read_clock(conn)
    try:
        frozen = content.freeze(campaign, account, settings)
    except TemplateInvalid:
        return Facts(run, now, fields, None, {}, [], standing)
    sample = await audience.sample(conn, account.id, campaign.audience, SAMPLE_SIZE)
    return Facts(run, now, fields, frozen, await _count_gaps(conn, account, run, frozen), sample, standing)


async def _count_gaps(conn: Connection, account: Account, run: DryRun, frozen: content.Frozen) -> dict[str, Gap] | None:
    """Who lacks what the mail prints, by variable; None where that took too long."""
    campaign = run.campaign
    parts = [campaign.subject, campaign.preheader or "", campaign.html, campaign.text or ""]
    asked = {**{name: CUSTOM + name for name in frozen["variables"]}, **NAMED}
    names = printed_bare(parts, asked)[:VARIABLES_MAX]
    if not names:
        return {}
    try:
        async with at_most(conn, GAPS_MAX_S):
            gaps = await audience.lacking(conn, account.id, campaign.audience, [asked[name] for name in names])
    except TimeoutError:
        return None
    return {name: gaps[asked[name]] for name in names}


def _prove(facts: Facts, account: Account, settings: Settings) -> Proofs | None:
    if facts.frozen is None:
        return None
    readers = facts.sample or [Reader().values]
    outcomes = content.render_each(facts.frozen, account, settings, readers)
    mails = [one for one in outcomes if isinstance(one, Rendered)]
    failures = [
        (reader.get("contact_id"), one)
        for reader, one in zip(readers, outcomes, strict=True)
        if isinstance(one, TemplateInvalid)
    ]
    unknown = content.unknown(facts.frozen, facts.fields)
    return Proofs(survey(facts.run.campaign.html), mails, failures, unknown, checks.measure_size(mails))


def _judge_launch(facts: Facts, account: Account, seconds: float, limits: Limits) -> list[Check]:
    """What concerns the send."""
    run, campaign = facts.run, facts.run.campaign
    asked = {one.field.removeprefix(CUSTOM) for one in campaign.audience.conditions if one.is_custom}
    starts_at = campaign.scheduled_at if campaign.status is not Status.FAILED else None
    return [
        checks.judge_sender(run.sender),
        checks.judge_audience(run.reach, sorted(asked - facts.fields), facts.fields),
        checks.judge_postal_address(account.postal_address),
        checks.judge_wallet(run),
        checks.judge_schedule(starts_at, facts.now),
        checks.judge_reputation(facts.reputation),
        checks.judge_sending(seconds, limits),
    ]


def _judge_mail(facts: Facts, proofs: Proofs, settings: Settings) -> list[Check]:
    """What concerns the mail."""
    mails, campaign = proofs.mails, facts.run.campaign
    known = facts.fields | content.BUILT_IN_VARIABLES
    found = [
        checks.judge_content(proofs.failures, len(proofs.failures) + len(mails)),
        checks.judge_variables(proofs.unknown, facts.gaps, facts.run.reach.recipients, mails, known),
        checks.judge_text(campaign, proofs.markup),
        checks.judge_images(proofs.markup),
    ]
    if proofs.size is not None:
        found += [
            checks.judge_subject(mails),
            checks.judge_size(proofs.size),
            checks.judge_unsubscribe(mails, settings.public_url),
        ]
    return found


async def _check_alignment(begin: Begin, account: Account, email: str, settings: Settings) -> Check:
    """What DNS says of the sender, which takes a few seconds where it was not asked lately."""
    return checks.judge_alignment(await domains.check_sender(begin, account.id, email, settings))


async def _check_links(markup: Markup, link_checker: LinkChecker, left_s: float | None) -> Check:
    """By their text, and by a visit where there is time for one."""
    policy = link_checker.policy
    visits = None
    if left_s is not None:
        visits = await link_checker.visit(literal(markup.hrefs, policy), min(left_s, VISITS_MAX_S))
    findings = judge_all(markup.hrefs, visits, policy)
    return checks.judge_links(findings, len(set(markup.hrefs)), is_visited=visits is not None)
