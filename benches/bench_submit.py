"""The demo's newsletter handed to the SES stand-in over TLS: by the core, and by what one writes with boto3.

Method: distinct data per recipient; 20 KB of HTML and text, 13 links behind one track token, an unsubscribe URL of its own.
The stand-in is a process on this machine and answers at once. Every way is warmed up with the same first recipients,
whose mails must then be equal in the stand-in, byte for byte. The ways take turns, in several rounds; after each the
stand-in must have counted exactly what was sent, and nothing refused. CPU is that of the client process alone. boto3 gets
its tokens from the core and its contacts as ready dicts; the core reads its recipients from COPY bytes and writes
its outcomes into some.
"""

import argparse
import asyncio
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import minijinja
import orjson
from botocore.config import Config

import mailrail.up
from benches.machine import describe_machine, median
from mailrail._core import Codec, Lease, Plan, Sender, freeze
from mailrail.up import demo, demo_contacts
from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY
from tests.support.processes import descendants
from tests.support.rows import Recipient, encode
from tests.support.simulator import RunningSimulator, simulating

BASE_URL = "https://mail.example.com"
FROM_EMAIL = "news@example.com"
CONFIGURATION_SET = "mailrail"
STREAM_ID = (2968 * 8) << 32 | 7
ACCOUNT_ID, LIST_ID = 3, 5
LARGEST_BULK = 50
# As the worker does it: rounds of this size, as many shards at once, as many connections.
ROUND_ROWS, ROUNDS_AT_ONCE, CONNECTIONS_MAX = 1000, 3, 16
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Person:
    """A recipient, as a program that uses boto3 would hold it."""

    seq: int
    contact_id: int
    email: str
    first_name: str
    custom_fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to hand mails over, and what the stand-in counts it under."""

    name: str
    operation: str
    mode: str
    recipients: int
    prepare: Callable[[list[Person]], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Run:
    """One way, once."""

    per_second: float
    cpu_us: float
    simulator_cpu_us: float
    bytes_each: float


def main() -> int:
    """Status 0, or an exception when something was not counted or not equal."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0, help="recipients of each way, times this")
    chosen = options.parse_args()
    print(describe_machine())
    print(f"boto3 {boto3.__version__}, minijinja {version('minijinja')} from PyPI; TLS on loopback, no latency")
    with tempfile.TemporaryDirectory(prefix="mailrail-bench-") as folder:
        with simulating(Path(folder), retain_messages=10 * WARM_UP) as simulator:
            bench = Bench(simulator)
            ways = bench.ways(chosen.scale)
            bench.check(ways)
            runs: dict[str, list[Run]] = {way.name: [] for way in ways}
            for turn in range(chosen.runs):
                # There and back, so that no way always follows the same other.
                for way in ways if turn % 2 == 0 else reversed(ways):
                    runs[way.name].append(bench.measure(way))
    report(ways, runs)
    return 0


def report(ways: list[Way], runs: dict[str, list[Run]]) -> None:
    """Medians with their spread, and how often the core goes into its rivals."""
    rates = {way.name: median([run.per_second for run in runs[way.name]]) for way in ways}
    costs = {way.name: median([run.cpu_us for run in runs[way.name]]) for way in ways}
    for way in ways:
        taken = runs[way.name]
        lowest, highest = min(run.per_second for run in taken), max(run.per_second for run in taken)
        least, most = min(run.cpu_us for run in taken), max(run.cpu_us for run in taken)
        print(
            f"{way.name:<26} {rates[way.name]:>8,.0f} recipients/s [{lowest:,.0f}..{highest:,.0f}],"
            f" client CPU {costs[way.name]:,.1f} µs each [{least:,.1f}..{most:,.1f}],"
            f" simulator CPU {median([run.simulator_cpu_us for run in taken]):,.1f} µs,"
            f" {taken[0].bytes_each:,.0f} B each ({way.recipients:,} a run)"
        )
    for core, rival in ((0, 3), (0, 2), (1, 2)):
        ours, theirs = ways[core].name, ways[rival].name
        print(
            f"{ours} against {theirs}: {rates[ours] / rates[theirs]:.1f} times the rate,"
            f" {costs[theirs] / costs[ours]:.1f} times less client CPU"
        )


