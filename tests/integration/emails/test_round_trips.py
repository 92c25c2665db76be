"""How often a desk of the mailroom goes to the database. Between two round trips the API's one thread answers others, so that
each costs every mail of the commit milliseconds.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailrail.db import pool
from tests.integration.emails.test_emails_api import QUICK, send
from tests.support.installation import Installation, installed
from tests.support.postgres import Database

# asyncpg asks once per connection what an array is.
INTROSPECTION = ("typeinfo_tree", "'jit'")


class Trips:
    """Every statement of the process, connection by connection."""

    def __init__(self) -> None:
        self._by_connection: dict[object, list[str]] = defaultdict(list)

    def watch(self, connection: Any) -> None:
        """Notes all that it is asked."""
        asked = self._by_connection[connection]

        def note(query: Any) -> None:
            if not any(words in query.query for words in INTROSPECTION):
                asked.append(query.query)

        connection.add_query_logger(note)

    def forget(self) -> None:
        """Begins anew."""
        for asked in self._by_connection.values():
            asked.clear()

    def transactions(self, words: str) -> list[int]:
        """How many round trips each transaction took that has these words in a statement."""
        found = []
        for asked in self._by_connection.values():
            begins = [n for n, query in enumerate(asked) if query.startswith("BEGIN")]
            for begin in begins:
                whole = asked[begin : asked.index("COMMIT;", begin) + 1]
                found += [len(whole)] if any(words in query for query in whole) else []
        return found


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    noted, set_codecs = Trips(), pool.set_codecs

    async def set_codecs_and_watch(connection: Any) -> None:
        await set_codecs(connection)
        noted.watch(connection)

    monkeypatch.setattr(pool, "set_codecs", set_codecs_and_watch)
    return noted


@pytest.fixture
async def installation(trips: Trips, database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", QUICK | {"lease_s": 60.0}, roles=()) as running:
        yield running


@pytest.mark.parametrize(("is_keyed", "first", "second"), [(False, 5, 3), (True, 7, 4)])
async def test_a_desk_goes_to_the_database_a_handful_of_times(
    trips: Trips, installation: Installation, is_keyed: bool, first: int, second: int
) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    assert (await send(tenant)).status == 200  # opens the day's stream, and a shard
    trips.forget()
    answers = await asyncio.gather(
        *(
            send(
                tenant,
                {"Idempotency-Key": f"key-{n}"} if is_keyed else None,
                to=[f"a{n}@example.com", f"b{n}@example.com"],
                html='<a href="https://acme.com/orders">Your order</a>',
            )
            for n in range(20)
        )
    )
    assert {answer.status for answer in answers} == {200}
    claimed, answered = trips.transactions("INTO claims"), trips.transactions("INTO result_batches")
    assert len(claimed) == len(answered) > 0
    assert set(claimed) == {first}
    assert set(answered) == {second}
