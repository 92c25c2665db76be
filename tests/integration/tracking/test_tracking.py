"""/o and /c over a socket."""

import pytest

from mailrail.emails.model import EventKind
from tests.support.api import Api, Tenant
from tests.support.readers import Mail, sent_mail

LINKS = ["https://example.com/a?b=c&d=%20e#f", "http://bücher.example/ü\r\nSet-Cookie: x=1", "javascript:alert(1)"]


@pytest.fixture
async def mail(tenant: Tenant) -> Mail:
    """A mail whose campaign has three links and went to a list."""
    return await sent_mail(tenant, LINKS)


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
    assert await mail.events() == []


async def test_no_token_but_ours_opens_anything(api: Api, mail: Mail) -> None:
    token = mail.track
    forged = [token[:i] + ("A" if c != "A" else "B") + token[i + 1 :] for i, c in enumerate(token[:-1])]
    for bad in [*forged, mail.unsubscribe(), token + "A", token[:-1], "x", "%00", "é"]:
        assert (await api.call("GET", f"/o/{bad}")).status == 404
        assert (await api.call("GET", f"/c/{bad}/1")).status == 404
    assert await mail.events() == []
