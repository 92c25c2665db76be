"""What an import says of consent, and lists that ask first."""

from mailrail.db.pool import Pool
from tests.support.api import Tenant
from tests.support.imports import contacts, counts, imported
from tests.support.people import add_contact, add_list, history


async def waiting(tenant: Tenant) -> set[str]:
    """Who is to be asked."""
    async with tenant.api.operator.acquire() as conn:
        rows = await conn.fetch(
            """SELECT c.email FROM list_members m JOIN contacts c ON c.id = m.contact_id
               WHERE m.account_id = $1 AND m.confirm_due_at <= now()""",
            tenant.account_id,
        )
    return {row["email"] for row in rows}


async def test_everybody_who_is_new_somewhere_has_a_line(tenant: Tenant, worker_pool: Pool) -> None:
    list_id = await add_list(tenant)
    known = await add_contact(tenant, "known@b.de")
    member = await add_contact(tenant, "member@b.de", listId=list_id)
    file = b"email,status\nnew@b.de,\nknown@b.de,\nmember@b.de,\nquiet@b.de,unsubscribed\n"
    query = f"?listId={list_id}&consent.source=fair&consent.wording=Yes"
    done = await imported(tenant, worker_pool, file, query=query)
    assert counts(done) == {"created": 2, "unchanged": 2}
    people = await contacts(tenant)
    [line] = await history(tenant, people["new@b.de"]["id"])
    assert (line["status"], line["source"], line["wording"], line["listId"]) == ("subscribed", "fair", "Yes", list_id)
    assert line["importId"] == done["id"]
    assert [line["source"] for line in await history(tenant, known["id"])] == ["api", "fair"]
    assert [line["source"] for line in await history(tenant, member["id"])] == ["api", "api"]
    quiet = await history(tenant, people["quiet@b.de"]["id"])
    assert {(line["status"], line["listId"]) for line in quiet} == {("unsubscribed", None), ("unsubscribed", list_id)}


async def test_without_a_list_or_words_it_says_what_it_knows(tenant: Tenant, worker_pool: Pool) -> None:
    known = await add_contact(tenant, "known@b.de")
    await imported(tenant, worker_pool, b"email,status\nnew@b.de,\nknown@b.de,unsubscribed\n")
    people = await contacts(tenant)
    [line] = await history(tenant, people["new@b.de"]["id"])
    assert (line["status"], line["source"], line["wording"], line["listId"]) == ("subscribed", "import", None, None)
    said = [(line["status"], line["source"]) for line in await history(tenant, known["id"])]
    assert said == [("subscribed", "api"), ("unsubscribed", "import")]


async def test_what_many_say_is_one_row(tenant: Tenant, worker_pool: Pool) -> None:
    file = b"email\n" + b"".join(b"p%d@many.de\n" % n for n in range(500))
    await imported(tenant, worker_pool, file)
    assert len(await history(tenant, (await contacts(tenant))["p499@many.de"]["id"])) == 1
    async with tenant.api.operator.acquire() as conn:
        rows = await conn.fetch(
            "SELECT cardinality(contact_ids) AS people FROM consents WHERE account_id = $1", tenant.account_id
        )
    assert sum(row["people"] for row in rows) == 500
    assert len(rows) <= 2, "a row per piece"


async def test_a_list_that_asks_first_makes_nobody_subscribed(tenant: Tenant, worker_pool: Pool) -> None:
    list_id = await add_list(tenant, doubleOptIn=True)
    known = await add_contact(tenant, "known@b.de")
    file = b"email,status\nnew@b.de,subscribed\nknown@b.de,\nquiet@b.de,unsubscribed\n"
    await imported(tenant, worker_pool, file, query=f"?listId={list_id}")
    people = await contacts(tenant)
    assert {email: person["status"] for email, person in people.items()} == {
        "new@b.de": "pending",
        "known@b.de": "subscribed",
        "quiet@b.de": "unsubscribed",
    }
    shown = (await tenant.get(f"/api/v1/lists/{list_id}")).body
    assert (shown["contacts"], shown["pending"], shown["unsubscribed"]) == (0, 2, 1)
    assert await waiting(tenant) == {"new@b.de", "known@b.de"}
    assert (await history(tenant, known["id"]))[-1]["status"] == "pending"
    # Another import neither asks again nor takes a question for a yes.
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE list_members SET confirm_due_at = NULL WHERE account_id = $1", tenant.account_id)
    again = await imported(
        tenant, worker_pool, b"email,status,name\nnew@b.de,subscribed,Nan\n", query=f"?listId={list_id}"
    )
    assert counts(again) == {"updated": 1}
    new = (await contacts(tenant))["new@b.de"]
    assert (new["status"], new["name"]) == ("pending", "Nan")
    assert await waiting(tenant) == set()
