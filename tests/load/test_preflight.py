"""A pre-flight of a campaign to 100,000 contacts, each with custom fields, of whom some lack some: the gaps are exact, and it is
there in seconds.
"""

import time

import pytest

from mailrail.campaigns import audience
from mailrail.campaigns.model import Audience
from mailrail.db.pool import Pool, transaction
from tests.support.api import Api, Tenant
from tests.support.campaigns import draft

pytestmark = [pytest.mark.load, pytest.mark.timeout(180)]

CONTACTS = 100_000
FIELDS = ("city", "plan", "company", "birthday", "note", "shop", "size", "score")
GAPS_MAX_S, PREFLIGHT_MAX_S = 3.0, 8.0


async def add_people(tenant: Tenant) -> None:
    """Of whom each seventh has no city, each eleventh a blank plan, one no company, and each third no name."""
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            """INSERT INTO contacts (account_id, email, first_name, custom_fields)
               SELECT $1, 'p' || n || '@example.net', CASE WHEN n % 3 > 0 THEN 'Person ' || n END,
                 jsonb_strip_nulls(jsonb_build_object('city', CASE WHEN n % 7 > 0 THEN 'Rome' END,
                   'plan', CASE WHEN n % 11 > 0 THEN 'pro' ELSE ' ' END,
                   'company', CASE WHEN n <> 77777 THEN 'Company ' || n END,
                   'birthday', '1990-01-01', 'note', repeat('n', 200), 'shop', n % 40, 'size', 'XL', 'score', n))
               FROM generate_series(1, $2::integer) n""",
            tenant.account_id,
            CONTACTS,
        )
        await conn.execute(
            "INSERT INTO contact_fields (account_id, name) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
            tenant.account_id,
            list(FIELDS),
        )
        await conn.execute("ANALYZE contacts")


async def test_gaps_of_a_large_audience_are_counted_in_a_pass(api: Api, tenant: Tenant, api_pool: Pool) -> None:
    await add_people(tenant)
    fields = ["firstName", *(f"customFields.{name}" for name in FIELDS)]
    begun_s = time.monotonic()
    async with transaction(api_pool, tenant.account_id) as conn:
        gaps = await audience.lacking(conn, tenant.account_id, Audience(), fields)
        counted_s = time.monotonic() - begun_s
        begun_s = time.monotonic()
        sample = await audience.sample(conn, tenant.account_id, Audience(), 20)
    sampled_s = time.monotonic() - begun_s
    assert {name.removeprefix("customFields."): gap.recipients for name, gap in gaps.items() if gap.recipients} == {
        "firstName": CONTACTS // 3,
        "city": CONTACTS // 7,
        "plan": CONTACTS // 11,
        "company": 1,
    }
    assert [len(gaps[f"customFields.{name}"].contact_ids) for name in ("city", "company")] == [3, 1]
    assert len(sample) in (20, 21)
    content = "<p>{{ firstName }} " + " ".join(f"{{{{ {name} }}}}" for name in FIELDS) + "</p>"
    path = await draft(tenant, content=content)
    begun_s = time.monotonic()
    answer = await tenant.get(f"{path}/preflight")
    whole_s = time.monotonic() - begun_s
    print(f"\n{CONTACTS} contacts: gaps {counted_s:.2f} s, sample {sampled_s:.2f} s, pre-flight {whole_s:.2f} s")
    (variables,) = (check for check in answer.body["checks"] if check["code"] == "variables")
    assert {one["variable"]: one["contacts"] for one in variables["details"]} == {
        "firstName": CONTACTS // 3,
        "city": CONTACTS // 7,
        "plan": CONTACTS // 11,
        "company": 1,
    }
    assert counted_s < GAPS_MAX_S
    assert whole_s < PREFLIGHT_MAX_S
