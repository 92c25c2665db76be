"""A sending domain looked at from outside: its records one by one, and what receivers will make of its mail."""

import asyncio
from collections.abc import Iterator, Sequence

from mailrail.domains import records
from mailrail.domains.dmarc import Dmarc, is_aligned, policy_of
from mailrail.domains.dns import Dns, side_by_side
from mailrail.domains.model import Alignment, Finding, Purpose, Record, RecordStatus, Report, Severity, Verdict
from mailrail.ses.control import Identity

# All questions about a domain go side by side; what has not come by then counts as unreachable.
INSPECTION_TIMEOUT_S = 4.5
BAD = (RecordStatus.MISSING, RecordStatus.DIFFERENT)


async def inspect(
    dns: Dns | None, identity: Identity, region: str, proof: str | None, from_domain: str | None = None
) -> Report:
    """What SES and DNS say together; `from_domain` is the domain of From where it is one below. Without DNS nothing is judged."""
    wanted = records.wanted(identity, region, proof)
    if dns is None:
        return Report(identity, wanted, None)
    sender = from_domain or identity.name
    *judged, texts = await side_by_side(
        *(_in_time(dns, record, identity.name) for record in wanted if record.purpose is not Purpose.DMARC),
        _dmarc_in_time(dns, sender, identity),
    )
    policies = texts if isinstance(texts, dict) else None
    found = [record for record in judged if isinstance(record, Record)]
    found += [records.judge_dmarc(record, sender, policies) for record in wanted if record.purpose is Purpose.DMARC]
    return Report(identity, tuple(found), None if policies is None else align(sender, identity, found, policies))


async def _in_time(dns: Dns, record: Record, domain: str) -> Record:
    try:
        async with asyncio.timeout(INSPECTION_TIMEOUT_S):
            return await records.judge(dns, record, domain)
    except TimeoutError:
        return records.unreachable(record)


async def _dmarc_in_time(dns: Dns, sender: str, identity: Identity) -> dict[str, tuple[str, ...]] | None:
    try:
        async with asyncio.timeout(INSPECTION_TIMEOUT_S):
            return await records.find_dmarc(dns, sender, identity.name, *filter(None, [identity.mail_from]))
    except TimeoutError:
        return None


# —— alignment —————————————————————————————————————————————————————————————————————————————————————————————————————————


def align(sender: str, identity: Identity, judged: Sequence[Record], texts: dict[str, tuple[str, ...]]) -> Alignment:
    """What DMARC says of mail from `sender` that SES signs for the identity: one of DKIM and SPF has to pass in its name."""
    policies = records.valid_dmarc(texts)
    followed = policy_of(sender, policies)
    policy = followed[1] if followed else Dmarc()
    dkim_reason = _dkim_reason(sender, identity, judged, policies, policy)
    spf_reason = _spf_reason(sender, identity, judged, policies, policy)
    asked = None
    if followed is None:
        verdict = Verdict.NONE
    else:
        verdict = Verdict.FAIL if dkim_reason and spf_reason else Verdict.PASS
        asked = policy.policy if followed[0] == sender else policy.subdomain_policy or policy.policy
    why_none = f"No DMARC policy holds for {sender}, so receivers ask for no alignment." if followed is None else None
    return Alignment(
        verdict,
        dkim=dkim_reason is None,
        spf=spf_reason is None,
        policy=asked,
        reasons=tuple(filter(None, (why_none, dkim_reason, spf_reason))),
    )


def _dkim_reason(
    sender: str, identity: Identity, judged: Sequence[Record], policies: dict[str, Dmarc], policy: Dmarc
) -> str | None:
    """Why DKIM does not count; None where it does."""
    keys = [record for record in judged if record.purpose is Purpose.DKIM]
    is_published = bool(keys) and all(record.status is RecordStatus.FOUND for record in keys)
    if identity.dkim_status != "SUCCESS" and not is_published:
        return f"Amazon SES does not sign for {identity.name} yet: publish its DKIM records."
    if keys and all(record.status in BAD for record in keys):
        return f"Receivers find no DKIM key of {identity.name}: publish its DKIM records again."
    if is_aligned(sender, identity.name, policies, is_strict=policy.is_dkim_strict):
        return None
    how = "adkim=s asks for the very same domain" if policy.is_dkim_strict else "they are of different organisations"
    return (
        f"Mail is signed for {identity.name} and comes from {sender}, and {how}: add {sender} as a domain of its own."
    )


def _spf_reason(
    sender: str, identity: Identity, judged: Sequence[Record], policies: dict[str, Dmarc], policy: Dmarc
) -> str | None:
    """Why SPF does not count; None where it does."""
    if identity.mail_from is None:
        return f"MAIL FROM is Amazon's, not of {sender}: set `mailFrom` of the domain, so that SPF speaks for you."
    parts = [record for record in judged if record.purpose is Purpose.MAIL_FROM]
    if identity.mail_from_status != "SUCCESS" or any(record.status in BAD for record in parts):
        return f"Amazon SES uses its own MAIL FROM until the MX and TXT records of {identity.mail_from} are published."
    if is_aligned(sender, identity.mail_from, policies, is_strict=policy.is_spf_strict):
        return None
    how = "aspf=s asks for the very same domain" if policy.is_spf_strict else "they are of different organisations"
    return f"MAIL FROM is {identity.mail_from} and From is {sender}, and {how}, so SPF does not speak for you."


# —— findings ——————————————————————————————————————————————————————————————————————————————————————————————————————————


def findings(report: Report) -> Iterator[Finding]:
    """What somebody who sends should know, the worst first."""
    alignment = report.alignment
    if alignment is not None and alignment.verdict is Verdict.FAIL:
        # Receivers do with such mail what the policy asks; with p=none they still count it against the sender.
        severity = Severity.WARNING if alignment.policy == "none" else Severity.ERROR
        yield Finding("dmarc_fail", severity, f"Mail from here fails DMARC. {' '.join(alignment.reasons)}")
    for record in report.records:
        if record.status in BAD and record.remedy is not None:
            word = "missing" if record.status is RecordStatus.MISSING else "wrong"
            yield Finding(f"{record.purpose}_{word}", Severity.WARNING, record.remedy)
    if any(record.status is RecordStatus.UNREACHABLE for record in report.records):
        names = ", ".join(sorted({one.name for one in report.records if one.status is RecordStatus.UNREACHABLE}))
        yield Finding(
            "dns_unreachable", Severity.INFO, f"The name servers did not answer for {names}. Try again later."
        )
