"""Other people's stand-ins take what we send: moto for SendEmail, aws-ses-v2-local for SendBulkEmail."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import boto3
import pytest
from moto.server import ThreadedMotoServer

from mailrail._core import Lease
from tests.oracle.assemble import Stream, assemble
from tests.oracle.content import Contact, Rendered, Source, freeze
from tests.oracle.tokens import Tokens
from tests.support.campaign import (
    ACCESS_KEY,
    ACCOUNT_ID,
    BASE_URL,
    REGION,
    SECRET,
    SECRET_ACCESS_KEY,
    STREAM_ID,
    make_plan,
    make_sender,
)
from tests.support.rows import Recipient, decode, encode
from tests.support.tools import require

OUTSIDE = Path(__file__).parents[2] / "outside"

HTML = "<p>Hi {{ firstName }}, {% if plan == 'pro' %}thanks & welcome{% else %}<b>upgrade?</b>{% endif %} {{ '{{' }}x}}</p>"
PEOPLE = [
    Recipient(seq, email=f"p{seq}@example.net", first_name=name, custom_fields={"plan": "pro" if seq % 2 else "free"})
    for seq, name in enumerate(["Ann", 'O"Neil', "Zoë <3", "a{{b}}c", "back\\slash", "🙂 שלום", "x" * 500, ""], start=1)
]


def lease() -> Lease:
    return Lease(Lease.now_ns() + 60 * 10**9)


@pytest.fixture
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


async def test_moto_takes_our_send_email(moto_url: str) -> None:
    client = boto3.client(
        "sesv2",
        endpoint_url=moto_url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )
    await asyncio.to_thread(client.create_email_identity, EmailIdentity="sarah@acme.example")
    # moto drops the text part where there is HTML and wants the bare address as sender.
    plan = make_plan(mode="simple", html=HTML, from_name=None)
    report = await make_sender(moto_url).submit(plan, encode(PEOPLE), lease())
    assert {row.outcome for row in decode(report.outcomes)} == {1}
    async with aiohttp.ClientSession() as http, http.get(f"{moto_url}/moto-api/data.json") as answer:
        messages = (await answer.json(content_type=None))["ses"]["Message"]
    assert len(messages) == len(PEOPLE)


@pytest.fixture
def ses_v2_local_url() -> Iterator[str]:
    require("npm")
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=OUTSIDE, check=True, capture_output=True
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = OUTSIDE / "node_modules/aws-ses-v2-local/dist/cli.js"
    with subprocess.Popen(
        ["node", str(program), "--port", str(port), "--host", "127.0.0.1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "server running" in line:
                break
        yield f"http://127.0.0.1:{port}"
        process.terminate()


async def test_aws_ses_v2_local_renders_our_slots(ses_v2_local_url: str) -> None:
    source = Source(
        subject="{{ firstName }} says hi", html=HTML, text="Hi {{ firstName }}: {{ plan }}", base_url=BASE_URL
    )
    plan = make_plan(html=source.html, subject=source.subject, text=source.text)
    report = await make_sender(ses_v2_local_url).submit(plan, encode(PEOPLE), lease())
    assert {row.outcome for row in decode(report.outcomes)} == {1}
    assert report.slots_recipients >= len(PEOPLE) - 2
    async with aiohttp.ClientSession() as http, http.get(f"{ses_v2_local_url}/store") as answer:
        stored = {mail["destination"]["to"][0]: mail for mail in (await answer.json())["emails"]}
    for person in PEOPLE:
        mail = stored[person.email]
        shown = Rendered(mail["subject"], mail["body"]["html"], mail["body"]["text"])
        assert shown == expected_message(source, person)


def expected_message(source: Source, person: Recipient) -> Rendered:
    """What the oracle, which shares no code with the core, says that this person must read."""
    contact = Contact(person.email, 1, person.name, person.first_name, person.last_name, person.custom_fields)
    stream = Stream(STREAM_ID, ACCOUNT_ID)
    mail = assemble(freeze(source), stream, contact, Tokens(SECRET), seq=person.seq, attempt=person.attempt)
    return mail.content