class Bench:
    """Everything that is made once."""

    def __init__(self, simulator: RunningSimulator) -> None:
        self.simulator = simulator
        (self.simulator_pid,) = descendants(os.getpid())
        self.loop = asyncio.new_event_loop()
        self.codec = Codec(b"a secret of the benches, long enough to be one")
        folder = Path(mailrail.up.__file__).parent
        source = {
            "subject": demo.SUBJECT,
            "html": (folder / "demo_newsletter.html").read_text(),
            "text": (folder / "demo_newsletter.txt").read_text(),
            "preheader": demo.PREHEADER,
            "base_url": BASE_URL,
            "track_opens": True,
            "track_clicks": True,
            "postal_address": None,
        }
        frozen = freeze(orjson.dumps(source))
        self.frozen: dict[str, str] = orjson.loads(frozen)
        self.slots_plan, self.simple_plan = self._plan(frozen, "slots"), self._plan(frozen, "simple")
        options = {
            "endpoint": simulator.endpoint,
            "region": REGION,
            "ca_pem": simulator.ca_pem,
            "max_connections": CONNECTIONS_MAX,
        }
        self.sender = Sender(orjson.dumps(options))
        self.sender.set_credentials(ACCESS_KEY, SECRET_ACCESS_KEY, None)
        self.rendering = Rendering(self.frozen, self.codec)
        self.plain_client = self._client(Config(retries={"total_max_attempts": 1}))
        self.lean_client = self._client(Config(retries={"total_max_attempts": 1}, parameter_validation=False))

    def ways(self, scale: float) -> list[Way]:
        """The core's two, then boto3's two."""

        def times(recipients: int) -> int:
            return max(LARGEST_BULK, int(recipients * scale))

        return [
            Way("core, slots", "SendBulkEmail", "slots", times(40_000), lambda who: self._core(self.slots_plan, who)),
            Way("core, simple", "SendEmail", "simple", times(8_000), lambda who: self._core(self.simple_plan, who)),
            Way("minijinja + boto3", "SendEmail", "simple", times(1_500), self._send_email),
            Way("boto3 bulk, hand-made slots", "SendBulkEmail", "slots", times(10_000), self._send_bulk_email),
        ]

    def check(self, ways: list[Way]) -> None:
        """Warms every way up, and compares what the readers of the same recipients get."""
        who = people(WARM_UP)
        received: dict[str, list[object]] = {}
        for way in ways:
            self.simulator.forget()
            way.prepare(who)()
            received[way.name] = [self._mail(person.email) for person in who]
        first = received[ways[0].name]
        for name, mails in received.items():
            for one, other in zip(first, mails, strict=True):
                if one != other:
                    raise SystemExit(f"{name} sends other mails than {ways[0].name}:\n{one}\n{other}")
        print(f"checked: the {len(ways)} ways give {WARM_UP} equal mails")

    def measure(self, way: Way) -> Run:
        """Sends once, and counts."""
        send = way.prepare(people(way.recipients))
        self.simulator.forget()
        counted, simulator_cpu_s = self.simulator.get("stats"), process_cpu_s(self.simulator_pid)
        cpu_s, begun = client_cpu_s(), time.perf_counter()
        send()
        seconds, cpu_s = time.perf_counter() - begun, client_cpu_s() - cpu_s
        simulator_cpu_s = process_cpu_s(self.simulator_pid) - simulator_cpu_s
        return Run(
            way.recipients / seconds,
            cpu_s / way.recipients * 1e6,
            simulator_cpu_s / way.recipients * 1e6,
            check_counts(way, counted, self.simulator.get("stats")) / way.recipients,
        )

    def _mail(self, email: str) -> object:
        (message,) = self.simulator.messages(email)
        # Sent by another operation, at another time, under another number; the rest is what the reader gets.
        return {name: message[name] for name in ("from", "to", "subject", "html", "text", "headers", "tags")}

    def _plan(self, frozen: bytes, mode: str) -> Plan:
        stream: dict[str, Any] = {
            "stream_id": STREAM_ID,
            "account_id": ACCOUNT_ID,
            "list_id": LIST_ID,
            "from_name": None,
            "from_email": FROM_EMAIL,
            "reply_to": [],
            "configuration_set": CONFIGURATION_SET,
            "base_url": BASE_URL,
            "mode": mode,
        }
        return Plan(frozen, orjson.dumps(stream), self.codec)

    def _client(self, config: Config) -> Any:
        return boto3.client(
            "sesv2",
            endpoint_url=self.simulator.endpoint,
            verify=str(self.simulator.directory / "ca.pem"),
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            config=config,
        )

    def _core(self, plan: Plan, who: list[Person]) -> Callable[[], None]:
        rounds = [encode(map(row, who[at : at + ROUND_ROWS])) for at in range(0, len(who), ROUND_ROWS)]

        async def send() -> None:
            lease, waiting = Lease(Lease.now_ns() + 300 * 10**9), iter(rounds)

            async def shard() -> None:
                for rows in waiting:
                    sent = await self.sender.submit(plan, rows, lease)
                    assert list(sent.counts) == [1], sent.counts

            await asyncio.gather(*(shard() for _ in range(ROUNDS_AT_ONCE)))

        return lambda: self.loop.run_until_complete(send())

    def _send_email(self, who: list[Person]) -> Callable[[], None]:
        def send() -> None:
            for person in who:
                mail = self.rendering.mail(person)
                content = {
                    "Subject": {"Data": mail["subject"], "Charset": "UTF-8"},
                    "Body": {
                        "Text": {"Data": mail["text"], "Charset": "UTF-8"},
                        "Html": {"Data": mail["html"], "Charset": "UTF-8"},
                    },
                    "Headers": self.rendering.headers(person),
                }
                self.plain_client.send_email(
                    FromEmailAddress=FROM_EMAIL,
                    ConfigurationSetName=CONFIGURATION_SET,
                    Destination={"ToAddresses": [person.email]},
                    Content={"Simple": content},
                    EmailTags=self.rendering.tags(person),
                )

        return send

    def _send_bulk_email(self, who: list[Person]) -> Callable[[], None]:
        def send() -> None:
            for at in range(0, len(who), LARGEST_BULK):
                answer = self.lean_client.send_bulk_email(
                    FromEmailAddress=FROM_EMAIL,
                    ConfigurationSetName=CONFIGURATION_SET,
                    DefaultContent={
                        "Template": {"TemplateContent": self.rendering.template_content, "TemplateData": "{}"}
                    },
                    BulkEmailEntries=[self.rendering.entry(person) for person in who[at : at + LARGEST_BULK]],
                )
                assert all(result["Status"] == "SUCCESS" for result in answer["BulkEmailEntryResults"])

        return send


