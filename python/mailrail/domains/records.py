"""The records of a sending domain: which are wanted, and what DNS has in their place."""

from collections.abc import Sequence
from dataclasses import replace

from mailrail.domains.dmarc import Dmarc, is_dmarc, parse_dmarc, policy_of, walk
from mailrail.domains.dns import Dns, Reply, same_name, side_by_side
from mailrail.domains.model import Purpose, Record, RecordStatus
from mailrail.domains.spf import LOOKUPS_MAX, is_spf, parse_spf
from mailrail.ses.control import Identity

AMAZON = "amazonses.com"
SPF_VALUE = f"v=spf1 include:{AMAZON} ~all"
# A CNAME may lead to another one, as where somebody else keeps the records of many domains.
CNAMES_MAX = 5
OWNERSHIP_LABEL = "_mailrail"
OWNERSHIP_PREFIX = "mailrail-verification="


def wanted(identity: Identity, region: str, proof: str | None) -> tuple[Record, ...]:
    """What the owner has to publish, and what they had better. `proof` is asked for where DKIM alone proves nothing."""
    domain = identity.name
    records = [] if proof is None else [ownership(domain, proof)]
    records += [Record("CNAME", one.name, one.target, Purpose.DKIM, True) for one in identity.dkim_records]
    if identity.mail_from is not None:
        server = f"10 feedback-smtp.{region}.{AMAZON}"
        records.append(Record("MX", identity.mail_from, server, Purpose.MAIL_FROM, False))
        records.append(Record("TXT", identity.mail_from, SPF_VALUE, Purpose.MAIL_FROM, False))
    records.append(Record("TXT", domain, SPF_VALUE, Purpose.SPF, False))
    records.append(Record("TXT", f"_dmarc.{domain}", dmarc_advice(domain), Purpose.DMARC, False))
    return tuple(records)


def ownership(domain: str, proof: str) -> Record:
    """What shows that one and the same person has the account and the domain."""
    return Record("TXT", f"{OWNERSHIP_LABEL}.{domain}", OWNERSHIP_PREFIX + proof, Purpose.OWNERSHIP, True)


def dmarc_advice(domain: str) -> str:
    """A beginning that changes nothing but tells: reports come, and no mail is refused."""
    return f"v=DMARC1; p=none; rua=mailto:dmarc@{domain}"


async def judge(dns: Dns, record: Record, domain: str) -> Record:
    """One record beside what DNS says."""
    match record.purpose, record.type:
        case Purpose.DKIM, _:
            return await _judge_dkim(dns, record, domain)
        case Purpose.MAIL_FROM, "MX":
            return _judge_mx(record, await dns.ask(record.name, "MX"))
        case Purpose.MAIL_FROM, _:
            return await _judge_mail_from_spf(dns, record)
        case Purpose.SPF, _:
            return await _judge_own_spf(dns, record)
        case Purpose.OWNERSHIP, _:
            return _judge_ownership(record, await dns.ask(record.name, "TXT"))
    raise ValueError(f"DMARC is judged by the walk of its domain, not by one record: {record.name}")


def _found(record: Record, found: Sequence[str]) -> Record:
    return replace(record, status=RecordStatus.FOUND, found=tuple(found), remedy=None)


def _missing(record: Record, remedy: str) -> Record:
    return replace(record, status=RecordStatus.MISSING, found=(), remedy=remedy)


def _different(record: Record, found: Sequence[str], remedy: str) -> Record:
    return replace(record, status=RecordStatus.DIFFERENT, found=tuple(found), remedy=remedy)


def unreachable(record: Record) -> Record:
    """No server answered in time."""
    return replace(
        record,
        status=RecordStatus.UNREACHABLE,
        found=(),
        remedy=f"The name servers of {record.name} did not answer, so nobody knows whether its {record.type} record is there. "
        "Verify again in a few minutes; if it lasts, look at the name servers of the domain.",
    )


def _publish(record: Record) -> str:
    return f"Publish a {record.type} record at {record.name} with the value {record.value}"


