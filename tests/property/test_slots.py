"""What recipients get is what the oracle says: in the plain renderer, and in what SES puts together from slots.

The oracle is a second implementation that shares no code with the core, so equality is the whole statement: the
partial evaluation, the slots' grammar, the batches and the fall-backs are all free to do as they like.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import minijinja
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailrail._core import Codec, Lease, Plan, Report, Sender
from mailrail._core import freeze as core_freeze
from tests.oracle.assemble import Mail, Stream, assemble
from tests.oracle.content import Contact, Source, freeze
from tests.oracle.tokens import Tokens
from tests.support import rows
from tests.support.campaign import SECRET, STREAM_ID, make_sender
from tests.support.mail_strategies import (
    contacts,
    inflate,
    large_sizes_bytes,
    pages,
    sources,
    spread_pages,
)
from tests.support.simulator import RunningSimulator, simulating

STREAM = Stream(STREAM_ID, from_name="Sarah at Acme", reply_to=["help@acme.example"])
TOKENS = Tokens(SECRET)
ATTEMPT = 2
ACCEPTED, FAILED = 1, 4
# A preview is a mail that has no number yet.
PREVIEW_SEQ = 0
LOCAL_PARTS = ["r{n}", "o'neil&co{n}", "{{{{a}}}}{n}", "=?x?={n}"]
_numbers = itertools.count(1)
_slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def frozen_by_core(source: Source) -> bytes:
    return core_freeze(orjson.dumps(dataclasses.asdict(source)))


def plan_of(source: Source, mode: str = "slots") -> Plan:
    stream = dataclasses.asdict(STREAM) | {"mode": mode}
    return Plan(frozen_by_core(source), orjson.dumps(stream), Codec(SECRET))


def expected(source: Source, contact: Contact, seq: int) -> Mail | None:
    """The oracle's mail, None where a template cannot be rendered for this contact."""
    try:
        return assemble(freeze(source_for(contact, source)), STREAM, contact, TOKENS, seq=seq, attempt=ATTEMPT)
    except minijinja.TemplateError:
        return None


def source_for(contact: Contact, source: Source) -> Source:
    """Who is not tracked gets what everybody gets of a campaign that does not track."""
    return source if contact.tracked else dataclasses.replace(source, track_opens=False, track_clicks=False)


def words(text: str) -> list[str]:
    """A text part made from HTML, without its layout: where lines break is not the oracle's to say."""
    return text.split()


@given(sources(pages))
def test_the_same_links_are_found(source: Source) -> None:
    assert orjson.loads(frozen_by_core(source))["links"] == freeze(source).links


def check_preview(source: Source, contact: Contact) -> None:
    plan = plan_of(source)
    mail = expected(source, contact, PREVIEW_SEQ)
    if mail is None:
        with pytest.raises(Exception, match="line"):
            plan.preview(orjson.dumps(dataclasses.asdict(contact)))
        return
    preview = orjson.loads(plan.preview(orjson.dumps(dataclasses.asdict(contact))))
    assert preview["html"] == mail.content.html
    assert preview["subject"] == mail.content.subject
    if source.text is None:
        assert words(preview["text"]) == words(mail.content.text)
    else:
        assert preview["text"] == mail.content.text


@given(sources(pages), contacts())
def test_a_preview_is_the_oracles(source: Source, contact: Contact) -> None:
    check_preview(source, contact)


@_slow
@given(sources(spread_pages), large_sizes_bytes, contacts())
def test_a_large_preview_is_the_oracles(source: Source, size_bytes: int, contact: Contact) -> None:
    check_preview(inflate(source, size_bytes), contact)


