"""The probe's mails: single requests as no campaign would make them, to the mailbox simulator, and what SES tells of them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from mailrail._core import Codec
from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.emails import reconcile
from mailrail.errors import MailrailError
from mailrail.ses.clients import client
from mailrail.ses.limiter import Limiter, NoTokens

# What is said of a request that is at fault itself, the last three by whoever stands before SES and finds it too large; of
# other refusals (the sender, the rate) the request is not the cause.
FAULTS = ("BadRequestException", "413", "RequestEntityTooLarge", "RequestEntityTooLargeException")
THROTTLES = ("TooManyRequestsException", "ThrottlingException", "Throttling", "ACCOUNT_THROTTLED")
SUCCESS = "SUCCESS"
# The largest request is a megabyte.
READ_TIMEOUT_S = 30.0
POLL_S = 0.25
DEAF = "no events came: run `mailrail doctor --aws` first, and have `mailrail api` and `mailrail worker` running"


class ProbeFailed(MailrailError):
    """A check could not be made; the message says why."""

    code = "probe_failed"


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail of the probe says, and to whom beside its own address."""

    subject: str = "Probe {{a}}"
    html: str = "<p>{{a}}</p>"
    text: str = "{{a}}"
    data: dict[str, str] = field(default_factory=lambda: {"a": "x"})
    headers: Sequence[tuple[str, str]] = ()
    tags: Sequence[tuple[str, str]] = ()
    default_tags: Sequence[tuple[str, str]] = ()
    other_addresses: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """How SES answered: the code and words of a refusal of the whole call, or (status, words) of each entry."""

    number: int
    error: tuple[str, str] | None
    entries: list[tuple[str, str]]

    @property
    def is_accepted(self) -> bool:
        """Whether the mail to the simulator was taken."""
        return self.error is None and bool(self.entries) and self.entries[0][0] == SUCCESS

    @property
    def refusal(self) -> tuple[str, str]:
        """Why it was not."""
        return self.error or (self.entries[0] if self.entries else ("", "no entry in the answer"))

    @property
    def is_throttled(self) -> bool:
        """Whether it came too fast."""
        return not self.is_accepted and self.refusal[0] in THROTTLES

    @property
    def words(self) -> str:
        """The refusal in a few words."""
        code, text = self.refusal
        return f"{code} {text!r}" if text else code


@dataclass(frozen=True, slots=True)
class Heard:
    """What the events told of a mail."""

    delivered: bool
    failure: str | None
    event: dict[str, Any]


class Post:
    """Sends the probe's mails at the installation's pace and listens for their events. One that hears nothing once is deaf from
    then on, so that the checks after it end soon.
    """

    def __init__(
        self, pool: Pool, settings: Settings, limiter: Limiter, codec: Codec, sender: str | None, patience_s: float
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._limiter = limiter
        self._codec = codec
        self._patience_s = patience_s
        self.sender = sender
        self.is_deaf = False
        # Whether the second check's plain mail was taken: only then is it a finding that another is refused.
        self.takes_plain = False
        # Replies of the first check, which the fourth reads once more.
        self.throttled: list[Reply] = []

    async def rate(self) -> float:
        """Recipients a second that may be sent."""
        limits = await self._limiter.look()
        return limits.rate if limits.is_open else 0.0

    async def take_tokens(self, mails: int) -> None:
        """Waits until so many may be sent. Raises ProbeFailed."""
        try:
            await asyncio.sleep(await self._limiter.take(mails))
        except NoTokens as error:
            raise ProbeFailed(
                "Amazon SES takes no mail of this account now: sending is off, or its quota is used up"
            ) from error

    async def send(self, letter: Letter) -> Reply:
        """One mail at the installation's pace. Raises ProbeFailed where SES gave no answer at all."""
        await self.take_tokens(1 + len(letter.other_addresses))
        return await self.send_now(letter)

    async def send_now(self, letter: Letter) -> Reply:
        """For which the tokens are taken. Raises ProbeFailed where SES gave no answer at all."""
        async with self._pool.acquire() as conn:
            number = await reconcile.insert_canary(conn, self._settings.configuration_set or None)
        try:
            answer = await asyncio.to_thread(
                lambda: client(self._settings, "sesv2", READ_TIMEOUT_S, 1).send_bulk_email(
                    **self._request(letter, number)
                )
            )
        except ClientError as error:
            told = error.response.get("Error", {})
            return Reply(number, (told.get("Code", ""), told.get("Message", "")), [])
        except (BotoCoreError, RuntimeError, OSError) as error:
            raise ProbeFailed(f"Amazon SES did not answer ({type(error).__name__})") from error
        results = answer.get("BulkEmailEntryResults", [])
        return Reply(number, None, [(one.get("Status", ""), one.get("Error", "")) for one in results])

    async def hear(self, number: int) -> Heard | None:
        """What its events tell, once they say how it ended; None where none came in time."""
        until = time.monotonic() + (0 if self.is_deaf else self._patience_s)
        while True:
            async with self._pool.acquire() as conn:
                delivered, failure, event = await reconcile.read_heard(conn, number)
            if delivered or failure is not None:
                return Heard(delivered, failure, orjson.loads(event) if event else {})
            if time.monotonic() >= until:
                self.is_deaf = True
                return None
            await asyncio.sleep(POLL_S)

    def _request(self, letter: Letter, number: int) -> dict[str, Any]:
        tag = self._codec.encode_id("tag", reconcile.CANARY_STREAM_ID, number, 1).removeprefix("tag_")
        addresses = (f"success+{number}@simulator.amazonses.com", *letter.other_addresses)
        request: dict[str, Any] = {
            "FromEmailAddress": self.sender,
            "DefaultEmailTags": _tags(letter.default_tags),
            "DefaultContent": {
                "Template": {
                    "TemplateContent": {"Subject": letter.subject, "Html": letter.html, "Text": letter.text},
                    "TemplateData": "{}",
                }
            },
            "BulkEmailEntries": [
                {
                    "Destination": {"ToAddresses": [address]},
                    "ReplacementEmailContent": {
                        "ReplacementTemplate": {"ReplacementTemplateData": orjson.dumps(letter.data).decode()}
                    },
                    "ReplacementTags": _tags([*letter.tags, ("mr", tag)]),
                    "ReplacementHeaders": [{"Name": name, "Value": value} for name, value in letter.headers],
                }
                for address in addresses
            ],
        }
        if self._settings.configuration_set:
            request["ConfigurationSetName"] = self._settings.configuration_set
        return request


def _tags(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in pairs]
