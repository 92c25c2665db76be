"""Who got it, who did not and why: pages that visit few shards, and exports of any size in constant memory."""

import csv
import io
from typing import Any

import aiohttp
import pytest

from mailrail.campaigns import recipients
from mailrail.db.pool import Pool
from mailrail.emails.model import State
from mailrail.ids import Kind
from tests.support.api import Api, Tenant
from tests.support.campaigns import draft, row_of
from tests.support.streams import TestStream, make_stream

RECIPIENTS = 60
SHARD_SIZE = 10
# Recipient → state; whoever is not here has no row and is pending. The shard 41..50 was never folded.
STATES: dict[int, State] = {
    **dict.fromkeys(range(1, 31), State.DELIVERED),
    **dict.fromkeys((3, 27), State.FAILED),
    4: State.REJECTED,
    5: State.EXPIRED,
    28: State.UNRESOLVED,
    6: State.BOUNCED,
    7: State.SOFT_BOUNCED,
    8: State.SKIPPED,
    9: State.CANCELLED,
    10: State.ACCEPTED,
    33: State.PENDING,
    34: State.UNKNOWN,
    60: State.FAILED,
}


@pytest.fixture
async def path(tenant: Tenant) -> str:
    """A campaign with recipients in every state."""
    async with tenant.api.operator.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, RECIPIENTS, SHARD_SIZE)
        await conn.executemany(
            """INSERT INTO recipient_state (stream_id, seq, account_id, shard, state, attempt, reason, at)
               VALUES ($1, $2, $3, $4, $5, 1, $6, '2026-11-20T10:00:00Z')""",
            [
                (stream.stream_id, seq, tenant.account_id, (seq - 1) // SHARD_SIZE, int(state), f"why {seq}")
                for seq, state in STATES.items()
            ],
        )
        await count(tenant, stream)
        campaign_id = await conn.fetchval("SELECT id FROM campaigns WHERE stream_id = $1", stream.stream_id)
    return f"/api/v1/campaigns/{tenant.api.ids.encode(Kind.CAMPAIGN, campaign_id)}"


async def count(tenant: Tenant, stream: TestStream) -> None:
    """Counters, as the fold keeps them."""
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            """INSERT INTO state_counts (stream_id, shard, state, account_id, recipients)
               SELECT stream_id, shard, state, account_id, count(*) FROM recipient_state WHERE stream_id = $1
               GROUP BY stream_id, shard, state, account_id""",
            stream.stream_id,
        )


def in_states(*states: State) -> list[int]:
    """The numbers of all who are in one of the states."""
    return [seq for seq in range(1, RECIPIENTS + 1) if STATES.get(seq, State.PENDING) in states]


WANTED = {
    "failed": in_states(State.FAILED, State.REJECTED, State.EXPIRED, State.UNRESOLVED),
    "unresolved": in_states(State.UNRESOLVED),
    "bounced": in_states(State.BOUNCED, State.SOFT_BOUNCED),
    "soft_bounced": in_states(State.SOFT_BOUNCED),
    "skipped": in_states(State.SKIPPED, State.CANCELLED),
    "cancelled": in_states(State.CANCELLED),
    "pending": in_states(State.PENDING),
    "open": in_states(State.PENDING, State.UNKNOWN, State.SUBMITTING, State.ACCEPTED),
    "delivered": in_states(State.DELIVERED),
    "failed,skipped": in_states(
        State.FAILED, State.REJECTED, State.EXPIRED, State.UNRESOLVED, State.SKIPPED, State.CANCELLED
    ),
    "failed&state=pending": in_states(State.FAILED, State.REJECTED, State.EXPIRED, State.UNRESOLVED, State.PENDING),
}


def seqs(api: Api, items: list[dict[str, object]]) -> list[int]:
    """The numbers behind the ids of a page."""
    decoded = [api.ids.decode_email(str(item["id"])) for item in items]
    return [found[1] for found in decoded if found is not None]


@pytest.mark.parametrize("words", WANTED)
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_pages_by_cursor_and_by_number_have_everybody_once(
    api: Api, tenant: Tenant, path: str, words: str, limit: int
) -> None:
    by_cursor, by_number, after = [], [], ""
    while True:
        page = (await tenant.get(f"{path}/recipients?state={words}&limit={limit}{after}")).body
        by_cursor += seqs(api, page["recipients"])
        if page["after"] is None or not page["recipients"]:
            break
        after = f"&after={page['after']}"
    for number in range(1, page["pages"] + 1):
        page = (await tenant.get(f"{path}/recipients?state={words}&limit={limit}&page={number}")).body
        by_number += seqs(api, page["recipients"])
    assert by_cursor == by_number == WANTED[words]
    assert page["total"] == len(WANTED[words])


