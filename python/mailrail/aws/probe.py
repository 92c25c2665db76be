"""`mailrail doctor --probe`: what only a real account can tell."""

from mailrail.config import Settings
from mailrail.errors import ConfigError


async def run(settings: Settings) -> int:
    """Sends a few mails to the mailbox simulator and says what came of them; returns the exit status."""
    raise ConfigError("this version does not probe; leave --probe out")
