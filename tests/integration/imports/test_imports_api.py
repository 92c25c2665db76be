"""…/contacts/import over a real socket, merged by the code of the worker."""

import asyncio
import datetime
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from mailrail.db.pool import Pool
from mailrail.imports import handlers
from mailrail.imports.model import OPEN_MAX
from tests.support.api import Tenant
from tests.support.imports import PATH, contacts, counts, errors, imported, merge_all, upload
from tests.support.postgres import SECRET

CSV = (
    "\ufeffEmail Address;First Name;last_name;Town;TAGS\r\n"
    'Ann@Example.com;Ann;"van ""A"" Lee";Bern;"a;b"\r\n'
    "\r\n"
    "bob@bücher.example;Bob;;;\r\n"
    "no address;X;;;\r\n"
    "jäne@example.com;Jane;;;\r\n"
    "short@example.com;S\r\n"
)


@pytest.fixture(autouse=True)
async def nothing_waits(worker_pool: Pool) -> None:
    """No import of the test before is under way."""
    await worker_pool.execute("UPDATE imports SET status = 'cancelled' WHERE status IN ('receiving', 'processing')")
    await worker_pool.execute("DELETE FROM import_pieces")


async def test_csv_becomes_contacts_and_every_bad_row_is_told(tenant: Tenant, worker_pool: Pool) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    answer = await upload(tenant, CSV.encode(), query=f"?listId={made.body['id']}&tags=import,b")
    assert (answer.status, answer.body["status"], answer.body["rows"]) == (202, "processing", 5)
    assert answer.body["columns"][3] == {"column": "Town", "field": "customFields.Town"}
    assert await contacts(tenant) == {}
    await merge_all(worker_pool)
    done = (await tenant.get(f"{PATH}/{answer.body['id']}")).body
    assert (done["status"], done["rowsDone"], done["bytesReceived"]) == ("completed", 5, len(CSV.encode()))
    assert counts(done) == {"created": 2, "failed": 3}
    assert done["rowsPerSecond"] > 0
    assert await errors(tenant, done["id"]) == [
        (4, "no address", "email_invalid"),
        (5, "jäne@example.com", "email_invalid"),
        (6, "short@example.com", "row_shape_wrong"),
    ]
    people = await contacts(tenant)
    assert set(people) == {"Ann@example.com", "bob@xn--bcher-kva.example"}
    ann = people["Ann@example.com"]
    assert (ann["name"], ann["firstName"], ann["lastName"]) == ('Ann van "A" Lee', "Ann", 'van "A" Lee')
    assert (ann["tags"], ann["customFields"], ann["status"]) == (["a", "b", "import"], {"Town": "Bern"}, "subscribed")
    assert (await tenant.get(f"/api/v1/contacts?listId={made.body['id']}")).body["total"] == 2
    assert (await tenant.get(PATH)).body["imports"] == [done]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'[{"email": "a@b.de", "tags": ["x"]}, {"mail": "c@b.de"}, 7]'),
        (
            "application/json",
            b'{"tags": ["all"], "contacts": [{"email": "a@b.de"}, {"mail": "c@b.de"}, {}], "upsert": false}',
        ),
        ("application/json", b'{"email": "a@b.de"}\n{"mail": "c@b.de"}\n[]'),
        ("application/x-ndjson", b'{"email": "a@b.de"}\n\n{"mail": "c@b.de"}\n{"email": 1}\n'),
    ],
)
async def test_json_in_all_its_forms(tenant: Tenant, worker_pool: Pool, content_type: str, body: bytes) -> None:
    done = await imported(tenant, worker_pool, body, content_type, "?mapping=" + json.dumps({"mail": "email"}))
    assert counts(done) == {"created": 2, "failed": 1}
    assert [row for row, _, _ in await errors(tenant, done["id"])] == [3]
    assert set(await contacts(tenant)) == {"a@b.de", "c@b.de"}


