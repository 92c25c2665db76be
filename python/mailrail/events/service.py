"""Intake: from HTTP bodies to stored notifications. Requests that wait at the same time share one verification call
and one commit, so the database sees batches however many connections SNS opens.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailrail import failpoints
from mailrail._core import Envelope, SnsVerifier
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.events import store
from mailrail.events.model import IntakeUnavailable, Notification, NotificationRefused, storable

log = logging.getLogger(__name__)

BATCH_MAX = 500
# SNS repeats for at most an hour; older envelopes are replays.
ENVELOPE_MAX_AGE_S = 3600
CERTIFICATE_MAX_BYTES = 64 * 1024
FETCH_TIMEOUT = aiohttp.ClientTimeout(total=5)
# So many certificates may be fetched in so many seconds.
FETCHES_MAX = 10
FETCHES_PERIOD_S = 60.0


class CertificateUnusable(Exception):
    """An SNS signing certificate that could not be had or does not hold."""


class Intake:
    """Takes SNS envelopes; one per API process."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._verifier = SnsVerifier(list(settings.sns_topics), list(settings.sns_cert_hosts), ENVELOPE_MAX_AGE_S)
        self._authorities = _read_certificates(settings.sns_ca_file)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._fetched_at: deque[float] = deque()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work off what `take` is handed."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finishes what waits, then ends."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()

    async def take(self, body: bytes) -> None:
        """Returns once the envelope is durable, or was one to confirm. Raises NotificationRefused, IntakeUnavailable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, done))
        self._arrived.set()
        await done

    async def _run(self) -> None:
        while not is_cancelled():
            await self._arrived.wait()
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            if not self._waiting:
                self._arrived.clear()
            try:
                with failpoints.span("event", rows=len(batch)):
                    await self._take_batch(batch)
            except Exception as error:
                log.exception("intake: a batch of %d failed", len(batch))
                _answer(batch, error)

    async def _take_batch(self, batch: Sequence[tuple[bytes, asyncio.Future[None]]]) -> None:
        envelopes = await self._verify([body for body, _ in batch])
        failpoints.hit("intake.verified", rows=len(batch))
        notifications, others = [], []
        for envelope, (_, done) in zip(envelopes, batch, strict=True):
            if envelope.status == "need_certificate":
                # It may be genuine, and SNS would not send it again after a refusal.
                _finish(done, IntakeUnavailable())
            elif envelope.status != "ok":
                log.warning("intake: refused (%s)", envelope.reason)
                _finish(done, NotificationRefused())
            elif envelope.type == "Notification":
                notifications.append((envelope, done))
            else:
                others.append((envelope, done))
        await self._store(notifications)
        for envelope, done in others:
            await self._confirm(envelope, done)

    async def _verify(self, bodies: list[bytes]) -> list[Envelope]:
        envelopes = await asyncio.to_thread(self._verifier.verify, bodies)
        wanted = Counter(e.certificate_url for e in envelopes if e.status == "need_certificate" and e.certificate_url)
        if not wanted:
            return envelopes
        # What most of them name first: that is Amazon's, as far as anybody here can tell.
        for url, _ in wanted.most_common():
            if not self._may_fetch():
                log.warning("intake: too many signing certificates are asked for; the rest has to wait")
                break
            try:
                self._verifier.add_certificate_key(url, await self._fetch_key(url))
            except (CertificateUnusable, aiohttp.ClientError, TimeoutError) as error:
                log.warning("intake: signing certificate unusable (%s)", str(error) or type(error).__name__)
        return await asyncio.to_thread(self._verifier.verify, bodies)

    def _may_fetch(self) -> bool:
        """Amazon has one certificate at a time. Who knows our topic can name others, and shall not make us fetch them all."""
        now = time.monotonic()
        while self._fetched_at and self._fetched_at[0] <= now - FETCHES_PERIOD_S:
            self._fetched_at.popleft()
        if len(self._fetched_at) >= FETCHES_MAX:
            return False
        self._fetched_at.append(now)
        return True

    async def _fetch_key(self, url: str) -> bytes:
        """The public key (SPKI, DER) of the certificate at `url`, whose host the verifier has approved."""
        async with (
            aiohttp.ClientSession(timeout=FETCH_TIMEOUT) as http,
            http.get(url, allow_redirects=False) as answer,
        ):
            pem = await answer.content.read(CERTIFICATE_MAX_BYTES + 1)
            if answer.status != 200 or len(pem) > CERTIFICATE_MAX_BYTES:
                raise CertificateUnusable("it could not be fetched")
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise CertificateUnusable("it is not a certificate") from error
        if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
            raise CertificateUnusable("it is not valid today")
        # Amazon's certificates are vouched for by the TLS connection to Amazon's own host; those of any other host
        # must come from the authority that the operator named.
        if urlsplit(url).netloc in self._settings.sns_cert_hosts and not _issued_by(certificate, self._authorities):
            raise CertificateUnusable("it was not issued by the authority in MAILRAIL_SNS_CA_FILE")
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def _store(self, notifications: Sequence[tuple[Envelope, asyncio.Future[None]]]) -> None:
        if not notifications:
            return
        envelopes = [envelope for envelope, _ in notifications]
        failure: Exception | None = None
        try:
            async with self._pool.acquire() as conn:
                await store.insert_notifications(
                    conn,
                    [
                        Notification(
                            envelope.message_id, envelope.topic_arn, storable(envelope.message.decode(errors="replace"))
                        )
                        for envelope in envelopes
                    ],
                )
            failpoints.hit("intake.stored", rows=len(envelopes))
        except DATABASE_ERRORS as error:
            log.warning("intake: %d notifications not stored (%s)", len(envelopes), type(error).__name__)
            failure = IntakeUnavailable()
        for _, done in notifications:
            _finish(done, failure)

    async def _confirm(self, envelope: Envelope, done: asyncio.Future[None]) -> None:
        """Confirms a subscription of an allowed topic, at the host that signed for it."""
        failure: Exception | None = None
        if envelope.type == "SubscriptionConfirmation" and envelope.subscribe_url:
            try:
                async with (
                    aiohttp.ClientSession(timeout=FETCH_TIMEOUT) as http,
                    http.get(envelope.subscribe_url, allow_redirects=False) as answer,
                ):
                    log.info("intake: subscription of %s confirmed (%d)", envelope.topic_arn, answer.status)
                    failure = None if answer.status == 200 else IntakeUnavailable()
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("intake: subscription not confirmed (%s)", type(error).__name__)
                failure = IntakeUnavailable()
        _finish(done, failure)


def _finish(done: asyncio.Future[None], failure: Exception | None) -> None:
    if done.done():
        return  # the connection went away meanwhile
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


def _answer(batch: Sequence[tuple[bytes, asyncio.Future[None]]], failure: Exception) -> None:
    for _, done in batch:
        _finish(done, IntakeUnavailable(str(failure)))


def _read_certificates(path: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(Path(path).read_bytes()) if path else []


def _issued_by(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
            return True
        except (ValueError, TypeError, InvalidSignature):
            continue
    return False
