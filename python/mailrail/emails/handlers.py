"""What the workers do about sends without an answer: role `reconcile`."""

import asyncio
import logging
from datetime import timedelta

import orjson

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Plan, Sender, encode_recipient_row, freeze
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.emails import reconcile
from mailrail.emails.model import Patience
from mailrail.ses.limiter import Limiter, NoTokens

log = logging.getLogger(__name__)

IDLE_MAX_S = 1.0
# Amazon's mailbox simulator: a Delivery comes back, and no reputation is touched (SES guide, mailbox simulator).
CANARY_ADDRESS = "success@simulator.amazonses.com"
CANARY_CONTENT = {
    "subject": "Canary",
    "html": "<p>This mail proves that events come back.</p>",
    "text": "This mail proves that events come back.",
    "preheader": None,
    "track_opens": False,
    "track_clicks": False,
    "postal_address": None,
}


def patience(settings: Settings) -> Patience:
    """The settings about silence."""
    return Patience(
        fence=timedelta(seconds=settings.fence_s),
        unknown_max_age=timedelta(seconds=settings.unknown_max_age_s),
        event_lag_max=timedelta(seconds=settings.event_lag_max_s),
        mail_max_age=timedelta(seconds=settings.mail_max_age_s),
    )


class Reconciler:
    """Works off ripe unknowns, and sends canaries where silence is to prove something."""

    def __init__(self, pool: Pool, sender: Sender, limiter: Limiter, codec: Codec, settings: Settings) -> None:
        self._pool = pool
        self._sender = sender
        self._limiter = limiter
        self._codec = codec
        self._settings = settings
        self._patience = patience(settings)

    async def run(self) -> None:
        """Until cancelled."""
        while not is_cancelled():
            try:
                busy = await self.reconcile_once()
            except DATABASE_ERRORS as error:
                log.warning("reconciler: the database failed (%s)", type(error).__name__)
                busy = False
            except (CoreError, NoTokens) as error:
                log.error("reconciler: no canary could be sent (%s)", error)
                busy = False
            if not busy:
                await asyncio.sleep(min(IDLE_MAX_S, self._settings.fence_s / 10))

    async def reconcile_once(self) -> bool:
        """One shard; False when none was ripe."""
        async with self._pool.acquire() as conn:
            async with conn.transaction():
                done = await reconcile.reconcile_next(conn, self._patience)
            if done is None:
                await reconcile.drop_old_canaries(conn, self._patience)
                return False
            failpoints.hit("reconcile.committed", stream_id=done.stream_id, shard=done.shard)
        if done.permitted or done.given_up or done.waiting_for:
            log.info(
                "reconciler: stream=%d shard=%d permitted=%d given_up=%d waiting_for=%s",
                done.stream_id,
                done.shard,
                done.permitted,
                done.given_up,
                done.waiting_for or "nothing",
            )
        if done.canary_for is not None:
            await self.send_canary(done.canary_for)
        return True

    async def send_canary(self, stream_id: int) -> None:
        """From the sender, and through the configuration set, of the mail that is in doubt. Raises CoreError, NoTokens."""
        await asyncio.sleep(await self._limiter.take(1))
        async with self._pool.acquire() as conn:
            identity = await reconcile.read_identity(conn, stream_id)
            number = await reconcile.insert_canary(conn, identity["configuration_set"])
        identity |= {"stream_id": reconcile.CANARY_STREAM_ID, "list_id": 0, "mode": "simple"}
        content = CANARY_CONTENT | {"base_url": identity["base_url"]}
        plan = Plan(freeze(orjson.dumps(content)), orjson.dumps(identity), self._codec)
        lease = Lease(Lease.now_ns() + int(self._settings.lease_s * 1e9))
        row = encode_recipient_row(number, CANARY_ADDRESS, tracked=False)
        report = await self._sender.submit(plan, row, lease)
        log.info("reconciler: canary %d sent (%s)", number, report.counts)