class Rendering:
    """What somebody writes who knows minijinja, SES and this newsletter."""

    def __init__(self, frozen: dict[str, str], codec: Codec) -> None:
        self._codec = codec
        self._environment = minijinja.Environment(
            templates={name: frozen[name] for name in ("subject", "html", "text")},
            keep_trailing_newline=True,
            undefined_behavior="chainable",
            auto_escape_callback=lambda name: name == "html",
            # The newsletter's CSS has `{#`.
            comment_start_string="\0{",
            comment_end_string="}\0",
        )
        found = {part: _CHOICE.search(frozen[part]) for part in ("html", "text")}
        self._choices = {part: (match[1], match[2]) for part, match in found.items() if match}
        self.template_content = {
            "Subject": with_slots(frozen["subject"], _SUBJECT_SLOTS),
            "Html": with_slots(_CHOICE.sub("{{ choice }}", frozen["html"]), _HTML_SLOTS),
            "Text": with_slots(_CHOICE.sub("{{ choice }}", frozen["text"]), _TEXT_SLOTS),
        }

    def mail(self, person: Person) -> dict[str, str]:
        """The three parts by the template engine."""
        values = {
            **person.custom_fields,
            "firstName": person.first_name,
            "mailrail": {"t": self._codec.track_token(STREAM_ID, person.seq)},
        }
        unsubscribe_url = self._unsubscribe_url(person)
        render = self._environment.render_template
        return {
            "subject": render("subject", **values),
            "html": render("html", **values, unsubscribeUrl=minijinja.safe(unsubscribe_url)),
            "text": render("text", **values, unsubscribeUrl=unsubscribe_url),
        }

    def entry(self, person: Person) -> dict[str, Any]:
        """The pieces by hand: f-strings and `html.escape`."""
        company, city, plan = (person.custom_fields[name] for name in ("company", "city", "plan"))
        chosen = 0 if plan == "enterprise" else 1
        data = {
            "name": person.first_name or "Hello",
            "nameHtml": escape(person.first_name or "reader"),
            "nameText": person.first_name or "reader",
            "company": company,
            "companyHtml": escape(company),
            "city": city,
            "cityHtml": escape(city),
            "choiceHtml": self._choices["html"][chosen].replace("{{ plan }}", escape(plan)),
            "choiceText": self._choices["text"][chosen].replace("{{ plan }}", plan),
            "points": str(person.custom_fields["points"]),
            "t": self._codec.track_token(STREAM_ID, person.seq),
            "unsubscribeUrl": self._unsubscribe_url(person),
            "braces": "}}",
        }
        return {
            "Destination": {"ToAddresses": [person.email]},
            "ReplacementEmailContent": {
                "ReplacementTemplate": {"ReplacementTemplateData": orjson.dumps(data).decode()}
            },
            "ReplacementHeaders": self.headers(person),
            "ReplacementTags": self.tags(person),
        }

    def headers(self, person: Person) -> list[dict[str, str]]:
        """One-click unsubscribing and the mail's id."""
        return [
            {"Name": "List-Unsubscribe", "Value": f"<{self._unsubscribe_url(person)}>"},
            {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
            {"Name": "X-Mailrail-Id", "Value": self._codec.encode_id("eml", STREAM_ID, person.seq)},
        ]

    def tags(self, person: Person) -> list[dict[str, str]]:
        """By which events find back."""
        return [{"Name": "mr", "Value": self._codec.encode_id("tag", STREAM_ID, person.seq, 1).removeprefix("tag_")}]

    def _unsubscribe_url(self, person: Person) -> str:
        token = self._codec.unsubscribe_token(ACCOUNT_ID, person.contact_id, LIST_ID, STREAM_ID, person.seq)
        return f"{BASE_URL}/u/{token}"


_CHOICE = re.compile(r'\{% if plan == "enterprise" %\}(.*?)\{% else %\}(.*?)\{% endif %\}', re.DOTALL)
_SUBJECT_SLOTS = {"firstName or 'Hello'": "name", "company": "company"}
_BODY_SLOTS = {"points": "points", "mailrail.t": "t", "unsubscribeUrl": "unsubscribeUrl"}
_HTML_SLOTS = {
    **_BODY_SLOTS,
    "choice": "choiceHtml",
    'firstName or "reader"': "nameHtml",
    "company": "companyHtml",
    "city": "cityHtml",
}
_TEXT_SLOTS = {
    **_BODY_SLOTS,
    "choice": "choiceText",
    'firstName or "reader"': "nameText",
    "company": "company",
    "city": "city",
}


def with_slots(source: str, slots: dict[str, str]) -> str:
    """The source as an SES inline template; an expression without a slot is a KeyError."""
    pieces = re.split(r"\{\{ (.+?) \}\}", source)
    # What closes two blocks of the newsletter's CSS would be taken for the end of a slot.
    literals = [piece.replace("}}", "{{braces}}") for piece in pieces[0::2]]
    names = ["{{" + slots[expression] + "}}" for expression in pieces[1::2]]
    return "".join(piece for pair in zip(literals, [*names, ""], strict=True) for piece in pair)


def people(count: int) -> list[Person]:
    """The demo's readers."""
    return [
        Person(
            seq=n + 1,
            contact_id=1_000_000 + n,
            email=f"reader.{n}@{demo_contacts.READER_HOST}",
            first_name=demo_contacts.names(n)[0],
            custom_fields=demo_contacts.custom_fields(n),
        )
        for n in range(count)
    ]


def row(person: Person) -> Recipient:
    """The same person in a round."""
    return Recipient(
        seq=person.seq,
        email=person.email,
        contact_id=person.contact_id,
        first_name=person.first_name,
        custom_fields=person.custom_fields,
    )


def check_counts(way: Way, before: dict[str, Any], after: dict[str, Any]) -> int:
    """The request bytes of a run, which must have reached exactly its recipients and by its operation."""
    nothing = {"recipients": 0, "request_bytes": 0}
    old = before[way.operation].get(way.mode, nothing)
    new = after[way.operation].get(way.mode, nothing)
    counted = (new["recipients"] - old["recipients"], after["accepted"] - before["accepted"])
    refused = (after["rejected_calls"], after["rejected_entries"], after["faults"])
    if counted != (way.recipients, way.recipients) or any(refused):
        raise SystemExit(f"{way.name}: {way.recipients} were sent, {counted} counted, {refused} refused")
    return int(new["request_bytes"] - old["request_bytes"])


def client_cpu_s() -> float:
    """CPU seconds of this process and all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def process_cpu_s(pid: int) -> float:
    """CPU seconds of another process, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
