"""The judges of a pre-flight: facts in, a check out. None of them asks anybody anything.

`fail` is what a launch would be refused for, in the words of its error, so that a pre-flight and a launch cannot disagree.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from mailrail.campaigns.audience import Gap, Reach
from mailrail.campaigns.model import Campaign, Rendered
from mailrail.domains.model import SenderCheck, Severity
from mailrail.errors import MailrailError
from mailrail.rehearsals.links import URL_MAX_CHARS, Finding, Trouble
from mailrail.rehearsals.markup import Markup
from mailrail.rehearsals.model import HTML_SHOWN_MAX_BYTES, Check, Detail, DryRun, Size, Standing
from mailrail.rehearsals.variables import nearest
from mailrail.reputation.model import Level, Reputation
from mailrail.ses.model import DAY_S, Limits
from mailrail.templates.model import TemplateInvalid
from mailrail.wallet.model import dollars

# Inboxes show less; what is longer than this is seldom meant.
SUBJECT_MAX_CHARS = 150
HOUR_S, MINUTE_S = 3600.0, 60.0
# What other senders' templates use for variables; here it reaches readers as it stands.
_FOREIGN = re.compile(r"\{\{|\}\}|\{%|%\}|\*\|[A-Z0-9_:]+\|\*|(?<![\w{$])\{[A-Za-z_]\w*\}|%%\w+%%|\[\[\w+\]\]")

# The code of what a launch is refused for → the check that it belongs to, and what to do.
REFUSALS: Mapping[str, tuple[str, str]] = {
    "no_default_sender": ("sender", "Verify a domain, or name a sender of a verified one."),
    "sender_not_verified": ("sender", "Verify the domain, or send from one that is verified."),
    "audience_empty": ("audience", "Choose another audience, or add contacts who are subscribed."),
    "list_not_found": ("audience", "Choose lists that are there: one of these is gone."),
    "template_invalid": ("content", "Mend the template at this place."),
    "insufficient_funds": ("wallet", "Top up the wallet."),
    "spend_cap_reached": ("wallet", "Raise the month's cap, or wait for the next month."),
    "wallet_frozen": ("wallet", "Ask the operator, who was told that the books need a look."),
    "reputation_stopped": ("reputation", "Do what the message says: GET …/account/reputation shows the figures."),
    "schedule_invalid": ("schedule", "Give another scheduledAt."),
    "sending_held": ("sending", "Ask the operator, whom `mailrail doctor` tells what to do."),
}
SKIPPED: Mapping[str, str] = {
    "unsubscribed": "They unsubscribed.",
    "bounced": "Their address bounced.",
    "complained": "They reported mail as spam.",
    "pending": "They were asked for their consent and have not answered.",
    "suppressed": "Their address is suppressed.",
}
# A mail with more faulty links has another trouble.
DETAILS_MAX = 100
LINK_REMEDY = "Mend these links in the HTML."


def judge_refusals(problems: Iterable[MailrailError]) -> dict[str, Check]:
    """The checks that fail, by their codes."""
    by_check: dict[str, list[tuple[MailrailError, str]]] = {}
    for problem in problems:
        check, remedy = REFUSALS.get(problem.code, ("sending", "Do what the message says, then look again."))
        by_check.setdefault(check, []).append((problem, remedy))
    return {
        check: Check(
            check,
            Standing.FAIL,
            str(found[0][0]),
            found[0][1],
            [Detail(problem.code, str(problem)) for problem, _ in found],
        )
        for check, found in by_check.items()
    }


def judge_sender(sender: tuple[str | None, str] | None) -> Check:
    """Who it is from; where there is nobody, the refusal says so."""
    return Check("sender", Standing.PASS, f"It is from {sender[1] if sender else 'nobody'}, whose domain is verified.")


def judge_alignment(found: SenderCheck) -> Check:
    """What receivers make of the sender: DKIM, SPF and DMARC, which Gmail and Yahoo ask of whoever sends to many."""
    details = [Detail(one.code, one.sentence) for one in found.findings]
    worst = [one for one in found.findings if one.severity is not Severity.INFO]
    if worst:
        return Check(
            "alignment", Standing.WARN, worst[0].sentence, "Publish what is missing: GET …/domains/:id.", details
        )
    if found.alignment is None:
        return Check("alignment", Standing.PASS, details[0].message if details else "DNS was not asked.", None, details)
    return Check("alignment", Standing.PASS, "DKIM or SPF is of the sender's domain, as DMARC wants.", None, details)


def judge_reputation(found: Reputation) -> Check:
    """How much of the account's mail bounces or is called spam; where that stops campaigns, the refusal says so."""
    figures = found.figures
    if found.verdict.level is not Level.GOOD:
        remedy = "Do what the message says: GET …/account/reputation shows the figures."
        return Check("reputation", Standing.WARN, found.verdict.reason or found.verdict.level, remedy)
    rates = f"{figures.bounce_percent:.2g} % bounced and {figures.complaint_percent:.2g} % were called spam"
    message = f"Of {figures.mails:,} mails {rates}." if figures.mails else "There is no mail yet to judge it by."
    return Check("reputation", Standing.PASS, message)