@given(sources(pages, with_text=False), contacts())
def test_a_text_made_from_html_has_the_oracles_words(source: Source, contact: Contact) -> None:
    check_preview(source, contact)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<a href="https://shop.example/?q={{ city|urlencode }}">Go</a>', None),
        ("{{ city|urlencode }} {{ pet|urlencode }} {{ nothing|urlencode }}", "{{ 'a b/é&'|urlencode }}"),
        ("{{ größe }}{{ ['ä', 'B', 'Ä']|sort }}", "Hi {{ firstName -}}"),
        ("Hi {{ firstName -}}", "Hi {{ firstName -}}\n {"),
        ('<a href="https://shop.example/1" HREF="https://shop.example/2">A</a>', None),
        ('<body><a href="/x" href="https://shop.example/2">A</a></body></bodyx>', None),
        ("A{% if vip %} B</p>{% endif %}<p>C</p>", None),
        ("A{% if vip %} B {% endif %}<td>C</td>", None),
        ("<ul>{% for i in range(3) %}<li>i{{ i }}{% endfor %}</ul>", None),
        ("<p>A</p>{%- if vip -%} B {%- endif -%}<p>C</p>{{- city -}}<br>D", None),
    ],
)
@pytest.mark.parametrize("vip", [True, False])
def test_a_preview_of_what_once_went_wrong_is_the_oracles(html: str, text: str | None, vip: bool) -> None:
    fields = {"vip": vip, "city": "Köln & Umland", "pet": {"kind": "a cat", "size": 2.5}, "größe": 1e22}
    contact = Contact("ann@example.net", first_name="Ann", custom_fields=fields)
    check_preview(Source(subject="s", html=html, text=text), contact)


@dataclass
class Wire:
    """A simulator, a sender towards it, and the loop that both calls of one test share."""

    simulator: RunningSimulator
    sender: Sender
    runner: asyncio.Runner

    def submit(self, plan: Plan, recipients: list[rows.Recipient]) -> Report:
        """One round, to its end."""

        async def send() -> Report:
            return await self.sender.submit(plan, rows.encode(recipients), Lease(Lease.now_ns() + 60 * 10**9))

        return self.runner.run(send())


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with simulating(tmp_path_factory.mktemp("simulator")) as simulator, asyncio.Runner() as runner:
        yield Wire(simulator, make_sender(simulator.endpoint, simulator.ca_pem), runner)


def addressed(contact: Contact, local_part: str) -> Contact:
    """The contact with an address that no other mail of this run has."""
    return dataclasses.replace(contact, email=f"{local_part.format(n=next(_numbers))}@example.net")


def row_of(seq: int, contact: Contact) -> rows.Recipient:
    return rows.Recipient(
        seq=seq,
        attempt=ATTEMPT,
        email=contact.email,
        contact_id=contact.contact_id,
        name=contact.name,
        first_name=contact.first_name,
        last_name=contact.last_name,
        custom_fields=contact.custom_fields,
        tracked=contact.tracked,
    )


def check_received(wire: Wire, source: Source, contact: Contact, seq: int, outcome: int) -> None:
    mail = expected(source, contact, seq)
    received = wire.simulator.messages(contact.email)
    if mail is None:
        assert (outcome, received) == (FAILED, [])
        return
    assert outcome == ACCEPTED
    assert len(received) == 1
    (message,) = received
    assert message["html"] == mail.content.html
    assert message["subject"] == mail.content.subject
    assert words(message["text"]) == words(mail.content.text)
    if source.text is not None:
        assert message["text"] == mail.content.text
    assert [(header["name"], header["value"]) for header in message["headers"]] == mail.headers
    assert message["tags"] == dict(mail.tags)
    assert message["to"] == [contact.email]
    assert message["reply_to"] == STREAM.reply_to
    assert message["from"] == "Sarah at Acme <sarah@acme.example>"


def outcomes_of(report: Report) -> list[tuple[int, int]]:
    """(seq, outcome) of each row."""
    cells = rows.cells_of(report.outcomes)
    return [(int.from_bytes(row[1] or b""), int.from_bytes(row[3] or b"")) for row in cells]


