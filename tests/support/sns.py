"""SNS for tests: an authority of our own, a host that serves its signing certificate, signed envelopes, and many posts of them."""

import asyncio
import base64
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from mailrail.config import SIMULATOR_TOPIC_ARN
from tests.support.load import http_request

SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
CERTIFICATE_PATH = "/SimpleNotificationService-0123456789abcdef.pem"
RECONNECT_S = 0.05


@dataclass(slots=True)
class Authority:
    """Signs envelopes. `fetches` counts every request that its certificate host got."""

    key: rsa.RSAPrivateKey
    certificate: bytes
    port: int = 0
    fetches: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        """For MAILRAIL_SNS_CERT_HOSTS."""
        return f"127.0.0.1:{self.port}"

    def write(self, file: Path) -> str:
        """The file for MAILRAIL_SNS_CA_FILE: the certificate is its own authority."""
        file.write_bytes(self.certificate)
        return str(file)

    def envelope(self, message_id: str, message: str, **changes: Any) -> dict[str, Any]:
        """A genuine one, of whatever else is asked for."""
        fields = {
            "Type": "Notification",
            "MessageId": message_id,
            "TopicArn": SIMULATOR_TOPIC_ARN,
            "Message": message,
            "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "SignatureVersion": "2",
            "SigningCertURL": f"http://{self.host}{CERTIFICATE_PATH}",
        } | changes
        return fields | {"Signature": self.sign(fields)}

    def sign(self, fields: dict[str, Any]) -> str:
        """The signature over what an envelope of its type signs."""
        names = SIGNED.get(str(fields.get("Type")), SIGNED["Notification"])
        text = "".join(f"{name}\n{fields[name]}\n" for name in names if name in fields)
        return base64.b64encode(self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


@contextmanager
def certified(days: int = 1) -> Iterator[Authority]:
    """An authority whose certificate can be fetched; it ends in so many days."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    authority = Authority(key, certificate.public_bytes(serialization.Encoding.PEM))

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authority.fetches.append(self.path)
            self.send_response(200 if self.path == CERTIFICATE_PATH else 404)
            self.send_header("Content-Length", str(len(authority.certificate)))
            self.end_headers()
            self.wfile.write(authority.certificate)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is its parent's
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        authority.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield authority
        server.shutdown()


def post_request(envelope: dict[str, Any]) -> bytes:
    """As SNS posts it, whole."""
    body = orjson.dumps(envelope)
    request = http_request("POST", "/events/sns", None, body)
    return request.replace(b"application/json", b"text/plain; charset=UTF-8", 1)


@dataclass(slots=True)
class Posted:
    """What came of many posts: the seconds each answer took, its status, and how often a connection was lost."""

    seconds: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    taken: set[int] = field(default_factory=set)
    lost: int = 0

    @property
    def per_second(self) -> float:
        """Posts that were answered."""
        return len(self.waits_s) / self.seconds

    def wait_ms(self, part: float) -> float:
        """The wait that `part` of the answers did not exceed."""
        return sorted(self.waits_s)[int(part * (len(self.waits_s) - 1))] * 1000


async def post_all(ports: Sequence[int], requests: Sequence[bytes], connections: int, seed: int = 0) -> Posted:
    """Posts each request twice, mixed within a window, over so many connections, each as soon as it has its answer. What got no
    200 is posted again, as SNS does.
    """
    chance, numbers = random.Random(seed), list(range(len(requests)))
    doubled = sorted(numbers * 2, key=lambda number: number + chance.random() * 1000)
    posted, waiting = Posted(), deque(doubled)
    begun = time.perf_counter()
    clients = [Client(ports[n % len(ports)], requests, waiting, posted) for n in range(connections)]
    await asyncio.gather(*(client.run() for client in clients))
    posted.seconds = time.perf_counter() - begun
    return posted


class Client(asyncio.Protocol):
    """One connection at a time, one request at a time."""

    def __init__(self, port: int, requests: Sequence[bytes], waiting: deque[int], posted: Posted) -> None:
        self._port, self._requests, self._waiting, self._posted = port, requests, waiting, posted
        self._number: int | None = None
        self._sent_at = 0.0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._ended = loop.create_future()
            with suppress(OSError):
                await loop.create_connection(lambda: self, "127.0.0.1", self._port)
                await self._ended
            if self._waiting:
                await asyncio.sleep(RECONNECT_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """An answer of ours is one segment; its status stands at its start."""
        status, number = int(data[9:12]), self._number
        self._posted.waits_s.append(time.perf_counter() - self._sent_at)
        self._posted.statuses[status] += 1
        self._number = None
        if number is not None:
            if status == 200:
                self._posted.taken.add(number)
            else:
                self._waiting.append(number)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """What had no answer is posted again."""
        if self._number is not None:
            self._posted.lost += 1
            self._waiting.append(self._number)
            self._number = None
        if not self._ended.done():
            self._ended.set_result(None)

    def _send(self) -> None:
        if not self._waiting:
            self._transport.close()
            return
        self._number = self._waiting.popleft()
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[self._number])