def judge_audience(reach: Reach, unknown_fields: Sequence[str], fields: Collection[str]) -> Check:
    """Who gets it, who does not and why, and whether the audience asks for what nobody has."""
    skipped = [
        Detail(reason, SKIPPED.get(reason, f"They are {reason}."), contacts=contacts)
        for reason, contacts in reach.skipped.items()
    ]
    unknown = [
        Detail("field_unknown", f"No contact has this field{_perhaps(name, fields)}.", variable=name)
        for name in unknown_fields
    ]
    message = f"{reach.recipients:,} of {reach.matched:,} contacts get it."
    if unknown:
        remedy = "Write the field's name as your contacts have it."
        return Check("audience", Standing.WARN, message, remedy, unknown + skipped)
    return Check("audience", Standing.PASS, message, None, skipped)


def judge_content(failures: Sequence[tuple[int | None, TemplateInvalid]], looked_at: int) -> Check:
    """Whether a mail could be made for those whom we tried."""
    if not failures:
        return Check("content", Standing.PASS, f"It was rendered for {looked_at} {_readers(looked_at)}.")
    details = [
        Detail("template_invalid", f"{error.part}: {error}", contact_ids=() if contact is None else (contact,))
        for contact, error in failures[:5]
    ]
    message = f"No mail can be made for {len(failures)} of the {looked_at} contacts that were tried."
    return Check("content", Standing.WARN, message, "Let the template do without what these contacts lack.", details)


def judge_subject(mails: Sequence[Rendered]) -> Check:
    """What stands in the inbox."""
    details = []
    if empty := sum(not mail.subject.strip() for mail in mails):
        details.append(Detail("empty", f"It is empty for {empty} of the {len(mails)} who were tried.", contacts=empty))
    longest = max((len(mail.subject) for mail in mails), default=0)
    if longest > SUBJECT_MAX_CHARS:
        details.append(Detail("long", f"It has up to {longest} characters; inboxes show the first 40 to 80."))
    if details:
        remedy = f"Give a subject of 1 to {SUBJECT_MAX_CHARS} characters to everybody."
        return Check("subject", Standing.WARN, details[0].message, remedy, details)
    return Check("subject", Standing.PASS, f"It has up to {longest} characters.")


