"""/u over a socket: looking changes nothing, one click acts once (RFC 8058)."""

import asyncio
from itertools import cycle, islice
from typing import Any

import pytest

from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from tests.support.api import Api, running_api
from tests.support.people import history, suppressions
from tests.support.postgres import Database
from tests.support.readers import Mail
from tests.support.webhooks import add_endpoint, dispatching, receiving

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
MULTIPART = (
    {"Content-Type": "multipart/form-data; boundary=x"},
    b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n',
)
# Programs that open links before their reader does, or instead of him.
LOOKERS: tuple[dict[str, str], ...] = (
    {"User-Agent": "Mozilla/5.0"},
    {"User-Agent": "Mozilla/5.0 (compatible; Barracuda Sentinel)", "Referer": "https://scan.example/"},
    {"User-Agent": "Mozilla/4.0 (compatible; ms-office; MSOffice 16)"},
    {"User-Agent": "GoogleImageProxy", "Accept": "image/*"},
    {"Purpose": "prefetch", "X-Moz": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Mode": "navigate", "Cookie": "session=1"},
    {"User-Agent": "curl/8.5.0", "Content-Type": "application/x-www-form-urlencoded"},
)


async def look(api: Api, mail: Mail, count: int) -> None:
    """So many requests of programs, a few at a time."""
    path = f"/u/{mail.unsubscribe()}"
    asks = [
        # Some follow the form's target with its fields in the query, or as the body of a GET.
        (method, path + query, headers)
        for (method, query), headers in zip(
            islice(cycle([("GET", ""), ("HEAD", ""), ("GET", "?List-Unsubscribe=One-Click&unsubscribe=all")]), count),
            islice(cycle(LOOKERS), count),
            strict=True,
        )
    ]
    for first in range(0, count, 10):
        answers = await asyncio.gather(
            *(
                api.call(method, url, headers=headers, data=ONE_CLICK if method == "GET" else None)
                for method, url, headers in asks[first : first + 10]
            )
        )
        assert {answer.status for answer in answers} == {200}


async def test_a_hundred_lookers_change_nothing_and_one_click_acts_once(api: Api, mail: Mail) -> None:
    await add_endpoint(mail.tenant, "https://your-app.com/webhook")
    before = await mail.tables()
    await look(api, mail, 100)
    assert await mail.tables() == before

    assert (await mail.post(ONE_CLICK)).status == 200
    acted = await mail.tables()
    assert await mail.statuses() == ("subscribed", "unsubscribed")
    assert await mail.told() == [("contact.unsubscribed", mail.list_id)]
    added = {name: len(rows) - len(before[name]) for name, rows in acted.items()}
    assert {name: count for name, count in added.items() if count} == {
        "consents": 1,
        "events": 1,
        "webhook_messages": 1,
        "webhook_deliveries": 1,
    }

    await look(api, mail, 100)
    for _ in range(20):
        assert (await mail.post(ONE_CLICK)).status == 200
    assert await mail.tables() == acted


async def test_clicks_at_the_same_moment_are_one(mail: Mail) -> None:
    await add_endpoint(mail.tenant, "https://your-app.com/webhook")
    answers = await asyncio.gather(*(mail.post(ONE_CLICK) for _ in range(12)))
    assert {answer.status for answer in answers} == {200}
    assert await mail.told() == [("contact.unsubscribed", mail.list_id)]
    assert await mail.events() == [(EventKind.UNSUBSCRIBE, None)]
    assert len(await history(mail.tenant, mail.public_contact_id)) == 3


async def test_the_customer_is_told_once(database: Database, worker_pool: Pool, mail: Mail) -> None:
    async with receiving() as receiver, dispatching(worker_pool, database.settings()):
        await add_endpoint(mail.tenant, receiver.url(), ["contact.unsubscribed", "contact.subscribed"])
        for _ in range(3):
            await mail.post(ONE_CLICK)
        await mail.press(subscribe="list")
        await receiver.wait_for(2)
        await asyncio.sleep(0.3)
        told = sorted((got.type, got.data["email"], got.data["listId"]) for got in receiver.received)
    assert told == [
        ("contact.subscribed", "a@example.com", mail.public_list_id),
        ("contact.unsubscribed", "a@example.com", mail.public_list_id),
    ]


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"Content-Type": "application/x-www-form-urlencoded"}, b"List-Unsubscribe=One-Click"), MULTIPART],
    ids=["urlencoded", "multipart"],
)
async def test_one_click_needs_nothing_but_its_two_words(mail: Mail, headers: dict[str, str], body: bytes) -> None:
    elsewhere = {
        "Origin": "https://mail.example.net",
        "Sec-Fetch-Site": "cross-site",
        "Referer": "https://evil.example/",
    }
    answer = await mail.post(body, headers=headers | elsewhere)
    assert (answer.status, "location" in answer.headers, "set-cookie" in answer.headers) == (200, False, False)
    assert await mail.statuses() == ("subscribed", "unsubscribed")
    assert await mail.events() == [(EventKind.UNSUBSCRIBE, None)]


