"""The wallet over HTTP: what it shows, who puts money in, and how much a month may cost."""

import asyncio
import re
from typing import Any

import asyncpg
import pytest

from mailrail.accounts.model import Scope
from mailrail.db.pool import Pool, in_the_name_of, transaction
from mailrail.ids import Kind
from mailrail.wallet import service as wallet
from tests.support.api import FUNDS_MICROS, Answer, Api, Tenant
from tests.support.campaigns import add_contacts, draft, launched

BOTH = pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])


async def call_as_operator(tenant: Tenant, path: str, body: Any) -> Answer:
    """A POST with an operator's key, of an account of its own."""
    office = await tenant.api.add_tenant("Office", funds_micros=0)
    return await tenant.api.call("POST", path, await office.new_key([Scope.OPERATOR]), json=body)


def account_of(tenant: Tenant) -> str:
    return tenant.api.ids.encode(Kind.ACCOUNT, tenant.account_id)


async def settle(tenant: Tenant, hold_id: int, captured: int, released: int) -> None:
    """What the fold does: settlements and their transfers."""
    async with tenant.api.operator.acquire() as conn, conn.transaction():
        await conn.execute(
            """INSERT INTO settlements (stream_id, seq, hold_id, account_id, kind)
               SELECT h.stream_id, n, h.id, h.account_id, CASE WHEN n <= $2 THEN 'captured' ELSE 'released' END
               FROM holds h, generate_series(1, $2::integer + $3::integer) n WHERE h.id = $1""",
            hold_id,
            captured,
            released,
        )
        await wallet.settle(conn, tenant.account_id, hold_id, captured, released, f"{hold_id}:1")


async def audit(tenant: Tenant) -> list[str]:
    async with tenant.api.operator.acquire() as conn:
        return await wallet.audit(conn)


@BOTH
async def test_a_campaign_is_seen_in_the_wallet(tenant: Tenant, base: str) -> None:
    path = await launched(tenant, recipients=10)
    shown = (await tenant.get(f"{base}/wallet")).body
    assert shown == {
        "available": 10.0,
        "availableMicros": FUNDS_MICROS - 3_000,
        "held": 0.0,
        "heldMicros": 3_000,
        "currency": "USD",
        "spentThisMonth": 0.0,
        "spentThisMonthMicros": 3_000,
        "monthlyCap": None,
        "monthlyCapMicros": None,
        "frozen": False,
    }
    campaign_id = path.rpartition("/")[2]
    (hold,) = (await tenant.get(f"{base}/wallet/holds?status=open")).body["holds"]
    assert re.fullmatch("hold_[a-z2-7]{26}", hold["id"])
    assert (hold["type"], hold["campaignId"], hold["recipients"]) == ("campaign", campaign_id, 10)
    assert (hold["priceMicros"], hold["amountMicros"], hold["openMicros"]) == (300, 3_000, 3_000)
    assert (await tenant.get(f"{base}/wallet/holds/{hold['id']}")).body == hold
    await settle(tenant, tenant.api.ids.find(Kind.HOLD, hold["id"]), captured=7, released=3)
    settled = (await tenant.get(f"{base}/wallet/holds/{hold['id']}")).body
    assert (settled["capturedMicros"], settled["releasedMicros"], settled["openMicros"]) == (2_100, 900, 0)
    assert (settled["status"], settled["closedAt"] is not None) == ("closed", True)
    assert (await tenant.get(f"{base}/wallet/holds?status=open")).body["total"] == 0
    assert (await tenant.get(f"{base}/wallet")).body["spentThisMonthMicros"] == 2_100
    moved = (await tenant.get(f"{base}/wallet/transactions")).body
    assert [(one["kind"], one["amountMicros"]) for one in moved["transactions"]] == [
        ("capture", 2_100),
        ("release", 900),
        ("hold", 3_000),
        ("deposit", FUNDS_MICROS),
    ]
    assert {one["campaignId"] for one in moved["transactions"]} == {campaign_id, None}
    assert {one["holdId"] for one in moved["transactions"]} == {hold["id"], None}
    assert (moved["total"], moved["totalCapped"], moved["after"]) == (4, False, None)
    assert await audit(tenant) == []


