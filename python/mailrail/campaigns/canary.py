"""Canaries of campaigns: part of the workers' role `reconcile`. A campaign that begins with simple is sent ahead to Amazon's
mailbox simulator by slots, with the hardest values there are; what comes back decides how it goes on.

They are nobody's recipients: not in the audience, not billed. They take tokens of the limiter like all mail.
"""

import asyncio
import logging
from typing import Any

import orjson

from mailrail import failpoints
from mailrail._core import Codec, CoreError, Lease, Plan, Sender, TemplateError, encode_recipient_row
from mailrail.campaigns import canary_store, worst_case
from mailrail.campaigns.canary_store import Awaited, Due
from mailrail.campaigns.delivery import Delivery, Mode, judge
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.emails.model import Outcome
from mailrail.emails.reconcile import CANARY_STREAM_ID
from mailrail.ses.limiter import Limiter, NoTokens

log = logging.getLogger(__name__)

IDLE_S = 0.5
# After one that could not be sent.
RETRY_S = 2.0
# These say nothing about the template: the canary is sent once more.
AGAIN = (Outcome.DEFERRED, Outcome.NOT_WRITTEN)


class Canaries:
    """Sends them ahead of campaigns, and decides by what came back. Any number of workers may do so side by side."""

    def __init__(self, pool: Pool, sender: Sender, limiter: Limiter, codec: Codec, settings: Settings) -> None:
        self._pool = pool
        self._sender = sender
        self._limiter = limiter
        self._codec = codec
        self._settings = settings

    async def run(self) -> None:
        """Until cancelled."""
        while not is_cancelled():
            busy = False
            try:
                busy = await self.send_next()
                await self.decide_all()
            except DATABASE_ERRORS as error:
                log.warning("canaries: the database failed (%s)", type(error).__name__)
            except (CoreError, NoTokens) as error:
                log.error("canaries: one could not be sent (%s)", error)
            if not busy:
                await asyncio.sleep(IDLE_S)

    async def send_next(self) -> bool:
        """The canaries of one campaign; False when none waits for any. Raises CoreError, NoTokens."""
        async with self._pool.acquire() as conn, conn.transaction():
            due = await canary_store.take_due(conn, self._settings.lease_s)
            if due is None:
                return False
            numbers = due.sent
            try:
                plan = self._plan(due)
                contacts = choose_contacts(plan, due)
            except CoreError as error:
                why_not = f"No canary could be made, because the template cannot be rendered: {error}"
                await canary_store.decide(conn, due.stream_id, Delivery(Mode.SIMPLE, why_not))
                return True
            if not numbers:
                configuration_set = orjson.loads(due.identity)["configuration_set"]
                numbers = await canary_store.insert_canaries(
                    conn, due.stream_id, configuration_set, contacts, self._settings.lease_s
                )
        failpoints.hit("canary.noted", stream_id=due.stream_id)
        try:
            for number in numbers:
                await self._send(plan, number, due.stream_id)
        except (CoreError, NoTokens):
            async with self._pool.acquire() as conn:
                await canary_store.put_off(conn, due.stream_id, RETRY_S)
            raise
        return True

    def _plan(self, due: Due) -> Plan:
        """The campaign as its recipients get it, under the stream of canaries."""
        identity = orjson.loads(due.identity) | {"stream_id": CANARY_STREAM_ID, "list_id": 0, "mode": "canary"}
        return Plan(due.content.encode(), orjson.dumps(identity), self._codec)

    async def _send(self, plan: Plan, number: int, stream_id: int) -> None:
        """By a call of its own, which is of SendBulkEmail or of nothing."""
        await asyncio.sleep(await self._limiter.take(1))
        async with self._pool.acquire() as conn:
            contact = await canary_store.read_contact(conn, number)
        row = encode_recipient_row(
            number,
            address_of(number),
            name=contact["name"],
            first_name=contact["first_name"],
            last_name=contact["last_name"],
            custom_fields=orjson.dumps(contact["custom_fields"]),
        )
        report = await self._sender.submit(plan, row, Lease(Lease.now_ns() + int(self._settings.lease_s * 1e9)))
        await self._limiter.throttled(report.throttled)
        ((_, code, _, error),) = report.rows
        outcome = Outcome(code)
        log.info("canaries: stream=%d canary=%d %s (%s)", stream_id, number, outcome.name.lower(), error or "well")
        if outcome in AGAIN:
            return
        async with self._pool.acquire() as conn:
            await canary_store.write_outcome(conn, number, outcome, error)

    async def decide_all(self) -> None:
        """Of every campaign whose canaries have said enough, or that is over."""
        async with self._pool.acquire() as conn:
            for awaited in await canary_store.read_awaited(conn, self._settings.canary_wait_s):
                delivery = decision(awaited, self._settings.canary_wait_s)
                if delivery is not None and await canary_store.decide(conn, awaited.stream_id, delivery):
                    log.info("canaries: stream=%d goes by %s (%s)", awaited.stream_id, delivery.mode, delivery.reason)


def decision(awaited: Awaited, waited_s: float) -> Delivery | None:
    """What the canaries say; None while they have not said it and somebody is left to be sent to."""
    judged = judge(awaited.canaries, waited_s, is_overdue=awaited.is_overdue)
    if judged is None and awaited.is_over:
        return Delivery(Mode.SIMPLE, "All of it was sent before its canary came back.")
    return judged


def address_of(number: int) -> str:
    """Where a canary goes: no two are one mail to SES."""
    return f"success+{number}@simulator.amazonses.com"


def choose_contacts(plan: Plan, due: Due) -> list[dict[str, Any]]:
    """The hardest contact for whom the campaign can be rendered, and one without fields where it can for that.

    Raises TemplateError where it can be rendered for none.
    """
    problems: list[TemplateError] = []

    def is_renderable(contact: dict[str, Any]) -> bool:
        try:
            plan.preview(orjson.dumps(contact | {"email": address_of(0)}))
        except TemplateError as error:
            problems.append(error)
            return False
        return True

    hardest = [one for one in worst_case.candidates(orjson.loads(due.content), due.sample) if is_renderable(one)][:1]
    chosen = hardest + [one for one in (worst_case.bare(),) if is_renderable(one)]
    if not chosen:
        raise problems[0]
    return chosen
