"""/o, /c and /u over a socket."""

import asyncio
from dataclasses import dataclass

import pytest

from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from mailrail.ids import Kind
from tests.oracle.tokens import Tokens
from tests.support.api import Api, Tenant, running_api
from tests.support.people import history
from tests.support.postgres import SECRET, Database

LINKS = ["https://example.com/a?b=c&d=%20e#f", "http://bücher.example/ü\r\nSet-Cookie: x=1", "javascript:alert(1)"]


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail of a sent campaign."""

    tenant: Tenant
    stream_id: int
    contact_id: int
    list_id: int

    @property
    def track(self) -> str:
        """The token of its pixel and links."""
        return Tokens(SECRET.encode()).track_token(self.stream_id, 1)

    def unsubscribe(self, *, to_list: bool = True) -> str:
        """The token of its unsubscribe link."""
        list_id = self.list_id if to_list else 0
        return Tokens(SECRET.encode()).unsubscribe_token(
            self.tenant.account_id, self.contact_id, list_id, self.stream_id, 1
        )

    async def events(self) -> list[tuple[int, str | None]]:
        """What was recorded of it, once all has been written."""
        await asyncio.sleep(0.4)
        async with self.tenant.api.operator.acquire() as conn:
            rows = await conn.fetch(
                "SELECT kind, detail FROM events WHERE stream_id = $1 ORDER BY kind, detail", self.stream_id
            )
        return [(row["kind"], row["detail"]) for row in rows]

    async def statuses(self) -> tuple[str, str]:
        """(the contact's, its membership's)."""
        async with self.tenant.api.operator.acquire() as conn:
            return (
                await conn.fetchval("SELECT status FROM contacts WHERE id = $1", self.contact_id),
                await conn.fetchval("SELECT status FROM list_members WHERE contact_id = $1", self.contact_id),
            )


@pytest.fixture
async def mail(tenant: Tenant) -> Mail:
    """A mail whose campaign has three links and went to a list."""
    await tenant.verify_domain()
    list_id = (await tenant.post("/api/v1/lists", {"name": "Tips & <Tricks>"})).body["id"]
    await tenant.post("/api/v1/contacts", {"email": "a@example.com", "listId": list_id})
    body = {"name": "N", "subject": "S", "content": "<p>x</p>", "listId": list_id}
    campaign = (await tenant.post("/api/v1/campaigns", body)).body["id"]
    assert (await tenant.post(f"/api/v1/campaigns/{campaign}/launch")).status == 200
    async with tenant.api.operator.acquire() as conn:
        row = await conn.fetchrow("SELECT stream_id, list_id FROM campaigns WHERE account_id = $1", tenant.account_id)
        contact_id = await conn.fetchval("SELECT id FROM contacts WHERE account_id = $1", tenant.account_id)
        assert row is not None
        await conn.executemany(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, $2, $3, $4)",
            [(row["stream_id"], n, tenant.account_id, url) for n, url in enumerate(LINKS, 1)],
        )
    return Mail(tenant, row["stream_id"], contact_id, row["list_id"])


async def test_an_open_is_a_pixel_and_an_event(api: Api, mail: Mail) -> None:
    answer = await api.call("GET", f"/o/{mail.track}")
    assert (answer.status, len(answer.body), answer.headers["content-type"]) == (200, 43, "image/gif")
    assert answer.body.startswith(b"GIF89a")
    assert "no-store" in answer.headers["cache-control"]
    assert await mail.events() == [(EventKind.OPEN, None)]


async def test_a_click_goes_to_the_stored_address_and_nowhere_else(api: Api, mail: Mail) -> None:
    first = await api.call("GET", f"/c/{mail.track}/1?url=https://evil.org")
    assert (first.status, first.headers["location"]) == (302, LINKS[0])
    odd = await api.call("GET", f"/c/{mail.track}/2")
    assert odd.headers["location"] == "http://b%C3%BCcher.example/%C3%BC%0D%0ASet-Cookie:%20x=1"
    assert "set-cookie" not in odd.headers
    for path in ("3", "4", "0", "-1", "x", "01x", "9" * 10, "9" * 40):
        answer = await api.call("GET", f"/c/{mail.track}/{path}")
        assert (answer.status, answer.headers.get("location")) == (404, None), path
    assert await mail.events() == [(EventKind.CLICK, "1"), (EventKind.CLICK, "2")]


async def test_programs_that_only_look_leave_no_trace(api: Api, mail: Mail) -> None:
    assert (await api.call("HEAD", f"/o/{mail.track}")).status == 200
    assert (await api.call("HEAD", f"/c/{mail.track}/1")).status == 302
    assert (await api.call("HEAD", f"/u/{mail.unsubscribe()}")).status == 200
    assert await mail.events() == []


async def test_no_token_but_ours_opens_anything(api: Api, mail: Mail) -> None:
    token = mail.track
    forged = [token[:i] + ("A" if c != "A" else "B") + token[i + 1 :] for i, c in enumerate(token[:-1])]
    for bad in [*forged, mail.unsubscribe(), token + "A", token[:-1], "x", "%00", "é"]:
        assert (await api.call("GET", f"/o/{bad}")).status == 404
        assert (await api.call("GET", f"/c/{bad}/1")).status == 404
    for bad in (token, mail.unsubscribe()[:-2], "x"):
        assert (await api.call("GET", f"/u/{bad}")).status == 404
        assert (await api.call("POST", f"/u/{bad}", data={"unsubscribe": "all"})).status == 404
    assert await mail.events() == []


async def test_the_unsubscribe_page_asks_and_changes_nothing(api: Api, mail: Mail) -> None:
    pages = [await api.call("GET", f"/u/{mail.unsubscribe()}") for _ in range(20)]
    page = pages[-1]
    text = page.body.decode()
    assert page.status == 200
    assert "Tips &amp; &lt;Tricks&gt;" in text
    assert "Acme" in text
    assert '<html lang="en">' in text
    assert '<form method="post">' in text
    assert "<script" not in text
    assert "set-cookie" not in page.headers
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert await mail.statuses() == ("subscribed", "subscribed")
    assert await mail.events() == []


async def test_one_click_takes_the_reader_off_the_list_once(api: Api, mail: Mail) -> None:
    for _ in range(3):
        done = await api.call("POST", f"/u/{mail.unsubscribe()}", data={"List-Unsubscribe": "One-Click"})
        assert done.status == 200
    assert await mail.statuses() == ("subscribed", "unsubscribed")
    assert await mail.events() == [(EventKind.UNSUBSCRIBE, None)]


async def test_a_readers_word_is_kept_with_where_it_came_from(api: Api, mail: Mail) -> None:
    contact_id = api.ids.encode(Kind.CONTACT, mail.contact_id)
    for _ in range(2):
        await api.call("POST", f"/u/{mail.unsubscribe()}", data={"List-Unsubscribe": "One-Click"})
    await api.call("POST", f"/u/{mail.unsubscribe()}", data={"unsubscribe": "all"})
    said = (await history(mail.tenant, contact_id))[2:]
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
        form = {"List-Unsubscribe": "One-Click"}
        path = f"/u/{mail.unsubscribe()}"
        assert (await behind.call("POST", path, data=form, headers={"X-Forwarded-For": header})).status == 200
    said = await history(mail.tenant, behind.ids.encode(Kind.CONTACT, mail.contact_id))
    assert said[-1]["ip"] == ip


async def test_one_click_may_come_as_multipart(api: Api, mail: Mail) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await api.call("POST", f"/u/{mail.unsubscribe()}", data=body, headers=headers)).status == 200
    assert await mail.statuses() == ("subscribed", "unsubscribed")


async def test_the_form_can_end_everything(api: Api, mail: Mail) -> None:
    done = await api.call("POST", f"/u/{mail.unsubscribe()}", data={"unsubscribe": "all"})
    assert b"You are unsubscribed" in done.body
    assert await mail.statuses() == ("unsubscribed", "subscribed")


async def test_a_mail_to_no_list_ends_everything(api: Api, mail: Mail) -> None:
    token = mail.unsubscribe(to_list=False)
    assert b"list" not in (await api.call("GET", f"/u/{token}")).body.partition(b"<main>")[2]
    await api.call("POST", f"/u/{token}", data={"List-Unsubscribe": "One-Click"})
    assert (await mail.statuses())[0] == "unsubscribed"


async def test_a_post_that_is_no_answer_changes_nothing(api: Api, mail: Mail) -> None:
    for options in ({}, {"data": {"x": "y"}}, {"json": {"List-Unsubscribe": "One-Click"}}, {"data": b"\xff"}):
        answer = await api.call("POST", f"/u/{mail.unsubscribe()}", **options)
        assert answer.status == 400
    assert await mail.statuses() == ("subscribed", "subscribed")


async def test_a_contact_that_is_gone_is_no_error(api: Api, mail: Mail) -> None:
    async with api.operator.acquire() as conn:
        await conn.execute("DELETE FROM contacts WHERE id = $1", mail.contact_id)
    answer = await api.call("POST", f"/u/{mail.unsubscribe()}", data={"List-Unsubscribe": "One-Click"})
    assert answer.status == 200