async def test_transactions_have_pages_a_cursor_and_filters(tenant: Tenant) -> None:
    for number in range(4):
        async with tenant.api.operator.acquire() as conn:
            await wallet.deposit(conn, tenant.account_id, 1_000 + number, f"d{number}")
    first = (await tenant.get("/api/v1/wallet/transactions?limit=2")).body
    assert [one["amountMicros"] for one in first["transactions"]] == [1_003, 1_002]
    assert (first["total"], first["pages"]) == (5, 3)
    for query in (f"after={first['after']}", "page=2"):
        second = (await tenant.get(f"/api/v1/wallet/transactions?limit=2&{query}")).body
        assert [one["amountMicros"] for one in second["transactions"]] == [1_001, 1_000]
    assert (await tenant.get("/api/v1/wallet/transactions?kind=hold")).body["total"] == 0
    assert (await tenant.get("/api/v1/wallet/transactions?kind=deposit")).body["total"] == 5
    assert (await tenant.get("/api/v1/wallet/transactions?since=2001-01-01T00:00:00Z")).body["total"] == 5
    assert (await tenant.get("/api/v1/wallet/transactions?until=2001-01-01T00:00:00Z")).body["total"] == 0
    wrong = await tenant.get("/api/v1/wallet/transactions?kind=theft&since=yesterday")
    assert (wrong.status, wrong.params) == (422, {"kind", "since"})
    assert (await tenant.get("/api/v1/wallet/holds?status=lost")).status == 422


@BOTH
async def test_an_operator_adds_money_to_any_account_once_for_each_key(tenant: Tenant, base: str) -> None:
    body = {"accountId": account_of(tenant), "amount": "12.34", "key": "invoice 1"}
    made = await call_as_operator(tenant, f"{base}/wallet/deposit", body)
    assert (made.status, made.body["created"], made.body["accountId"]) == (201, True, account_of(tenant))
    assert (made.body["transaction"]["kind"], made.body["transaction"]["amountMicros"]) == ("deposit", 12_340_000)
    assert made.body["wallet"]["availableMicros"] == FUNDS_MICROS + 12_340_000
    again = await call_as_operator(tenant, f"{base}/wallet/deposit", body)
    assert (again.status, again.body["created"]) == (200, False)
    assert again.body["transaction"] == made.body["transaction"]
    other = await call_as_operator(tenant, f"{base}/wallet/deposit", {**body, "amount": "12.35"})
    assert (other.status, other.code, other.params) == (409, "transfer_key_used", {"key"})
    assert (await tenant.get(f"{base}/wallet")).body["availableMicros"] == FUNDS_MICROS + 12_340_000
    assert await audit(tenant) == []


@pytest.mark.parametrize(
    ("changes", "params"),
    [
        ({"amountMicros": 0}, {"amountMicros"}),
        ({"amountMicros": -5}, {"amountMicros"}),
        ({"amountMicros": 1.5}, {"amountMicros"}),
        ({"amountMicros": "5"}, {"amountMicros"}),
        ({"amountMicros": True}, {"amountMicros"}),
        ({"amountMicros": 2**62}, {"amountMicros"}),
        ({"amountMicros": 5, "amount": "1.00"}, {"amountMicros"}),
        ({}, {"amountMicros"}),
        ({"amount": 12.5}, {"amount"}),
        ({"amount": "12.3456789"}, {"amount"}),
        ({"amount": "1e3"}, {"amount"}),
        ({"amount": "-1"}, {"amount"}),
        ({"amount": "NaN"}, {"amount"}),
        ({"amount": "١"}, {"amount"}),
        ({"amount": "0.00"}, {"amount"}),
        ({"amountMicros": 5, "key": ""}, {"key"}),
    ],
)
async def test_an_amount_that_is_none_moves_nothing(tenant: Tenant, changes: dict[str, Any], params: set[str]) -> None:
    body = {"accountId": account_of(tenant), "key": "k", **changes}
    answer = await call_as_operator(tenant, "/api/v1/wallet/deposit", body)
    assert (answer.status, answer.params) == (422, params)
    assert (await tenant.get("/api/v1/wallet")).body["availableMicros"] == FUNDS_MICROS