def check_sent(wire: Wire, source: Source, people: list[Contact], mode: str) -> Report:
    people = [addressed(contact, LOCAL_PARTS[n % len(LOCAL_PARTS)]) for n, contact in enumerate(people)]
    numbered = list(enumerate(people, start=1))
    report = wire.submit(plan_of(source, mode), [row_of(seq, contact) for seq, contact in numbered])
    outcomes = outcomes_of(report)
    assert [seq for seq, _ in outcomes] == [seq for seq, _ in numbered]
    for (seq, contact), (_, outcome) in zip(numbered, outcomes, strict=True):
        check_received(wire, source, contact, seq, outcome)
    wire.simulator.forget()
    return report


# Groups of up to two travel one by one, so each contact comes three times, under three addresses.
people = st.lists(contacts(), min_size=1, max_size=4).map(lambda several: several * 3)


@given(source=sources(pages), people=people, mode=st.sampled_from(["slots", "slots", "slots", "simple"]))
def test_what_is_assembled_is_the_oracles(wire: Wire, source: Source, people: list[Contact], mode: str) -> None:
    check_sent(wire, source, people, mode)


@_slow
@given(source=sources(spread_pages), size_bytes=large_sizes_bytes, people=people)
@pytest.mark.long
def test_what_is_assembled_of_large_mails_is_the_oracles(
    wire: Wire, source: Source, size_bytes: int, people: list[Contact]
) -> None:
    check_sent(wire, inflate(source, size_bytes), people, "slots")


@given(source=sources(pages, with_text=False), people=people)
def test_what_is_assembled_of_made_texts_is_the_oracles(wire: Wire, source: Source, people: list[Contact]) -> None:
    check_sent(wire, source, people, "slots")


NEWSLETTER = Source(
    subject="{{ firstName|default('You', true) }}, {{ city }} calls",
    html=(
        "<html><head><style>@media screen{#id{color:red}}</style></head><body><p>Hi {{ firstName }}!</p>"
        "{% if vip %}<b>{{ goods|join(', ') }}</b>{% endif %}"
        '<a href="https://shop.example/?a=1&amp;b=2">Shop</a></body></html>'
    ),
    text="Hi {{ firstName }} {{ '{{' }}",
    preheader="News for {{ city }}",
)


def crowd(count: int, **fields: Any) -> list[Contact]:
    return [
        Contact("", n, first_name=f"N{n}", custom_fields={"city": "Köln", "goods": ["a", "b"], **fields})
        for n in range(1, count + 1)
    ]


def test_a_plain_newsletter_travels_in_slots(wire: Wire) -> None:
    report = check_sent(wire, NEWSLETTER, crowd(120, vip=True), "slots")
    assert (report.slots_recipients, report.simple_recipients, report.calls) == (120, 0, 3)


def test_one_by_one_gives_the_same(wire: Wire) -> None:
    report = check_sent(wire, NEWSLETTER, crowd(7, vip=False), "simple")
    assert (report.slots_recipients, report.simple_recipients, report.calls) == (0, 7, 7)


def test_a_recipient_whose_template_fails_fails_alone(wire: Wire) -> None:
    source = dataclasses.replace(NEWSLETTER, text="{{ score|round(1) }}")
    lucky, unlucky = crowd(6, score=2.25), crowd(3)
    report = check_sent(wire, source, [*lucky[:3], *unlucky, *lucky[3:]], "slots")
    assert report.counts == {ACCEPTED: 6, FAILED: 3}


def test_beyond_the_skeletons_the_rest_goes_one_by_one(wire: Wire) -> None:
    """Each number of goods is a skeleton of its own, and a plan keeps 256 of them."""
    source = dataclasses.replace(NEWSLETTER, html="{% for g in goods %}<p>{{ g }} for {{ firstName }}</p>{% endfor %}")
    buyers = [contact for count in range(270) for contact in crowd(3, goods=[f"{n}" for n in range(count)])]
    report = check_sent(wire, source, buyers, "slots")
    assert report.counts == {ACCEPTED: len(buyers)}
    assert (report.slots_recipients, report.simple_recipients) == (256 * 3, 14 * 3)