async def test_a_readers_word_is_kept_with_where_it_came_from(mail: Mail) -> None:
    for _ in range(2):
        await mail.post(ONE_CLICK)
    await mail.press(unsubscribe="all")
    said = (await history(mail.tenant, mail.public_contact_id))[2:]
    assert [(line["status"], line["source"], line["list"], line["ip"], line["wording"]) for line in said] == [
        ("unsubscribed", "unsubscribe", "Tips & <Tricks>", "127.0.0.1", "List-Unsubscribe=One-Click"),
        ("unsubscribed", "unsubscribe", None, "127.0.0.1", "Unsubscribe from all mail of Acme"),
    ]


@pytest.mark.parametrize(
    ("proxies", "header", "ip"),
    [
        (0, "203.0.113.9", "127.0.0.1"),
        (1, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (1, "2001:DB8::1", "2001:db8::1"),
        (1, "unknown", "127.0.0.1"),
    ],
)
async def test_a_readers_address_is_that_which_our_proxies_tell(
    database: Database, worker_pool: Pool, mail: Mail, proxies: int, header: str, ip: str
) -> None:
    async with running_api(database.settings(proxies=proxies), worker_pool) as behind:
        path = f"/u/{mail.unsubscribe()}"
        said_so = {"X-Forwarded-For": header}
        assert (await behind.call("POST", path, data=ONE_CLICK, headers=said_so)).status == 200
    said = await history(mail.tenant, mail.public_contact_id)
    assert said[-1]["ip"] == ip


async def test_the_page_asks_without_scripts_or_cookies(api: Api, mail: Mail) -> None:
    answer = await api.call("GET", f"/u/{mail.unsubscribe()}")
    text = answer.body.decode()
    assert "Tips &amp; &lt;Tricks&gt;" in text
    assert '<form method="post"><button name="unsubscribe" value="list">' in text
    assert "<script" not in text
    # A mail may have been forwarded.
    assert "a@example.com" not in text
    assert "a…@example.com" in text
    assert "set-cookie" not in answer.headers
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert "no-store" in answer.headers["cache-control"]


async def test_the_form_can_end_everything(mail: Mail) -> None:
    assert "You are unsubscribed" in await mail.press(unsubscribe="all")
    assert await mail.statuses() == ("unsubscribed", "subscribed")


async def test_a_mail_to_no_list_ends_everything(mail: Mail) -> None:
    assert 'value="all">Unsubscribe<' in await mail.look(to_list=False)
    assert (await mail.post(ONE_CLICK, to_list=False)).status == 200
    assert (await mail.statuses())[0] == "unsubscribed"


async def test_a_list_that_is_gone_is_all_mail(mail: Mail) -> None:
    async with mail.tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE campaigns SET status = 'completed' WHERE account_id = $1", mail.tenant.account_id)
    assert (await mail.tenant.delete(f"/api/v1/lists/{mail.public_list_id}")).status == 200
    assert "You will get no more mail from Acme." in await mail.press(**ONE_CLICK)
    assert (await mail.statuses())[0] == "unsubscribed"


async def test_who_was_taken_off_the_list_can_still_leave_it(mail: Mail) -> None:
    path = f"/api/v1/lists/{mail.public_list_id}/contacts"
    assert (await mail.tenant.delete(f"{path}/{mail.public_contact_id}")).status == 200
    assert "no more mail of the list" in await mail.press(**ONE_CLICK)
    assert await mail.statuses() == ("subscribed", "unsubscribed")
    again = await mail.tenant.post(path, {"contacts": [mail.public_contact_id]})
    assert again.body["refused"] == 1


async def test_a_post_that_is_no_answer_changes_nothing(api: Api, mail: Mail) -> None:
    before = await mail.tables()
    many = b"unsubscribe=all&unsubscribe=list"
    said: list[dict[str, Any]] = [{}, {"data": {"x": "y"}}, {"json": ONE_CLICK}, {"data": b"\xff"}]
    said += [{"data": {"unsubscribe": "x"}}, {"data": {"List-Unsubscribe": "one-click"}}, {"data": {"choose": "x"}}]
    said += [{"data": many, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}]
    for options in said:
        assert (await api.call("POST", f"/u/{mail.unsubscribe()}", **options)).status == 400, options
    assert await mail.tables() == before


async def test_no_token_but_ours_opens_the_page(api: Api, mail: Mail) -> None:
    before, token = await mail.tables(), mail.unsubscribe()
    forged = [token[:i] + ("A" if c != "A" else "B") + token[i + 1 :] for i, c in enumerate(token[:-1])]
    for bad in [*forged, mail.track, token + "A", token[:-1], "x", "%00", "é"]:
        assert (await api.call("GET", f"/u/{bad}")).status == 404
        assert (await api.call("POST", f"/u/{bad}", data={"unsubscribe": "all"})).status == 404
    assert await mail.tables() == before


async def test_a_deleted_person_is_not_written_to_again(api: Api, mail: Mail) -> None:
    assert (await mail.tenant.delete(f"/api/v1/contacts/{mail.public_contact_id}")).status == 200
    assert "Unsubscribe" in await mail.look()
    assert "You are unsubscribed" in await mail.press(**ONE_CLICK)
    assert await suppressions(mail.tenant) == {"a@example.com": "unsubscribe"}
    assert "subscribe" not in (await mail.look()).partition("<form")[2]
    # The address alone cannot come back: there is nobody to whom the mail would go.
    await mail.press(subscribe="all")
    assert await suppressions(mail.tenant) == {"a@example.com": "unsubscribe"}


async def test_the_link_of_a_contact_made_anew_is_that_contacts(mail: Mail) -> None:
    assert (await mail.tenant.delete(f"/api/v1/contacts/{mail.public_contact_id}")).status == 200
    again = {"email": "A@example.com", "listId": mail.public_list_id}
    made = (await mail.tenant.post("/api/v1/contacts", again)).body["id"]
    await mail.press(unsubscribe="all")
    assert (await mail.tenant.get(f"/api/v1/contacts/{made}")).body["status"] == "unsubscribed"


async def test_the_link_of_an_erased_person_is_nobodys(mail: Mail) -> None:
    async with mail.tenant.api.operator.acquire() as conn:
        await conn.execute("DELETE FROM contacts WHERE id = $1", mail.contact_id)
        await conn.execute(
            "UPDATE audience SET email = '[erased]', email_hash = 'h' WHERE stream_id = $1", mail.stream_id
        )
    before = await mail.tables()
    assert "Nobody’s address" in await mail.look()
    for form in ({"unsubscribe": "all"}, {"subscribe": "all"}, {"choose": "lists", "seen": mail.public_list_id}):
        assert "Nobody’s address" in await mail.press(**form)
    assert await mail.tables() == before


async def test_the_link_of_another_tenant_opens_nothing_here(api: Api, mail: Mail) -> None:
    stranger = await api.add_tenant("Stranger")
    foreign = Mail(stranger, mail.stream_id, mail.contact_id, mail.list_id)
    before = await mail.tables()
    assert "Nobody’s address" in await foreign.look()
    await foreign.press(unsubscribe="all")
    assert await mail.tables() == before
