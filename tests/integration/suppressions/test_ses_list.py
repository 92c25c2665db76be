"""SES's own suppression list: what is on it is copied and not mailed, and what a tenant lifts is lifted there."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mailrail.config import Settings
from mailrail.db.pool import Connection, Pool, transaction
from mailrail.ses import control
from mailrail.ses.clients import client
from mailrail.ses.control import ControlError
from mailrail.suppressions import service, ses_list
from mailrail.suppressions.handlers import SesList, copy_list
from mailrail.suppressions.model import SuppressionNotFound
from tests.support.postgres import Database
from tests.support.simulator import RunningSimulator, simulating
from tests.support.streams import make_account


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with simulating(tmp_path_factory.mktemp("simulator")) as simulator:
        yield simulator


@pytest.fixture
def settings(database: Database, process: RunningSimulator) -> Settings:
    return database.settings(ses_endpoint=process.endpoint, ses_ca_file=str(process.directory / "ca.pem"))


@pytest.fixture
def ses(settings: Settings) -> Iterator[Any]:
    """Amazon's SDK on the simulator, whose list is empty."""
    sdk = client(settings, "sesv2")
    yield sdk
    for one in sdk.list_suppressed_destinations(PageSize=1000)["SuppressedDestinationSummaries"]:
        sdk.delete_suppressed_destination(EmailAddress=one["EmailAddress"])


@pytest.fixture
async def conn(worker_pool: Pool) -> AsyncIterator[Connection]:
    async with worker_pool.acquire() as acquired:
        await acquired.execute("DELETE FROM ses_suppressions")
        await acquired.execute("DELETE FROM ses_list_copies")
        await acquired.execute("DELETE FROM ses_lifts")
        yield acquired


def listed(ses: Any) -> set[str]:
    found = ses.list_suppressed_destinations(PageSize=1000)["SuppressedDestinationSummaries"]
    return {one["EmailAddress"] for one in found}


async def copied(conn: Connection) -> dict[str, str]:
    return {row["email"]: row["reason"] for row in await conn.fetch("SELECT email, reason FROM ses_suppressions")}