async def test_a_form_has_one_file_and_its_options_before_or_behind_it(tenant: Tenant, worker_pool: Pool) -> None:
    form = aiohttp.FormData()
    form.add_field("tags", "one, two")
    form.add_field("file", b"Mail,Age\r\na@b.de,7\r\nx", filename="people.csv", content_type="application/octet-stream")
    form.add_field("mapping", '{"Mail": "email", "Age": null}')
    form.add_field("consent.source", "fair")
    answer = await tenant.api.call("POST", "/v1/mail/contacts/import", tenant.key, data=form)
    assert answer.status == 202, answer.body
    await merge_all(worker_pool)
    done = (await tenant.get(f"/v1/mail/contacts/import/{answer.body['id']}")).body
    assert counts(done) == {"created": 1, "failed": 1}
    person = (await contacts(tenant))["a@b.de"]
    assert (person["tags"], person["customFields"]) == (["one", "two"], {})


async def test_a_form_that_is_none_or_has_no_file_is_refused(tenant: Tenant) -> None:
    empty = aiohttp.FormData(default_to_multipart=True)
    empty.add_field("tags", "x")
    refused = await tenant.api.call("POST", PATH, tenant.key, data=empty)
    assert (refused.status, refused.params) == (422, {"file"})
    for content_type, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nemail\r\na@b.de"),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense\r\n\r\n\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b" + b"x" * 200_000),
    ):
        answer = await upload(tenant, body, content_type)
        assert (answer.status, answer.code) == (422, "import_unreadable"), (body[:80], answer.body)


async def test_known_contacts_are_updated_and_their_consent_is_not_taken_back(
    tenant: Tenant, worker_pool: Pool
) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    for email, status in (("a@b.de", "subscribed"), ("left@b.de", "unsubscribed"), ("same@b.de", "subscribed")):
        body = {"email": email, "name": "Old Name", "status": status, "tags": ["old"], "customFields": {"k": 1, "z": 2}}
        await tenant.post("/api/v1/contacts", body)
    await worker_pool.execute(
        "INSERT INTO suppressions (account_id, email_folded, reason) VALUES ($1, 'gone@b.de', 'bounce')",
        tenant.account_id,
    )
    rows = [
        {"email": "A@b.de", "firstName": "New", "tags": ["new"], "customFields": {"k": "x"}},
        {"email": "left@b.de", "status": "subscribed", "name": "Nobody"},
        {"email": "gone@b.de", "status": "subscribed"},
        {"email": "same@b.de", "tags": ["old"]},
        {"email": "quiet@b.de", "status": "unsubscribed"},
    ]
    together = json.dumps({"contacts": rows, "listId": made.body["id"]}).encode()
    done = await imported(tenant, worker_pool, together, "application/json")
    assert counts(done) == {"created": 2 - 1, "updated": 1, "skipped": 2, "unchanged": 1}
    people = await contacts(tenant)
    assert "gone@b.de" not in people
    assert (people["a@b.de"]["name"], people["a@b.de"]["firstName"]) == ("New Name", "New")
    assert (people["a@b.de"]["tags"], people["a@b.de"]["customFields"]) == (["old", "new"], {"k": "x", "z": 2})
    assert (people["left@b.de"]["status"], people["left@b.de"]["name"]) == ("unsubscribed", "Old Name")
    assert people["quiet@b.de"]["status"] == "unsubscribed"
    on_list = (await tenant.get(f"/api/v1/contacts?listId={made.body['id']}")).body
    assert {item["email"] for item in on_list["contacts"]} == {"a@b.de", "same@b.de"}