async def test_money_is_the_operators(tenant: Tenant) -> None:
    body = {"accountId": account_of(tenant), "amountMicros": 5, "key": "k"}
    assert (await tenant.post("/api/v1/wallet/deposit", body)).code == "scope_missing"
    for account_id in ("acc_x", tenant.api.ids.encode(Kind.ACCOUNT, 2**62)):
        unknown = await call_as_operator(tenant, "/api/v1/wallet/deposit", {**body, "accountId": account_id})
        assert (unknown.status, unknown.code) == (404, "account_not_found")


async def test_a_refund_gives_back_what_was_captured_and_no_more(tenant: Tenant, stranger: Tenant) -> None:
    await launched(tenant, recipients=10)
    (hold,) = (await tenant.get("/api/v1/wallet/holds")).body["holds"]
    await settle(tenant, tenant.api.ids.find(Kind.HOLD, hold["id"]), captured=6, released=4)
    body = {"accountId": account_of(tenant), "holdId": hold["id"], "amountMicros": 1_000, "key": "r1"}
    made = await call_as_operator(tenant, "/api/v1/wallet/refund", body)
    assert (made.status, made.body["transaction"]["kind"]) == (201, "refund")
    assert made.body["wallet"]["availableMicros"] == FUNDS_MICROS - 1_800 + 1_000
    assert made.body["wallet"]["spentThisMonthMicros"] == 800
    assert (await call_as_operator(tenant, "/api/v1/wallet/refund", body)).body["created"] is False
    too_much = await call_as_operator(tenant, "/api/v1/wallet/refund", {**body, "amountMicros": 801, "key": "r2"})
    assert (too_much.status, too_much.code) == (409, "refund_too_large")
    rest = await call_as_operator(tenant, "/api/v1/wallet/refund", {**body, "amountMicros": 800, "key": "r2"})
    assert rest.status == 201
    shown = (await tenant.get(f"/api/v1/wallet/holds/{hold['id']}")).body
    assert (shown["refundedMicros"], shown["capturedMicros"]) == (1_800, 1_800)
    theirs = await call_as_operator(tenant, "/api/v1/wallet/refund", {**body, "accountId": account_of(stranger)})
    assert (theirs.status, theirs.code) == (404, "hold_not_found")
    assert (await tenant.get("/api/v1/wallet/transactions?kind=refund")).body["total"] == 2
    assert await audit(tenant) == []


async def test_an_operator_acts_for_another_only_within_the_call(tenant: Tenant, api_pool: Pool) -> None:
    async with transaction(api_pool, tenant.account_id) as conn:
        async with in_the_name_of(conn, tenant.account_id + 1):
            assert await conn.fetchval("SELECT count(*) FROM api_keys WHERE account_id = $1", tenant.account_id) == 0
        assert await conn.fetchval("SELECT count(*) FROM api_keys") == 1


# —— the cap ———————————————————————————————————————————————————————————————————————————————————————————————————————————


@BOTH
async def test_a_month_costs_no_more_than_its_cap(tenant: Tenant, base: str) -> None:
    await launched(tenant, recipients=10)
    path = await draft(tenant, name="Second")
    capped = await tenant.patch(f"{base}/wallet", {"monthlyCapMicros": 5_999})
    assert (capped.status, capped.body["monthlyCapMicros"], capped.body["monthlyCap"]) == (200, 5_999, 0.01)
    refused = await tenant.post(f"{path}/launch")
    assert (refused.status, refused.code) == (402, "spend_cap_reached")
    error = refused.body["error"]
    assert (error["type"], error["capMicros"], error["spentMicros"], error["neededMicros"]) == (
        "payment_error", 5_999, 3_000, 3_000,
    )  # fmt: skip
    assert "$0.005999" in error["message"]
    assert (await tenant.get(f"{base}/wallet")).body["heldMicros"] == 3_000
    assert (await tenant.get(path)).body["status"] == "draft"
    assert (await tenant.patch(f"{base}/wallet", {})).body["monthlyCapMicros"] == 5_999
    assert (await tenant.patch(f"{base}/wallet", {"monthlyCapMicros": 6_000})).status == 200
    assert (await tenant.post(f"{path}/launch")).status == 200
    third = await draft(tenant, name="Third")
    # A cap may be below what was spent: then nothing more is.
    assert (await tenant.patch(f"{base}/wallet", {"monthlyCapMicros": 0})).status == 200
    assert (await tenant.post(f"{third}/launch")).code == "spend_cap_reached"
    assert (await tenant.patch(f"{base}/wallet", {"monthlyCapMicros": None})).body["monthlyCapMicros"] is None
    assert (await tenant.post(f"{third}/launch")).status == 200
    assert (await tenant.patch(f"{base}/wallet", {"monthlyCapMicros": -1})).params == {"monthlyCapMicros"}
    assert await audit(tenant) == []