# —— DKIM ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def _judge_dkim(dns: Dns, record: Record, domain: str) -> Record:
    chain = await follow(dns, record.name)
    if chain is None:
        return unreachable(record)
    if record.value.lower() in chain:
        return _found(record, chain)
    if not chain:
        return await _explain_no_cname(dns, record, domain)
    if chain[0] == f"{record.value.lower()}.{domain}":
        return _different(
            record,
            chain,
            f"The value of the CNAME record at {record.name} has your own domain at its end: write {record.value} and a period "
            "behind it, or whatever your DNS provider takes for a full name.",
        )
    return _different(
        record, chain, f"The CNAME record at {record.name} leads to {chain[0]}: change its value to {record.value}."
    )


async def follow(dns: Dns, name: str) -> list[str] | None:
    """Where the CNAME of a name leads, step by step; empty where there is none, None where it is not known."""
    chain: list[str] = []
    while len(chain) < CNAMES_MAX:
        reply = await dns.ask(chain[-1] if chain else name, "CNAME")
        if not reply.is_known:
            return chain or None
        if not reply.values or reply.values[0] in chain:
            break
        chain.append(reply.values[0])
        # What lies in Amazon's zone is not the owner's doing.
        if same_name(reply.values[0]).endswith(f".{AMAZON}"):
            break
    return chain


async def _explain_no_cname(dns: Dns, record: Record, domain: str) -> Record:
    """The mistakes that are made most: the domain typed where the provider adds it, another type, a proxy before the name."""
    doubled, text, address = await side_by_side(
        dns.ask(f"{record.name}.{domain}", "CNAME"), dns.ask(record.name, "TXT"), dns.ask(record.name, "A")
    )
    if doubled.values:
        host = record.name.removesuffix(f".{domain}")
        return _different(
            record,
            [f"{record.name}.{domain}"],
            f"The CNAME record stands at {record.name}.{domain}: your DNS provider adds the domain itself, so enter {host} as "
            "its name.",
        )
    if text.values:
        return _different(
            record,
            text.values,
            f"At {record.name} there is a TXT record: delete it, and publish a CNAME record with the value {record.value}.",
        )
    if address.values:
        return _different(
            record,
            address.values,
            f"{record.name} answers with an address, as behind a proxy: switch the proxy off for this record (with Cloudflare: "
            "DNS only), so that it is a plain CNAME record.",
        )
    return _missing(record, f"{_publish(record)}.")


# —— MAIL FROM and SPF —————————————————————————————————————————————————————————————————————————————————————————————————


def _judge_mx(record: Record, reply: Reply) -> Record:
    if not reply.is_known:
        return unreachable(record)
    if not reply.values:
        return _missing(record, f"{_publish(record)}. Until then replies of servers name Amazon's domain, not yours.")
    wanted_server = record.value.partition(" ")[2]
    hosts = [value.partition(" ")[2] for value in reply.values]
    if hosts == [wanted_server]:
        return _found(record, reply.values)
    if wanted_server in hosts:
        return _different(
            record,
            reply.values,
            f"{record.name} has {len(hosts)} MX records, and Amazon SES takes only one: delete all but {record.value}.",
        )
    return _different(
        record,
        reply.values,
        f"The MX record of {record.name} names {hosts[0]}: replace it by {record.value}. If the name is in use for other mail, "
        "choose another `mailFrom`.",
    )


async def _judge_mail_from_spf(dns: Dns, record: Record) -> Record:
    reply = await dns.ask(record.name, "TXT")
    if not reply.is_known:
        return unreachable(record)
    texts = [value for value in reply.values if is_spf(value)]
    if not texts:
        return _missing(record, f"{_publish(record)}.")
    if (problem := await spf_problem(dns, record.name, texts)) is not None:
        return _different(record, texts, problem)
    if AMAZON not in parse_spf(texts[0]).includes:
        return _different(
            record, texts, f"The SPF record of {record.name} does not let Amazon send: add include:{AMAZON} to it."
        )
    return _found(record, texts)