async def test_who_is_not_to_be_tracked_is_said_by_a_column(tenant: Tenant, worker_pool: Pool) -> None:
    for email, tracking in (("off@b.de", False), ("on@b.de", True), ("left@b.de", True)):
        status = "unsubscribed" if email == "left@b.de" else "subscribed"
        await tenant.post("/api/v1/contacts", {"email": email, "tracking": tracking, "status": status})
    file = (
        b"email,No pixels,name\nnew@b.de,no,\nplain@b.de,,\non@b.de,FALSE,\noff@b.de,,Otto\nleft@b.de,no,\n"
        b"odd@b.de,perhaps,\ntwice@b.de,no,\ntwice@b.de,,Tim\n"
    )
    done = await imported(tenant, worker_pool, file, query='?mapping={"No pixels":"tracking"}')
    assert counts(done) == {"created": 3, "updated": 2, "skipped": 1, "duplicates": 1, "failed": 1}
    assert await errors(tenant, done["id"]) == [(7, "odd@b.de", "value_unknown")]
    assert {email: one["tracking"] for email, one in (await contacts(tenant)).items()} == {
        "new@b.de": False,
        "plain@b.de": True,
        "on@b.de": False,
        "off@b.de": False,
        "left@b.de": True,
        "twice@b.de": False,
    }
    again = await imported(tenant, worker_pool, b"email,tracking\non@b.de,0\noff@b.de,\n")
    assert counts(again) == {"unchanged": 2}
    rows = [{"email": "on@b.de", "tracking": True}, {"email": "off@b.de", "tracking": "no"}]
    told = await imported(tenant, worker_pool, json.dumps(rows).encode(), "application/json")
    assert counts(told) == {"updated": 1, "failed": 1}
    assert await errors(tenant, told["id"]) == [(2, "off@b.de", "type_wrong")]
    kept = await imported(tenant, worker_pool, b"email,tracking\non@b.de,no\n", "text/csv", "?upsert=false")
    assert counts(kept) == {"skipped": 1}
    assert (await contacts(tenant))["on@b.de"]["tracking"] is True


async def test_without_upsert_known_contacts_only_join_the_list(tenant: Tenant, worker_pool: Pool) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    await tenant.post("/api/v1/contacts", {"email": "a@b.de", "name": "Ann"})
    query = f"?upsert=false&listId={made.body['id']}"
    done = await imported(tenant, worker_pool, b"email,name\na@b.de,Eve\nc@b.de,Cid\n", "text/csv", query)
    assert counts(done) == {"created": 1, "skipped": 1}
    assert (await contacts(tenant))["a@b.de"]["name"] == "Ann"
    assert (await tenant.get(f"/api/v1/contacts?listId={made.body['id']}")).body["total"] == 2


async def test_of_doubled_addresses_the_last_one_wins_within_and_across_pieces(
    tenant: Tenant, worker_pool: Pool
) -> None:
    filler = "".join(f"p{number}@b.de,{'x' * 180}\n" for number in range(9000))
    body = f"email,name\nA@b.de,First\na@b.de,Second\n{filler}a@B.de,Third\n".encode()
    answer = await upload(tenant, body, query="?upsert=false")
    assert await merge_all(worker_pool) > 1
    done = (await tenant.get(f"{PATH}/{answer.body['id']}")).body
    assert counts(done) == {"created": 9001, "duplicates": 2}
    assert (await tenant.get("/api/v1/contacts?email=a@b.de")).body["contacts"][0]["name"] == "Third"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"name,town\nAnn,Bern\n", "import_columns_invalid", "'name', 'town'"),
        (b"email,E-Mail\na@b.de,a@b.de\n", "import_columns_invalid", "Two columns mean email"),
        (b"", "import_unreadable", "empty"),
        (b'email\n"never closed\n', "import_unreadable", "quotation mark"),
        ("email\nä@b.de".encode("utf-16"), "import_unreadable", "UTF-16"),
        (b"email," + b",".join(b"c%d" % number for number in range(200)), "import_unreadable", "100 columns"),
        (b'email\n"' + b"x" * 3_000_000, "import_unreadable", "longer than 1 MiB"),
    ],
)
async def test_an_upload_that_is_no_table_of_contacts_is_refused_whole(
    tenant: Tenant, worker_pool: Pool, body: bytes, code: str, words: str
) -> None:
    answer = await upload(tenant, body)
    assert (answer.status, answer.code) == (422, code)
    assert words in answer.body["error"]["message"]
    assert await worker_pool.fetchval("SELECT count(*) FROM import_pieces") == 0
    assert (await tenant.get(PATH)).body["imports"][0]["status"] == "failed"
    await merge_all(worker_pool)
    assert await contacts(tenant) == {}