def judge_variables(
    unknown: Sequence[str],
    gaps: Mapping[str, Gap] | None,
    recipients: int,
    mails: Sequence[Rendered],
    known: Collection[str],
) -> Check:
    """Whether readers see gaps or the names of variables; `gaps` is None where counting took too long."""
    details = [
        Detail("unknown", f"No contact has this field{_perhaps(name, known)}.", variable=name, contacts=recipients)
        for name in unknown
    ]
    for name, gap in (gaps or {}).items():
        if gap.recipients and name not in unknown:
            message = f"{gap.recipients:,} of {recipients:,} recipients have none."
            found = Detail("missing", message, None, name, gap.recipients, gap.contact_ids)
            details.append(found)
    if (foreign := _foreign(mails)) is not None:
        details.append(Detail("unfilled", f"Readers see {foreign!r}. A variable is written {{{{ name }}}}."))
    if details:
        about = details[0]
        named = f"{about.variable}: {about.message}" if about.variable else about.message
        remedy = "Mend the names, or say what stands there instead: {{ firstName or 'there' }}."
        return Check("variables", Standing.WARN, named, remedy, details)
    if gaps is None:
        message = "There was no time to count who lacks what the mail prints."
        return Check("variables", Standing.WARN, message, "Look again when the database has less to do.")
    return Check("variables", Standing.PASS, "Nobody sees a gap.")


def judge_text(campaign: Campaign, markup: Markup) -> Check:
    """The part that plain text readers, watches and filters read."""
    if campaign.text is not None and not campaign.text.strip():
        return Check("text", Standing.WARN, "The text part is empty.", "Write it, or leave it out: one is made then.")
    if campaign.text is None and not markup.has_words:
        message = "The HTML says nothing in words, so the text part made of it has the footer alone."
        return Check("text", Standing.WARN, message, "Write text beside the pictures, or a text part.")
    return Check("text", Standing.PASS, "It is made from the HTML." if campaign.text is None else "It is given.")


def judge_images(markup: Markup) -> Check:
    """Whether pictures say what they show to those who do not see them."""
    if markup.images_without_alt:
        message = f"{markup.images_without_alt} of {markup.images} images have no alt text."
        return Check("images", Standing.WARN, message, 'Give each an alt text; alt="" to those that only decorate.')
    return Check("images", Standing.PASS, f"All {markup.images} images have alt text." if markup.images else "None.")


def judge_links(findings: Sequence[Finding], links: int, is_visited: bool) -> Check:
    """Where links lead."""
    # What is wrong first, so that it is never the part that is left out.
    sorted_findings = sorted(findings, key=lambda one: one.trouble.is_note)
    details = [Detail(one.trouble, one.message, url=one.url[:URL_MAX_CHARS]) for one in sorted_findings[:DETAILS_MAX]]
    wrong = [one for one in findings if not one.trouble.is_note]
    if wrong:
        dead = sum(one.trouble is Trouble.DEAD for one in wrong)
        message = f"Dead links: {dead} of {links}." if dead else f"{len({one.url for one in wrong})} links need a look."
        return Check("links", Standing.WARN, message, LINK_REMEDY, details)
    if cut := sum(one.trouble is Trouble.NOT_VISITED for one in findings):
        message = f"There was no time to look at {cut} of {links} links."
        return Check("links", Standing.WARN, message, "Ask again: what was seen is remembered for minutes.", details)
    if not is_visited:
        return Check("links", Standing.PASS, f"{links} links read, none visited.", None, details)
    return Check("links", Standing.PASS, f"Nothing is wrong with {links} links." if links else "None.", None, details)


