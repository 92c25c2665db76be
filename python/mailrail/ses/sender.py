"""The core's sender of a process, and the keys that it signs with."""

import asyncio
import logging
from pathlib import Path

import orjson

from mailrail._core import Sender
from mailrail.config import Settings, ses_endpoint
from mailrail.ses import control

log = logging.getLogger(__name__)

KEYS_INTERVAL_S = 60.0
CONNECTIONS_MAX = 16


def make_sender(settings: Settings) -> Sender:
    """Connects to nothing yet, and has no keys."""
    ca_pem = Path(settings.ses_ca_file).read_text() if settings.ses_ca_file else None
    return Sender(
        orjson.dumps(
            {
                "endpoint": ses_endpoint(settings),
                "region": settings.ses_region,
                "ca_pem": ca_pem,
                "max_connections": CONNECTIONS_MAX,
                "call_timeout_ms": settings.call_timeout_ms,
            }
        )
    )


async def take_keys(sender: Sender, settings: Settings) -> None:
    """Gives the core the keys that hold now. Raises ControlError."""
    keys = await control.keys(settings)
    sender.set_credentials(keys.access_key, keys.secret_key, keys.session_token)


async def follow_keys(sender: Sender, settings: Settings, interval_s: float = KEYS_INTERVAL_S) -> None:
    """Keeps the core's keys fresh, until cancelled: those of a role change under way."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await take_keys(sender, settings)
        except control.ControlError as error:
            log.error("keys: the old ones stay (%s)", error)