async def test_options_are_checked_before_the_body(tenant: Tenant, stranger: Tenant) -> None:
    theirs = await stranger.post("/api/v1/lists", {"name": "Theirs"})
    for query, status, params in (
        ("?upsert=maybe&status=gone&tagz=x", 422, {"upsert", "status", "tagz"}),
        ('?mapping={"a":"mail"}', 422, {"mapping.a"}),
        ("?mapping=nonsense", 422, {"mapping"}),
        ("?delimiter=x", 422, {"delimiter"}),
        (f"?listId={theirs.body['id']}", 404, {"listId"}),
        ("?listId=lst_x", 404, {"listId"}),
        ('?mapping={"Nowhere":"email"}', 422, {"mapping"}),
    ):
        answer = await upload(tenant, b"email\na@b.de\n", query=query)
        assert (answer.status, answer.params) == (status, params), query
    wrong = await upload(tenant, b"<xml/>", "application/xml")
    assert (wrong.status, wrong.code) == (415, "import_format_unknown")
    packed = await upload(tenant, b"email\na@b.de\n", Content_Encoding="gzip")
    assert packed.status == 415
    assert await contacts(tenant) == {}


async def test_an_object_whose_contacts_were_forgotten_is_no_contact(tenant: Tenant, worker_pool: Pool) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    for body in ({}, {"listId": made.body["id"]}, {"email": "a@b.de"}):
        refused = await upload(tenant, json.dumps(body).encode(), "application/json")
        assert (refused.status, refused.code) == (422, "import_unreadable"), refused.body
    await merge_all(worker_pool)
    assert await contacts(tenant) == {}


@pytest.mark.parametrize("key", ["", "a b", "\u00e9", "x" * 256])
async def test_a_key_that_no_log_could_show_is_refused(tenant: Tenant, key: str) -> None:
    refused = await upload(tenant, b"email\na@b.de\n", Idempotency_Key=key)
    assert (refused.status, refused.params) == (422, {"Idempotency-Key"})
    assert await contacts(tenant) == {}


async def test_the_same_key_is_the_same_import(tenant: Tenant, worker_pool: Pool) -> None:
    first = await upload(tenant, b"email\na@b.de\n", Idempotency_Key="k1")
    again = await upload(tenant, b"email\na@b.de\n", Idempotency_Key="k1")
    assert (again.status, again.body["id"]) == (202, first.body["id"])
    assert (again.headers["idempotent-replayed"], first.headers.get("idempotent-replayed")) == ("true", None)
    for body, query in ((b"email\nb@b.de\n", ""), (b"email\na@b.de\n", "?tags=x")):
        other = await upload(tenant, body, query=query, Idempotency_Key="k1")
        assert (other.status, other.code, other.body["error"]["id"]) == (
            422,
            "idempotency_key_reused",
            first.body["id"],
        )
    broken = await upload(tenant, b"", Idempotency_Key="k2")
    assert broken.status == 422
    assert (await upload(tenant, b"email\nc@b.de\n", Idempotency_Key="k2")).status == 202
    await merge_all(worker_pool)
    assert set(await contacts(tenant)) == {"a@b.de", "c@b.de"}


async def test_twins_that_come_at_once_are_one_import(tenant: Tenant, worker_pool: Pool) -> None:
    answers = await asyncio.gather(*(upload(tenant, b"email\na@b.de\n", Idempotency_Key="twin") for _ in range(12)))
    assert {answer.status for answer in answers} <= {202, 409}
    assert len({answer.body["id"] for answer in answers if answer.status == 202}) == 1
    assert (await tenant.get(PATH)).body["total"] == 1


async def test_an_upload_that_breaks_off_leaves_nothing(tenant: Tenant, worker_pool: Pool) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"email,note\n"
        for number in range(30_000):
            yield f"a{number}@b.de,{'x' * 100}\n".encode()
        await asyncio.sleep(60)

    sending = asyncio.create_task(upload(tenant, half()))
    while not await worker_pool.fetchval("SELECT count(*) FROM import_pieces"):
        await asyncio.sleep(0.02)
    listed = (await tenant.get(PATH)).body["imports"][0]
    assert (listed["status"], listed["bytesReceived"] > 500_000) == ("receiving", True)
    assert not await handlers.merge_next(worker_pool, SECRET)
    sending.cancel()
    one = listed
    for _ in range(200):
        one = (await tenant.get(PATH)).body["imports"][0]
        if one["status"] == "failed":
            break
        await asyncio.sleep(0.02)
    assert (one["status"], "broke off" in one["reason"]) == ("failed", True)
    assert await worker_pool.fetchval("SELECT count(*) FROM import_pieces") == 0


