"""Envelopes that are forged or odd: refused, without a connection to anywhere and without a trace in the database."""

import base64
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mailrail.config import SIMULATOR_TOPIC_ARN
from mailrail.db.pool import Pool
from mailrail.events.service import FETCHES_MAX
from tests.support.api import Api, running_api
from tests.support.identities import Identities
from tests.support.postgres import Database
from tests.support.sns import CERTIFICATE_PATH, Authority, certified

Body = Callable[[Authority], bytes]
EVENT = '{"eventType":"Delivery"}'
AMAZON = "https://sns.us-east-1.amazonaws.com"
PEM = "SimpleNotificationService-0123456789abcdef.pem"
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(**changes: Any) -> Body:
    """Really signed by our authority, yet odd."""
    return lambda authority: orjson.dumps(authority.envelope("m", EVENT, **changes))


def bent(**changes: Any) -> Body:
    """Genuine, then changed; a value of None takes the field away."""

    def make(authority: Authority) -> bytes:
        fields = authority.envelope("m", EVENT) | changes
        return orjson.dumps({name: value for name, value in fields.items() if value is not None})

    return make


def raw(change: Callable[[bytes], bytes]) -> Body:
    """A genuine envelope as bytes, then changed."""
    return lambda authority: change(orjson.dumps(authority.envelope("m", EVENT)))


def certificate(url: str) -> Body:
    """Signed by somebody, with a certificate elsewhere."""
    return signed(SigningCertURL=url)


def version_1(authority: Authority) -> bytes:
    """Signed by SHA-1, as topics are that nobody has set to version 2."""
    fields = authority.envelope("m", EVENT, SignatureVersion="1")
    names = ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
    text = "".join(f"{name}\n{fields[name]}\n" for name in names).encode()
    fields["Signature"] = base64.b64encode(authority.key.sign(text, padding.PKCS1v15(), hashes.SHA1())).decode()  # noqa: S303
    return orjson.dumps(fields)


def by_a_stranger(authority: Authority) -> bytes:
    """Signed by another key, under our certificate's address."""
    fields = authority.envelope("m", EVENT)
    text = "".join(f"{name}\n{fields[name]}\n" for name in ("Message", "MessageId", "Timestamp", "TopicArn", "Type"))
    signature = STRANGER.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return orjson.dumps(fields | {"Signature": base64.b64encode(signature).decode()})


