"""A person is forgotten: no table has the address any more, nobody writes to it again, and the books still balance."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from mailrail.db.pool import Pool
from mailrail.emails.model import Outcome
from mailrail.emails.traces import redacted_content
from mailrail.privacy.handlers import erase_next
from tests.support.api import Tenant
from tests.support.campaigns import draft, stream_of
from tests.support.imports import imported
from tests.support.installation import Installation, installed
from tests.support.people import CAME_BACK, add_contact, add_list, set_status, suppress, suppressions
from tests.support.postgres import SECRET, Database
from tests.support.waiting import until
from tests.support.webhooks import add_endpoint

ANN = "Ann.Erasable@example.com"
# A mail that cannot be delivered, whose server quotes the address.
BOUNCING = "bounce+erasable@simulator.amazonses.com"
# Raw notifications hold the mail of all tenants; they go within a week, whole days at a time.
NOT_SEARCHED = "notifications"


async def erase_all(pool: Pool) -> int:
    """Does what workers do, until nothing is left; how many steps it took."""
    steps = 0
    while await erase_next(pool, SECRET):
        steps += 1
    return steps


async def erased(tenant: Tenant, contact_id: str, pool: Pool) -> None:
    """Asks for the erasure and waits for it."""
    begun = await tenant.delete(f"/api/v1/contacts/{contact_id}?erase=true")
    assert (begun.status, begun.body["deleted"]) == (202, True), begun.body
    await erase_all(pool)
    done = (await tenant.get(f"/v1/mail/erasures/{begun.body['erasureId']}")).body
    assert (done["status"], done["contactId"]) == ("completed", contact_id)
    assert done["completedAt"] is not None


async def places_of(pool: Pool, word: str) -> dict[str, int]:
    """Tables that hold the word in a text, a list of texts, JSON or bytes, whatever its case: table → rows."""
    found = {}
    async with pool.acquire() as conn:
        columns = await conn.fetch(
            """SELECT table_name, array_agg(column_name::text) AS names FROM information_schema.columns
               WHERE table_schema = 'mailrail' AND (data_type IN ('text', 'jsonb', 'json', 'bytea', 'ARRAY', 'character varying'))
               GROUP BY table_name"""
        )
        for row in columns:
            if row["table_name"].startswith(NOT_SEARCHED):
                continue
            texts = " || ' ' || ".join(
                f"coalesce(CASE WHEN pg_typeof({name})::text = 'bytea' THEN encode({name}::text::bytea, 'escape') "
                f"ELSE {name}::text END, '')"
                for name in row["names"]
            )
            # The name in lower case as hexadecimal digits, since bytea prints so.
            count = await conn.fetchval(
                f"""SELECT count(*) FROM mailrail.{row["table_name"]}
                    WHERE position(lower($1) IN lower({texts})) > 0
                       OR position(encode($1::bytea, 'hex') IN lower({texts})) > 0
                       OR position(encode(lower($1)::bytea, 'hex') IN lower({texts})) > 0""",
                word,
            )
            if count:
                found[row["table_name"]] = count
    return found


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    # Without the role `erase`: the test takes its steps.
    roles = ("send", "relay", "apply", "fold", "confirm")
    async with installed(database, tmp_path / "simulator", roles=roles) as running:
        yield running


async def test_nothing_of_a_person_is_left(installation: Installation, worker_pool: Pool, superuser_pool: Pool) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    list_id = await add_list(tenant)
    person = await add_contact(
        tenant,
        BOUNCING,
        name="Ann Erasable",
        listId=list_id,
        customFields={"mail": BOUNCING},
        tags=["erasable"],
        consent=CAME_BACK,
    )
    await add_endpoint(tenant, "http://127.0.0.1:1/")
    campaign = await draft(tenant, listId=list_id, content="<p>Hi {{ name }}</p>")
    assert (await tenant.post(f"{campaign}/launch")).status == 200
    await installation.wait_for(tenant, campaign.rpartition("/")[2], "completed")
    mail = {"to": BOUNCING, "from": "you@acme.com", "subject": f"For {BOUNCING}", "html": f"<p>{BOUNCING}</p>"}
    sent = await tenant.api.call(
        "POST",
        "/api/v1/emails",
        tenant.key,
        json={**mail, "tags": {"who": BOUNCING}},
        headers={"Idempotency-Key": "one"},
    )
    # It bounced: the mail is kept, and so is the answer under its key.
    assert (sent.status, sent.code) == (422, "recipient_suppressed")
    shared = {**mail, "to": [BOUNCING, "bob@example.com"], "subject": "For both"}
    assert (await tenant.post("/api/v1/emails", shared)).status == 200
    await imported(tenant, worker_pool, f"email,name\n{BOUNCING},x\nnot{BOUNCING}@@,y\n".encode())

    # As servers do that quote whom they do not know.
    async with worker_pool.acquire() as conn:
        for table, column in (("events", "detail"), ("results", "error"), ("recipient_state", "reason")):
            await conn.execute(
                f"""UPDATE {table} t SET {column} = '550 ' || $2 FROM audience a
                    WHERE t.account_id = $1 AND a.stream_id = t.stream_id AND a.seq = t.seq AND a.email = $2""",
                tenant.account_id,
                BOUNCING,
            )
        await conn.execute(
            """INSERT INTO webhook_attempts (delivery_id, attempt, account_id, at, duration_ms, answer)
               SELECT d.id, 1, d.account_id, now(), 1, 'Thanks for ' || $2
               FROM webhook_deliveries d JOIN webhook_messages m ON m.id = d.message_id
               WHERE d.account_id = $1 AND m.facts->>'to' = $2""",
            tenant.account_id,
            BOUNCING,
        )

    before = await places_of(superuser_pool, BOUNCING)
    held = {"contacts", "audience", "mails", "suppressions", "events", "results", "recipient_state", "idempotency_keys"}
    assert held | {"import_errors", "webhook_messages", "webhook_attempts"} <= set(before), before
    await erased(tenant, person["id"], worker_pool)
    assert await places_of(superuser_pool, BOUNCING) == {}
    assert await places_of(superuser_pool, "Ann Erasable") == {}
    assert (await tenant.get(f"/api/v1/contacts/{person['id']}")).status == 404
    assert await suppressions(tenant) == {}
    assert (await tenant.get(campaign)).body["status"] == "completed"
    shown = (await tenant.get("/api/v1/emails")).body["emails"]
    assert {one["subject"] for one in shown} == {"", "For both"}
    for one in shown:
        assert (await tenant.get(f"/api/v1/emails/{one['id']}")).status == 200
    assert await installation.audit() == []


async def test_an_erased_person_stays_suppressed_wherever_he_comes_back(
    tenant: Tenant, worker_pool: Pool, superuser_pool: Pool
) -> None:
    left, dead = await add_contact(tenant, ANN), await add_contact(tenant, "dead@example.com")
    await set_status(tenant, left["id"], "unsubscribed")
    await suppress(tenant, "dead@example.com", "bounce")
    for person in (left, dead):
        await erased(tenant, person["id"], worker_pool)
    assert await suppressions(tenant) == {}
    assert await places_of(superuser_pool, ANN) == {}
    # By an import, by a new contact, and by a mail, in any case.
    done = await imported(tenant, worker_pool, b"email\nann.erasable@example.com\nnew@example.com\n")
    assert (done["created"], done["skipped"]) == (1, 1)
    assert await suppressions(tenant) == {"ann.erasable@example.com": "unsubscribe"}
    again = await add_contact(tenant, ANN)
    assert again["status"] == "unsubscribed"
    await tenant.verify_domain()
    mail = {"from": "you@acme.com", "subject": "Hi", "text": "x"}
    key = await tenant.new_key(is_test=True)
    refused = await tenant.api.call("POST", "/api/v1/emails", key, json={**mail, "to": "Dead@example.com"})
    assert (refused.status, refused.code) == (422, "recipient_suppressed")
    assert (await suppressions(tenant))["dead@example.com"] == "bounce"
    # Who unsubscribed refused campaigns, not the receipt of an order.
    receipt = await tenant.api.call("POST", "/api/v1/emails", key, json={**mail, "to": ANN})
    assert (receipt.status, receipt.body["status"]) == (200, "sent")


async def test_tenants_do_not_share_what_is_kept_of_a_person(
    tenant: Tenant, stranger: Tenant, worker_pool: Pool
) -> None:
    person = await add_contact(tenant, ANN)
    await set_status(tenant, person["id"], "unsubscribed")
    theirs = await add_contact(stranger, ANN)
    await set_status(stranger, theirs["id"], "unsubscribed")
    for owner, contact in ((tenant, person), (stranger, theirs)):
        await erased(owner, contact["id"], worker_pool)
    async with tenant.api.operator.acquire() as conn:
        hashes = await conn.fetch(
            "SELECT DISTINCT email_hash FROM suppression_hashes WHERE account_id = ANY($1::bigint[])",
            [tenant.account_id, stranger.account_id],
        )
    assert len(hashes) == 2


async def test_who_is_erased_while_a_campaign_goes_out_is_skipped(
    installation: Installation, worker_pool: Pool
) -> None:
    tenant = await installation.add_sender(30)
    people = (await tenant.get("/api/v1/contacts?limit=100")).body["contacts"]
    paused = await draft(tenant)
    assert (await tenant.post(f"{paused}/launch")).status == 200
    gone = people[0]
    begun = await tenant.delete(f"/api/v1/contacts/{gone['id']}?erase=true")
    await erase_all(worker_pool)
    assert begun.status == 202
    await installation.wait_for(tenant, paused.rpartition("/")[2], "completed")
    async with tenant.api.operator.acquire() as conn:
        row = await conn.fetchrow(
            """SELECT a.email, a.email_hash IS NOT NULL AS is_hashed, r.outcome FROM audience a
               LEFT JOIN results r ON r.stream_id = a.stream_id AND r.seq = a.seq
               WHERE a.stream_id = $1 AND a.email = ''""",
            await stream_of(tenant, paused),
        )
    assert row is not None
    assert (row["email"], row["is_hashed"]) == ("", True)
    if row["outcome"] == Outcome.SKIPPED_ERASED:
        assert gone["email"] not in installation.simulator.accepted()
    assert installation.accepted_twice() == 0
    assert await installation.audit() == []


async def test_mail_that_waits_for_a_worker_is_not_sent_and_others_still_get_theirs(
    installation: Installation, worker_pool: Pool
) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    person = await add_contact(tenant, ANN)
    mail = {"from": "you@acme.com", "subject": f"To {ANN}", "text": f"Dear {ANN.lower()}"}
    later = {"scheduledAt": "2026-12-20T10:15:00Z"}
    alone = (await tenant.post("/api/v1/emails", {**mail, **later, "to": ANN})).body["id"]
    both = (await tenant.post("/api/v1/emails", {**mail, **later, "to": [ANN, "bob@example.com"]})).body["id"]
    await erased(tenant, person["id"], worker_pool)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE permits SET due_at = now() WHERE account_id = $1", tenant.account_id)
        await conn.execute("UPDATE shards SET wake_at = now() WHERE account_id = $1", tenant.account_id)

    async def is_sent() -> bool:
        return bool(installation.simulator.messages("bob@example.com"))

    await until(is_sent, "the mail to the other")
    [letter] = installation.simulator.messages("bob@example.com")
    assert "erasable" not in str(letter).lower()
    assert ANN not in installation.simulator.accepted()
    shown = (await tenant.get(f"/api/v1/emails/{alone}")).body["email"]
    assert (shown["to"], shown["subject"], shown["text"]) == ("", "", "")
    assert (await tenant.get(f"/api/v1/emails/{both}")).body["email"]["subject"] == "To [erased]"


async def test_an_address_that_was_the_contacts_once_is_forgotten_too(
    tenant: Tenant, worker_pool: Pool, superuser_pool: Pool
) -> None:
    await tenant.verify_domain()
    person = await add_contact(tenant, "first@erasable.example")
    assert (await tenant.post(f"{await draft(tenant)}/launch")).status == 200
    await suppress(tenant, "first@erasable.example", "bounce")
    await tenant.patch(f"/api/v1/contacts/{person['id']}", {"email": "second@erasable.example"})
    await erased(tenant, person["id"], worker_pool)
    assert await places_of(superuser_pool, "erasable.example") == {}
    back = await add_contact(tenant, "first@erasable.example")
    assert back["status"] == "bounced"


async def test_a_plain_delete_is_no_erasure(tenant: Tenant, worker_pool: Pool, superuser_pool: Pool) -> None:
    await tenant.verify_domain()
    person = await add_contact(tenant, "plain@erasable.example")
    assert (await tenant.post(f"{await draft(tenant)}/launch")).status == 200
    assert (await tenant.delete(f"/api/v1/contacts/{person['id']}")).body["erasureId"] is None
    assert await erase_all(worker_pool) == 0
    assert await places_of(superuser_pool, "plain@erasable.example") == {"audience": 1} | {
        name: 1 for name in await places_of(superuser_pool, "plain@erasable.example") if name.startswith("audience_")
    }


def test_a_shared_mail_loses_the_address_and_keeps_the_rest() -> None:
    content = {
        "to": [{"name": "Ann", "email": "ANN@x.de"}, {"name": None, "email": "bob@x.de"}],
        "cc": [],
        "bcc": [],
        "reply_to": [],
        "subject": "ann@x.de",
        "html": "<p>Ann@X.de, joann@x.de</p>",
        "text": None,
        "headers": {"X-Who": "ann@x.de"},
        "links": ["https://x.de/?u=ann@x.de"],
    }
    left = orjson.loads(redacted_content(orjson.dumps(content), ["Ann@x.de"]))
    assert left["to"] == [{"name": None, "email": "bob@x.de"}]
    assert "ann@x.de" not in orjson.dumps(left).decode().lower().replace("joann", "")
    assert left["text"] is None