async def test_the_upload_of_a_process_that_died_is_ended_by_the_workers(tenant: Tenant, worker_pool: Pool) -> None:
    insert = "INSERT INTO imports (account_id, format, heard_at) VALUES ($1, 'csv', now() - $2::interval) RETURNING id"
    async with tenant.api.app.ctx.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT set_config('mailrail.account_id', $1, true)", str(tenant.account_id))
        dead = await conn.fetchval(insert, tenant.account_id, datetime.timedelta(minutes=5))
        alive = await conn.fetchval(insert, tenant.account_id, datetime.timedelta(seconds=30))
    await handlers.tidy(worker_pool)
    rows = await worker_pool.fetch(
        "SELECT id, status FROM imports WHERE account_id = $1 ORDER BY id", tenant.account_id
    )
    assert [tuple(row) for row in rows] == [(dead, "failed"), (alive, "receiving")]


async def test_cancel_keeps_what_was_merged_and_drops_the_rest(tenant: Tenant, worker_pool: Pool) -> None:
    body = "email,note\n" + "".join(f"a{number}@b.de,{'x' * 100}\n" for number in range(30_000))
    answer = await upload(tenant, body.encode())
    assert await handlers.merge_next(worker_pool, SECRET)
    cancelled = await tenant.post(f"{PATH}/{answer.body['id']}/cancel")
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled")
    assert 0 < cancelled.body["created"] < 30_000
    assert await merge_all(worker_pool) == 0
    assert (await tenant.get("/api/v1/contacts")).body["total"] == cancelled.body["created"]
    again = await tenant.post(f"{PATH}/{answer.body['id']}/cancel")
    assert (again.status, again.code) == (409, "import_ended")


async def test_nobody_sees_or_steers_the_import_of_another(tenant: Tenant, stranger: Tenant) -> None:
    answer = await upload(tenant, b"email\na@b.de\nx\n")
    for path in (answer.body["id"], "imp_x", f"{answer.body['id']}/errors", "lst_x/errors"):
        assert (await stranger.get(f"{PATH}/{path}")).status == 404
    assert (await stranger.post(f"{PATH}/{answer.body['id']}/cancel")).status == 404
    assert (await stranger.get(PATH)).body["total"] == 0
    assert (await tenant.get(f"{PATH}/{answer.body['id']}")).body["status"] == "processing"


async def test_tenants_take_turns(tenant: Tenant, stranger: Tenant, worker_pool: Pool) -> None:
    big = "email,note\n" + "".join(f"a{number}@b.de,{'x' * 100}\n" for number in range(40_000))
    await upload(tenant, big.encode())
    assert await handlers.merge_next(worker_pool, SECRET)
    small = await upload(stranger, b"email\na@b.de\n")
    assert await handlers.merge_next(worker_pool, SECRET)
    assert (await stranger.get(f"{PATH}/{small.body['id']}")).body["status"] == "completed"
    assert (await tenant.get(PATH)).body["imports"][0]["status"] == "processing"


async def test_so_many_imports_at_once_and_no_more(tenant: Tenant, worker_pool: Pool) -> None:
    for _ in range(OPEN_MAX):
        assert (await upload(tenant, b"email\na@b.de\n")).status == 202
    refused = await upload(tenant, b"email\na@b.de\n")
    assert (refused.status, refused.code) == (409, "too_many_imports")
    await merge_all(worker_pool)
    assert (await upload(tenant, b"email\na@b.de\n")).status == 202


async def test_error_files_are_safe_for_spreadsheets_and_whole(tenant: Tenant, worker_pool: Pool) -> None:
    rows = "".join(f"=cmd{number}\n" for number in range(25_000))
    done = await imported(tenant, worker_pool, f"email\n{rows}".encode())
    assert counts(done) == {"failed": 25_000}
    told = await errors(tenant, done["id"])
    assert [row for row, _, _ in told] == list(range(2, 25_002))
    assert told[0][1] == "'=cmd0"