CONFIRM = {
    "Type": "SubscriptionConfirmation",
    "Token": "t",
    "SubscribeURL": "http://127.0.0.1:9/?Action=ConfirmSubscription",
}
FORGERIES: dict[str, Body] = {
    # bytes
    "nothing": lambda _: b"",
    "no json": lambda _: b"hello",
    "null": lambda _: b"null",
    "a list": lambda _: b"[]",
    "an empty object": lambda _: b"{}",
    "a bare event, as raw delivery posts it": lambda _: EVENT.encode(),
    "cut short": raw(lambda body: body[:-1]),
    "something behind it": raw(lambda body: body + b"x"),
    "twice": raw(lambda body: body + body),
    "a key twice": raw(lambda body: body.replace(b"{", b'{"Type":"Notification",', 1)),
    "a key twice, once escaped": raw(lambda body: body.replace(b"{", b'{"Ty\\u0070e":"Notification",', 1)),
    "another topic under an escaped key": raw(lambda body: body.replace(b"{", b'{"Topic\\u0041rn":"arn:aws:sns:us-east-1:1:x",', 1)),
    "no UTF-8": raw(lambda body: body.replace(b'"m"', b'"\xff"')),
    "half a character": raw(lambda body: body.replace(b'"m"', b'"\\ud800"')),
    "a mark of byte order": raw(lambda body: b"\xef\xbb\xbf" + body),
    "UTF-16": raw(lambda body: body.decode().encode("utf-16")),
    "depth": lambda _: b'{"x":' + b"[" * 100_000,
    "many keys": lambda _: orjson.dumps({f"k{n}": "x" for n in range(1000)}),
    "size": lambda _: b'{"x":"' + b"x" * 1_040_000 + b'"}',
    # topic
    "another topic": signed(TopicArn="arn:aws:sns:us-east-1:999999999999:mailrail"),
    "another region": signed(TopicArn=SIMULATOR_TOPIC_ARN.replace("us-east-1", "us-east-2")),
    "a topic in capitals": signed(TopicArn=SIMULATOR_TOPIC_ARN.upper()),
    "a topic and a blank": signed(TopicArn=SIMULATOR_TOPIC_ARN + " "),
    "a topic and more": signed(TopicArn=SIMULATOR_TOPIC_ARN + "-2"),
    "no topic": bent(TopicArn=None),
    "a topic that is a number": bent(TopicArn=7),
    "a list of topics": bent(TopicArn=[SIMULATOR_TOPIC_ARN]),
    # version of the signature
    "version 1": version_1,
    "version 3": signed(SignatureVersion="3"),
    "version 2 as a number": bent(SignatureVersion=2),
    "no version": bent(SignatureVersion=None),
    # certificate
    "a certificate without TLS": certificate(f"http://sns.us-east-1.amazonaws.com/{PEM}"),
    "a certificate of somebody else": certificate(f"https://sns.example.com/{PEM}"),
    "a host that begins like Amazon's": certificate(f"{AMAZON}.example.com/{PEM}"),
    "a host that ends like Amazon's": certificate(f"https://evilsns.us-east-1.amazonaws.com/{PEM}"),
    "a bucket of somebody at Amazon": certificate(f"https://evil.s3.amazonaws.com/{PEM}"),
    "a host behind a user": certificate(f"{AMAZON}@127.0.0.1:9/{PEM}"),
    "a port": certificate(f"{AMAZON}:9/{PEM}"),
    "a query": certificate(f"{AMAZON}/{PEM}?x"),
    "a fragment": certificate(f"{AMAZON}/#/{PEM}"),
    "a path that climbs": certificate(f"{AMAZON}/../{PEM}"),
    "another file": certificate(f"{AMAZON}/evil.pem"),
    "a backslash": certificate(f"{AMAZON}\\@127.0.0.1:9/{PEM}"),
    "the certificate of another region": certificate(f"https://sns.eu-west-1.amazonaws.com/{PEM}"),
    "the machine's own data": certificate(f"http://169.254.169.254/{PEM}"),
    "another port of this machine": certificate(f"http://127.0.0.1:9/{PEM}"),
    "a file": certificate(f"file:///etc/{PEM}"),
    "a scheme in capitals": certificate(f"HTTPS://sns.us-east-1.amazonaws.com/{PEM}"),
    "no certificate": bent(SigningCertURL=None),
    # signature
    "no signature": bent(Signature=None),
    "an empty signature": bent(Signature=""),
    "no base64": bent(Signature="~~~"),
    "a signature of zeros": bent(Signature=base64.b64encode(bytes(256)).decode()),
    "the key of a stranger": by_a_stranger,
    "another message": bent(Message='{"eventType":"Bounce"}'),
    "another id": bent(MessageId="n"),
    "another time": bent(Timestamp="2026-11-23T12:00:00.000Z"),
    "a subject that nobody signed": bent(Subject="x"),
    "another type": bent(**CONFIRM),
    # time
    "yesterday's": signed(Timestamp="2026-11-01T12:00:00.000Z"),
    "tomorrow's": signed(Timestamp="2099-11-01T12:00:00.000Z"),
    "no time": signed(Timestamp="soon"),
    # type
    "a type that there is not": signed(Type="Other"),
    "a confirmation of another topic": signed(**CONFIRM, TopicArn="arn:aws:sns:us-east-1:999999999999:mailrail"),
    "a confirmation that nobody signed": bent(**CONFIRM, Signature="AAAA"),
    "an end of subscription that nobody signed": bent(Type="UnsubscribeConfirmation", Token="t", SubscribeURL="http://127.0.0.1:9/"),
    "a line feed in an id": signed(MessageId="m\nSubject\nx"),
}  # fmt: skip