async def test_what_is_released_can_be_spent_again_and_another_months_holds_do_not_count(tenant: Tenant) -> None:
    await launched(tenant, recipients=10)
    (hold,) = (await tenant.get("/api/v1/wallet/holds")).body["holds"]
    await tenant.patch("/api/v1/wallet", {"monthlyCapMicros": 3_300})
    path = await draft(tenant, name="Second")
    assert (await tenant.post(f"{path}/launch")).code == "spend_cap_reached"
    hold_id = tenant.api.ids.find(Kind.HOLD, hold["id"])
    await settle(tenant, hold_id, captured=1, released=9)
    assert (await tenant.post(f"{path}/launch")).status == 200
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE holds SET created_at = created_at - interval '32 days' WHERE id = $1", hold_id)
    assert (await tenant.get("/api/v1/wallet")).body["spentThisMonthMicros"] == 3_000
    assert await audit(tenant) == []


async def test_concurrent_sends_do_not_pass_the_cap_together(api: Api, tenant: Tenant) -> None:
    await tenant.verify_domain()
    await add_contacts(tenant, 10)
    paths = [await draft(tenant, name=f"No {number}") for number in range(12)]
    await tenant.patch("/api/v1/wallet", {"monthlyCapMicros": 3_000 * 5 + 2_999})
    answers = await asyncio.gather(*(tenant.post(f"{path}/launch") for path in paths))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [402] * 7
    assert {answer.code for answer in answers if answer.status == 402} == {"spend_cap_reached"}
    assert (await tenant.get("/api/v1/wallet")).body["spentThisMonthMicros"] == 15_000
    assert await audit(tenant) == []


async def test_the_database_refuses_holds_beyond_the_cap_whoever_writes_them(tenant: Tenant) -> None:
    await tenant.patch("/api/v1/wallet", {"monthlyCapMicros": 1_000})
    insert = """INSERT INTO holds (account_id, stream_id, price_micros, recipients, amount_micros)
                SELECT $1, n, 500, 1, 500 FROM generate_series(1, $2::integer) n"""
    async with tenant.api.operator.acquire() as conn:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await conn.execute(insert, tenant.account_id, 3)
        assert refused.value.constraint_name == "holds_within_spend_cap"
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(insert, tenant.account_id, 2)
        assert (await wallet.get(conn, tenant.account_id)).spending.left_micros == 0
        await transaction.rollback()


# —— prices ————————————————————————————————————————————————————————————————————————————————————————————————————————————


@BOTH
async def test_prices_are_listed_for_each_operation_of_the_dialect(tenant: Tenant, base: str) -> None:
    listed = await tenant.get(f"{base}/pricing")
    assert (listed.status, listed.body["currency"], listed.body["priceMicros"]) == (200, "USD", 300)
    prices = {one["endpoint"]: one for one in listed.body["pricing"]}
    assert prices[f"POST {base}/contacts"]["price"] == "Free"
    assert prices[f"GET {base}/campaigns/:id"] == {
        "endpoint": f"GET {base}/campaigns/:id",
        "method": "GET",
        "path": f"{base}/campaigns/:id",
        "price": "Free",
        "priceMicros": 0,
        "unit": None,
    }
    assert all(one["path"].startswith(f"{base}/") for one in listed.body["pricing"])


async def test_the_price_of_a_send_is_printed_as_in_the_documentation(tenant: Tenant) -> None:
    prices = {one["endpoint"]: one for one in (await tenant.get("/v1/mail/pricing")).body["pricing"]}
    assert prices["POST /v1/mail/campaigns/:id/send"]["price"] == "$0.0003/recipient"
    assert prices["POST /v1/mail/campaigns/:id/send"]["priceMicros"] == 300