def measure_size(mails: Sequence[Rendered]) -> Size | None:
    """Of what was rendered; None for nothing."""
    if not mails:
        return None
    sizes = [(len(mail.html.encode()), len(mail.text.encode()), len(mail.subject.encode())) for mail in mails]
    html, text, subject = sorted(sizes)[(len(sizes) - 1) // 2]
    return Size(html, text, html + text + subject, max(html for html, _, _ in sizes))


def judge_size(size: Size) -> Check:
    """Whether Gmail shows it to its end, and SES takes it."""
    shown_kb = HTML_SHOWN_MAX_BYTES // 1000
    if size.largest_html_bytes > HTML_SHOWN_MAX_BYTES:
        whom = "" if size.html_bytes > HTML_SHOWN_MAX_BYTES else "for some recipients "
        message = f"The HTML has {whom}{size.largest_html_bytes // 1000} KB. Gmail shows the first {shown_kb} only."
        return Check("size", Standing.WARN, message, "Shorten the HTML: styles and comments count, too.")
    return Check("size", Standing.PASS, f"The HTML has up to {size.largest_html_bytes / 1000:.1f} KB of {shown_kb}.")


def judge_unsubscribe(mails: Sequence[Rendered], public_url: str) -> Check:
    """The header for one click, which mailrail always writes, and the link that readers see."""
    if without := sum(f"{public_url}/u/" not in mail.html for mail in mails):
        message = f"{without} of the {len(mails)} mails that were tried show no link to unsubscribe."
        return Check("unsubscribe", Standing.WARN, message, "Print {{ unsubscribeUrl }} outside of every condition.")
    if not public_url.startswith("https://"):
        message = "Gmail and Yahoo want the one-click address to be https, and this installation's is http."
        return Check(
            "unsubscribe", Standing.WARN, message, "The operator sets MAILRAIL_PUBLIC_URL to an https address."
        )
    return Check("unsubscribe", Standing.PASS, "The header for one click goes out, and readers see a link.")


def judge_postal_address(postal_address: str | None) -> Check:
    """What the law of many countries wants in such mail."""
    if postal_address is None:
        message = "The account has no postalAddress, which the law of many countries wants in such mail."
        return Check("postal_address", Standing.WARN, message, "Set postalAddress: PATCH …/account.")
    return Check("postal_address", Standing.PASS, "It stands in the footer.")


def judge_wallet(run: DryRun) -> Check:
    """What it costs; where that is not there, the refusal says so."""
    cost, available = dollars(run.cost_micros), dollars(run.available_micros)
    return Check("wallet", Standing.PASS, f"It sets {cost} of {available} aside.")


def judge_schedule(starts_at: datetime | None, now: datetime) -> Check:
    """When it starts; a time that cannot be is a refusal."""
    if starts_at is None:
        return Check("schedule", Standing.PASS, "It starts when you launch it.")
    if starts_at < now:
        message = f"Its time, {starts_at.isoformat()}, has passed: it starts as soon as it may."
        return Check("schedule", Standing.WARN, message, "Give it another time, if that is not meant.")
    return Check("schedule", Standing.PASS, f"It starts at {starts_at.isoformat()}.")


def judge_sending(seconds: float, limits: Limits) -> Check:
    """How long Amazon SES lets it take, if nothing else is sent."""
    if math.isinf(seconds):
        why = "does not let this account send" if limits.polled else "has not told its figures yet"
        return Check(
            "sending", Standing.WARN, f"Amazon SES {why}.", "Ask the operator, whom `mailrail doctor` tells more."
        )
    if seconds > DAY_S:
        message = f"At the present quota it takes {math.ceil(seconds / DAY_S)} days."
        return Check(
            "sending", Standing.WARN, message, "Start earlier, send to fewer, or ask Amazon for a larger quota."
        )
    return Check("sending", Standing.PASS, f"It takes {_duration(seconds)} at {limits.rate:,.10g} a second.")


def _duration(seconds: float) -> str:
    if seconds >= HOUR_S:
        return f"{seconds / HOUR_S:.1f} hours"
    if seconds > MINUTE_S:
        return f"{math.ceil(seconds / MINUTE_S)} minutes"
    return f"{math.ceil(seconds)} seconds" if seconds > 1 else "a second"


def _perhaps(name: str, known: Collection[str]) -> str:
    meant = nearest(name, known)
    return f"; perhaps {meant!r} is meant" if meant else ""


def _readers(count: int) -> str:
    return "reader" if count == 1 else "readers"


def _foreign(mails: Iterable[Rendered]) -> str | None:
    """A variable that nobody filled in, as it reaches the first of these readers."""
    for mail in mails:
        for part in (mail.subject, mail.text):
            if (found := _FOREIGN.search(part)) is not None:
                return part[found.start() : found.end() + 20].splitlines()[0]
    return None