async def test_a_list_of_several_pages_is_copied(
    conn: Connection, settings: Settings, ses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SUPPRESSED_PAGE", 2)
    for n in range(5):
        ses.put_suppressed_destination(EmailAddress=f"p{n}@example.com", Reason="COMPLAINT" if n == 3 else "BOUNCE")
    assert await copy_list(conn, settings, 0.0, whole=False) == 5
    assert await copied(conn) == {f"p{n}@example.com": "complaint" if n == 3 else "bounce" for n in range(5)}


async def test_later_copies_ask_for_what_is_new_and_a_walk_notices_what_is_gone(
    conn: Connection, settings: Settings, ses: Any
) -> None:
    ses.put_suppressed_destination(EmailAddress="old@example.com", Reason="BOUNCE")
    await copy_list(conn, settings, 0.0, whole=True)
    # As if the last copy were of two hours after the entry.
    await ses_list.write_copy(conn, ses_list.Copy(datetime.now(UTC) + timedelta(hours=2), datetime.now(UTC)))
    assert await copy_list(conn, settings, 0.0, whole=False) == 0
    ses.delete_suppressed_destination(EmailAddress="old@example.com")
    assert await copied(conn) == {"old@example.com": "bounce"}
    await copy_list(conn, settings, 0.0, whole=True)
    assert await copied(conn) == {}


class Walk:
    """SES's list as pages that a test chooses; between them `look` sees what others see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pages: list[list[str]], fresh: list[str] | None = None) -> None:
        self.look: Callable[[], Awaitable[None]] | None = None
        self.breaks_at: int | None = None
        self._pages, self._fresh = pages, fresh or []
        monkeypatch.setattr(control, "list_suppressed", self._answer)

    async def _answer(
        self, settings: Settings, since: datetime | None, token: str | None
    ) -> tuple[list[control.Listed], str | None]:
        at = int(token or 0)
        if self.look is not None:
            await self.look()
        if at == self.breaks_at:
            raise ControlError("SES answered TooManyRequestsException.")
        page = self._fresh if since else self._pages[at]
        more = str(at + 1) if not since and at + 1 < len(self._pages) else None
        return [control.Listed(email, "bounce", datetime.now(UTC)) for email in page], more


async def test_the_copy_is_never_without_an_address_that_ses_lists(
    conn: Connection, worker_pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    Walk(monkeypatch, [["a@example.com", "gone@example.com"], ["b@example.com"], ["c@example.com"]])
    await copy_list(conn, settings, 0.0, whole=True)
    walk = Walk(monkeypatch, [["a@example.com"], ["new@example.com"], ["b@example.com"], ["c@example.com"]])
    seen: list[set[str]] = []
    idle: set[str] = set()

    async def look() -> None:
        async with worker_pool.acquire() as reader:
            seen.append(set(await copied(reader)))
            idle.add(await reader.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", walker))

    walker = await conn.fetchval("SELECT pg_backend_pid()")
    walk.look = look
    await copy_list(conn, settings, 0.0, whole=True)
    listed = {f"{name}@example.com" for name in "abc"}
    assert len(seen) == 5
    assert all(copy >= listed for copy in seen)
    assert "new@example.com" in seen[2], "each page is there at once"
    assert idle == {"idle"}, "no transaction waits for SES"
    assert set(await copied(conn)) == listed | {"new@example.com"}


async def test_a_walk_that_breaks_off_leaves_what_there_was_and_what_it_met(
    conn: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    Walk(monkeypatch, [["a@example.com"], ["b@example.com"]])
    await copy_list(conn, settings, 0.0, whole=True)
    before = await ses_list.read_copy(conn)
    Walk(monkeypatch, [["new@example.com"], ["b@example.com"]]).breaks_at = 1
    with pytest.raises(ControlError):
        await copy_list(conn, settings, 0.0, whole=True)
    assert set(await copied(conn)) == {"a@example.com", "b@example.com", "new@example.com"}
    assert await ses_list.read_copy(conn) == before, "and the next walk begins anew"


async def test_an_entry_that_moves_during_a_walk_stays(
    conn: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    Walk(monkeypatch, [["moves@example.com"], ["b@example.com"]])
    await copy_list(conn, settings, 0.0, whole=True)
    Walk(monkeypatch, [["b@example.com"]], fresh=["moves@example.com"])
    await copy_list(conn, settings, 0.0, whole=True)
    assert set(await copied(conn)) == {"b@example.com", "moves@example.com"}


async def test_nothing_waits_for_ses_inside_a_transaction(conn: Connection, settings: Settings) -> None:
    async with conn.transaction():
        with pytest.raises(AssertionError, match="inside a transaction"):
            await copy_list(conn, settings, 0.0, whole=True)


async def suppress(conn: Connection, account_id: int, email: str, reason: str) -> None:
    await conn.execute(
        "INSERT INTO suppressions (account_id, email_folded, reason) VALUES ($1, $2, $3)", account_id, email, reason
    )


async def lift(api_pool: Pool, account_id: int, email: str, *, force: bool = False) -> bool:
    """As a tenant, under row level security; whether SES is asked."""
    async with transaction(api_pool, account_id) as asking:
        return (await service.lift(asking, account_id, email=email, force=force)).asked_ses


async def test_what_a_tenant_lifts_is_lifted_by_ses_in_every_spelling(
    conn: Connection, api_pool: Pool, worker_pool: Pool, settings: Settings, ses: Any
) -> None:
    account_id = await make_account(conn)
    for spelling in ("Ann@example.com", "ann@example.com", "other@example.com"):
        ses.put_suppressed_destination(EmailAddress=spelling, Reason="BOUNCE")
    await copy_list(conn, settings, 0.0, whole=True)
    await suppress(conn, account_id, "ann@example.com", "bounce")
    assert await lift(api_pool, account_id, "Ann@Example.com")
    await SesList(worker_pool, settings, 0.0).look()
    assert listed(ses) == {"other@example.com"}
    assert await copied(conn) == {"other@example.com": "bounce"}
    assert await ses_list.read_waiting_lifts(conn, 10) == (0, [])


@pytest.mark.parametrize(("theirs", "asked"), [("complaint", False), ("bounce", True), ("manual", True)])
async def test_another_tenants_complaint_outweighs_the_wish(
    conn: Connection, api_pool: Pool, theirs: str, asked: bool
) -> None:
    account_id, other = await make_account(conn), await make_account(conn)
    email = f"{theirs}@example.com"
    await suppress(conn, account_id, email, "complaint")
    await suppress(conn, other, email, theirs)
    assert await lift(api_pool, account_id, email, force=True) is asked


async def test_what_was_entered_by_hand_asks_ses_only_if_it_lists_the_address(
    conn: Connection, api_pool: Pool, settings: Settings, ses: Any
) -> None:
    account_id = await make_account(conn)
    await suppress(conn, account_id, "hand@example.com", "manual")
    assert not await lift(api_pool, account_id, "hand@example.com")
    # Another tenant's mail brought it there; this one has no entry of its own.
    with pytest.raises(SuppressionNotFound):
        await lift(api_pool, account_id, "hand@example.com")
    ses.put_suppressed_destination(EmailAddress="hand@example.com", Reason="BOUNCE")
    await copy_list(conn, settings, 0.0, whole=True)
    assert await lift(api_pool, account_id, "Hand@example.com")


async def test_a_lift_that_ses_refuses_is_tried_again_and_shown(
    conn: Connection, api_pool: Pool, worker_pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id = await make_account(conn)
    await suppress(conn, account_id, "ann@example.com", "bounce")
    await lift(api_pool, account_id, "ann@example.com")

    async def refuse(settings: Settings, email: str) -> None:
        raise ControlError("SES answered AccessDeniedException.")

    monkeypatch.setattr(control, "lift_suppressed", refuse)
    await SesList(worker_pool, settings, 0.0).look()
    total, [waiting] = await ses_list.read_waiting_lifts(conn, 10)
    assert (total, waiting.account_id, waiting.attempts) == (1, account_id, 1)
    assert waiting.error == "SES answered AccessDeniedException."
    assert await ses_list.read_due_lift(conn) is None, "not at once again"


async def test_a_list_that_cannot_be_read_is_told_and_does_not_stop_anything(
    conn: Connection, worker_pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(settings: Settings, since: object, token: object) -> Any:
        raise ControlError("SES answered AccessDeniedException.")

    monkeypatch.setattr(control, "list_suppressed", refuse)
    await SesList(worker_pool, settings, 0.0).look()
    assert (await ses_list.read_copy(conn)).error == "SES answered AccessDeniedException."


async def test_the_api_sees_neither_the_list_nor_the_lifts(api_pool: Pool) -> None:
    async with api_pool.acquire() as asking:
        for table in ("ses_suppressions", "ses_lifts", "ses_list_copies"):
            assert not await asking.fetchval("SELECT has_table_privilege('mailrail.' || $1::text, 'SELECT')", table)


def test_simulator_addresses_are_refused(ses: Any) -> None:
    with pytest.raises(ClientError, match="BadRequestException"):
        ses.put_suppressed_destination(EmailAddress="bounce@simulator.amazonses.com", Reason="BOUNCE")