async def _judge_own_spf(dns: Dns, record: Record) -> Record:
    """Of the domain itself: mail from here does not need it, so only what harms the owner's other mail is told."""
    reply = await dns.ask(record.name, "TXT")
    if not reply.is_known:
        return replace(unreachable(record), remedy=None)
    texts = [value for value in reply.values if is_spf(value)]
    if not texts:
        return replace(_missing(record, ""), remedy=None)
    if (problem := await spf_problem(dns, record.name, texts)) is not None:
        return _different(record, texts, problem)
    return _found(record, texts)


async def spf_problem(dns: Dns, name: str, texts: Sequence[str]) -> str | None:
    """Why receivers give up on the SPF of a name (permerror); None where they do not."""
    if len(texts) > 1:
        return f"{name} has {len(texts)} SPF records, and receivers then take none: put all into one that begins with v=spf1."
    spf = parse_spf(texts[0])
    if spf.unknown:
        return (
            f"The SPF record of {name} has {spf.unknown[0]!r}, which receivers do not understand: correct or delete it."
        )
    lookups = await count_lookups(dns, texts[0])
    if lookups > LOOKUPS_MAX:
        return (
            f"The SPF record of {name} makes receivers ask DNS more than {LOOKUPS_MAX} times, and they then take none: delete "
            "includes that are not needed."
        )
    return None


async def count_lookups(dns: Dns, text: str) -> int:
    """How often a receiver has to ask DNS for this record and all that it leads to; counted no further than what is too many."""
    spf = parse_spf(text)
    lookups, open_names = spf.lookups, list(spf.led_to)
    while open_names and lookups <= LOOKUPS_MAX:
        reply = await dns.ask(open_names.pop(0), "TXT")
        for included in [parse_spf(value) for value in reply.values if is_spf(value)][:1]:
            lookups += included.lookups
            open_names += included.led_to
    return lookups


def _judge_ownership(record: Record, reply: Reply) -> Record:
    if not reply.is_known:
        return unreachable(record)
    if record.value in [value.strip() for value in reply.values]:
        return _found(record, [record.value])
    why = (
        f"{_publish(record)}. It proves that the domain is yours: this installation knew the domain, or one above or below it, "
        "before you added it."
    )
    return _different(record, reply.values, why) if reply.values else _missing(record, why)


# —— DMARC —————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def find_dmarc(dns: Dns, *domains: str) -> dict[str, tuple[str, ...]] | None:
    """What stands for DMARC at each name of the domains' walks; None if a server did not say."""
    names = list(dict.fromkeys(name for domain in domains for name in walk(domain)))
    replies = await side_by_side(*(dns.ask(f"_dmarc.{name}", "TXT") for name in names))
    if not all(reply.is_known for reply in replies):
        return None
    return {
        name: tuple(filter(is_dmarc, reply.values)) for name, reply in zip(names, replies, strict=True) if reply.values
    }


def valid_dmarc(texts: dict[str, tuple[str, ...]]) -> dict[str, Dmarc]:
    """Those that receivers follow: of several at one name they follow none."""
    parsed = {name: parse_dmarc(found[0]) for name, found in texts.items() if len(found) == 1}
    return {name: record for name, record in parsed.items() if record.is_valid}


def judge_dmarc(record: Record, domain: str, texts: dict[str, tuple[str, ...]] | None) -> Record:
    """The DMARC record of the domain: its own, or one above it that holds for it, too."""
    if texts is None:
        return unreachable(record)
    own = texts.get(domain, ())
    if len(own) > 1:
        return _different(
            record,
            own,
            f"{record.name} has {len(own)} DMARC records, and receivers then follow none: delete all but one.",
        )
    if own and (mistakes := parse_dmarc(own[0]).mistakes):
        return _different(record, own, f"The DMARC record at {record.name} has a mistake: {'; '.join(mistakes)}.")
    if (followed := policy_of(domain, valid_dmarc(texts))) is not None:
        return _found(record, texts[followed[0]])
    return _missing(
        record,
        f"{_publish(record)}, with an address for the reports that you read. Gmail, Yahoo and Outlook.com want a DMARC record of "
        "everybody who sends much mail.",
    )