@pytest.mark.parametrize("dialect", ["/api/v1", "/v1/mail"])
async def test_a_recipient_is_shown_with_state_and_reason(api: Api, tenant: Tenant, path: str, dialect: str) -> None:
    page = (await tenant.get(f"{dialect}{path.removeprefix('/api/v1')}/recipients?state=rejected")).body
    (one,) = page["recipients"]
    assert one.pop("id").startswith("eml_")
    assert one.pop("contactId").startswith("con_")
    assert one.pop("email").endswith("-4@example.net")
    assert one == {
        "state": "rejected",
        "reason": "why 4",
        "attempts": 1,
        "messageId": None,
        "updatedAt": "2026-11-20T10:00:00Z",
        "opens": 0,
        "clicks": 0,
        "machineOpens": 0,
        "machineClicks": 0,
        "complained": False,
        "unsubscribed": False,
    }
    untouched = (await tenant.get(f"{path}/recipients?page={RECIPIENTS - 1}&limit=1")).body["recipients"][0]
    assert (untouched["state"], untouched["attempts"], untouched["updatedAt"]) == ("pending", 0, None)


async def test_a_rare_state_visits_only_its_shards(tenant: Tenant, path: str, worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        stream_id = await conn.fetchval("SELECT stream_id FROM campaigns WHERE id = $1", row_of(tenant, path))
        slices = await recipients.read_slices(conn, tenant.account_id, stream_id, [State.FAILED])
    assert slices == [(1, 10), (21, 30), (51, 60)]


async def test_a_draft_has_no_recipients_yet(tenant: Tenant) -> None:
    path = await draft(tenant)
    page = (await tenant.get(f"{path}/recipients")).body
    assert (page["recipients"], page["total"]) == ([], 0)
    export = await tenant.get(f"{path}/recipients?format=csv")
    assert export.body.decode().splitlines() == [recipients.CSV_HEADER.decode().strip()]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("state=lost", "state"),
        ("format=xml", "format"),
        ("limit=101", "limit"),
        ("page=0", "page"),
        ("after=17", "after"),
        ("after=con_x", "after"),
    ],
)
async def test_a_query_that_makes_no_sense_names_what_does(tenant: Tenant, path: str, query: str, param: str) -> None:
    answer = await tenant.get(f"{path}/recipients?{query}")
    assert (answer.status, answer.params) == (422, {param})
    if param == "state":
        assert "soft_bounced" in answer.body["error"]["message"]


async def test_a_cursor_of_another_campaign_is_refused(tenant: Tenant, path: str) -> None:
    other = tenant.api.ids.encode_email(1, 3)
    assert (await tenant.get(f"{path}/recipients?after={other}")).status == 422


# —— exports ——————————————————————————————————————————————————————————————————————————————————————————————————————————


async def read_csv(api: Api, tenant: Tenant, path: str, words: str = "") -> list[dict[str, str]]:
    """The export, parsed."""
    answer = await api.call("GET", f"{path}/recipients?{words}", tenant.key, headers={"Accept": "text/csv"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-request-id"]
    assert answer.headers["content-disposition"].startswith('attachment; filename="cmp_')
    return list(csv.DictReader(io.StringIO(answer.body.decode(), newline=""), strict=True))


@pytest.mark.parametrize("words", WANTED)
async def test_an_export_has_everybody_whom_the_pages_have(api: Api, tenant: Tenant, path: str, words: str) -> None:
    rows = await read_csv(api, tenant, path, f"state={words}")
    assert [int(row["email"].partition("@")[0].rpartition("-")[2]) for row in rows] == WANTED[words]


async def test_an_export_in_slices_has_everybody_once(
    api: Api, tenant: Tenant, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "SLICE", 3)
    rows = await read_csv(api, tenant, path)
    assert len({row["email"] for row in rows}) == len(rows) == RECIPIENTS


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
async def test_no_field_is_a_formula_and_all_are_quoted(api: Api, tenant: Tenant, path: str, evil: str) -> None:
    async with api.operator.acquire() as conn:
        stream_id = await conn.fetchval("SELECT stream_id FROM campaigns WHERE id = $1", row_of(tenant, path))
        await conn.execute(
            "UPDATE recipient_state SET reason = $2, ses_message_id = $2 WHERE stream_id = $1 AND seq = 4",
            stream_id,
            evil,
        )
        await conn.execute(
            "UPDATE audience SET email = $2 WHERE stream_id = $1 AND seq = 4", stream_id, evil + '@x.org,"'
        )
    (row,) = await read_csv(api, tenant, path, "state=rejected")
    assert row["email"] == "'" + evil + '@x.org,"'
    assert (row["reason"], row["message_id"]) == ("'" + evil, "'" + evil)
    answer = await tenant.get(f"{path}/recipients?format=csv&state=delivered,pending")
    assert all(
        field.startswith('"') and field.endswith('"')
        for line in answer.body.decode().splitlines()
        for field in line.split(",")
    )


async def test_anothers_campaign_is_not_exported(api: Api, stranger: Tenant, path: str) -> None:
    for query in ("", "?format=csv"):
        assert (await stranger.get(f"{path}/recipients{query}")).status == 404


async def test_an_export_that_breaks_off_does_not_look_complete(
    api: Api, tenant: Tenant, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = recipients.read_csv

    async def read_csv_once(*arguments: Any) -> bytes:
        if arguments[-2] > SHARD_SIZE:
            raise ConnectionError("the database went away")
        return await genuine(*arguments)

    monkeypatch.setattr(recipients, "read_csv", read_csv_once)
    with pytest.raises(aiohttp.ClientPayloadError):
        await tenant.get(f"{path}/recipients?format=csv")
    assert (await tenant.get(f"{path}/recipients")).status == 200
