"""What a desk makes of a first commit whose answer does not come."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from mailrail.db.pool import Connection, Pool, transaction
from mailrail.emails import mailroom
from mailrail.emails.mailroom import Mailroom
from tests.support.api import Answer, Tenant
from tests.support.installation import Installation

# Nothing is sent again within a test.
PATIENCE = {"lease_s": 3.0, "call_timeout_ms": 500, "fence_s": 5.0, "event_lag_max_s": 600.0}
MAIL = {"from": "you@acme.com", "subject": "Hi", "html": "<p>Hi</p>"}


@pytest.fixture
def patience() -> dict[str, Any]:
    return PATIENCE


async def send(tenant: Tenant, to: str, key: str) -> Answer:
    return await tenant.api.call(
        "POST", "/api/v1/emails", tenant.key, json={**MAIL, "to": to}, headers={"Idempotency-Key": key}
    )


def lose_the_first_answer(
    monkeypatch: pytest.MonkeyPatch, *, undone: bool, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> None:
    """The connection breaks at the next commit of a desk, before it or after; `meanwhile` happens before anybody asks which."""
    lost: list[bool] = []

    @asynccontextmanager
    async def losing(pool: Pool, account_id: int) -> AsyncIterator[Connection]:
        is_first = not lost
        lost.append(True)
        try:
            async with transaction(pool, account_id) as conn:
                yield conn
                if is_first and undone:
                    raise asyncpg.ConnectionDoesNotExistError("cut")
            if is_first:
                raise asyncpg.ConnectionDoesNotExistError("cut")
        finally:
            if is_first and meanwhile is not None:
                await meanwhile()

    monkeypatch.setattr(mailroom, "transaction", losing)


async def test_a_commit_whose_answer_is_lost_is_looked_up_and_sent(
    installation: Installation, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_first_answer(monkeypatch, undone=False)
    answer = await send(tenant, "own@example.com", "own")
    assert (answer.status, answer.body["status"]) == (200, "sent"), answer.body
    assert installation.simulator.accepted() == ["own@example.com"]


async def test_numbers_that_another_process_took_meanwhile_do_not_stand_for_the_own_commit(
    installation: Installation, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both open the next range of the account's numbers, of which the day has one; who is undone has sent nothing."""
    api = installation.api.app.ctx
    room: Mailroom = api.mailroom
    earlier, other = (Mailroom(room.pool, room.sender, room.limiter, room.codec, room.settings) for _ in range(2))

    async def send_from(process: Mailroom, name: str) -> Answer:
        api.mailroom = process
        return await send(tenant, f"{name}@example.com", name)

    async def another_process_sends() -> None:
        answer = await send_from(other, "other")
        assert (answer.status, answer.body["status"]) == (200, "sent"), answer.body

    assert (await send_from(earlier, "earlier")).status == 200
    lose_the_first_answer(monkeypatch, undone=True, meanwhile=another_process_sends)
    lost = await send_from(room, "own")
    assert lost.status == 503, lost.body
    again = await send_from(room, "own")
    assert (again.status, again.body["status"]) == (200, "sent"), again.body
    await earlier.stop()
    await other.stop()
    names = ("earlier", "other", "own")
    assert Counter(installation.simulator.accepted()) == Counter(f"{name}@example.com" for name in names)