@dataclass
class Connections:
    """Addresses to which this process connected while somebody watched."""

    watched: bool = False
    allowed: set[int] = field(default_factory=set)
    seen: list[Any] = field(default_factory=list)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What Python says whenever a socket connects or a name is looked up."""
        if not self.watched:
            return
        if event == "socket.connect" and arguments[0].family != socket.AF_UNIX and arguments[1][1] not in self.allowed:
            self.seen.append(arguments[1])
        if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", None):
            self.seen.append(arguments[0])


CONNECTIONS = Connections()
sys.addaudithook(CONNECTIONS.hear)  # it cannot be taken off again, so it listens only when told to


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    """Amazon's part."""
    with certified() as running:
        yield running


@pytest.fixture
async def api(
    database: Database, worker_pool: Pool, identities: Identities, authority: Authority, tmp_path: Path
) -> AsyncIterator[Api]:
    """An API that has the certificate already, as one that has worked for a while."""
    settings = database.settings(
        ses_endpoint=identities.endpoint,
        sns_topics=(SIMULATOR_TOPIC_ARN,),
        sns_cert_hosts=(authority.host,),
        sns_ca_file=authority.write(tmp_path / "authority.pem"),
    )
    async with running_api(settings, worker_pool) as running:
        assert (await post(running, orjson.dumps(authority.envelope("first", "{}")))) == 200
        yield running


async def post(api: Api, body: bytes) -> int:
    """The status of the answer."""
    return (await api.call("POST", "/events/sns", data=body)).status


async def state(pool: Pool) -> list[int]:
    """How much there is of what an envelope can leave behind."""
    async with pool.acquire() as conn:
        return [
            await conn.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("notifications", "notification_queue", "parked_notifications", "events", "suppressions")
        ]


async def test_forged_envelopes_reach_nobody_and_change_nothing(
    api: Api, authority: Authority, database: Database, worker_pool: Pool, identities: Identities
) -> None:
    assert len(FORGERIES) >= 50
    before, fetched = await state(worker_pool), len(authority.fetches)
    # To itself, to its database, and to SES for what the account grants.
    CONNECTIONS.allowed = {urlsplit(url).port or 0 for url in (api.base_url, database.worker_url, identities.endpoint)}
    CONNECTIONS.watched = True
    try:
        answers = {name: await post(api, make(authority)) for name, make in FORGERIES.items()}
    finally:
        CONNECTIONS.watched = False
    assert {name: status for name, status in answers.items() if status != 403} == {}
    assert CONNECTIONS.seen == []
    assert len(authority.fetches) == fetched
    assert await state(worker_pool) == before
    # The envelope that all of them were made from is good.
    assert await post(api, signed()(authority)) == 200


async def test_the_watch_sees_a_connection(authority: Authority) -> None:
    CONNECTIONS.allowed, CONNECTIONS.watched = set(), True
    try:
        with socket.create_connection(("127.0.0.1", authority.port)):
            pass
    finally:
        CONNECTIONS.watched = False
    assert [("127.0.0.1", authority.port)] == CONNECTIONS.seen
    CONNECTIONS.seen.clear()


async def test_who_names_many_certificates_makes_us_fetch_few(api: Api, authority: Authority) -> None:
    before = len(authority.fetches)
    for number in range(3 * FETCHES_MAX):
        url = f"http://{authority.host}/SimpleNotificationService-{number:016x}.pem"
        # It may be genuine for all we know, so SNS shall send it again.
        assert await post(api, certificate(url)(authority)) == 503
    assert 0 < len(authority.fetches) - before <= FETCHES_MAX
    assert CERTIFICATE_PATH not in authority.fetches[before:]
    assert await post(api, signed(MessageId="later")(authority)) == 200
