"""The choice on the page behind the link to unsubscribe, and the way back."""

import re
from typing import Any

import pytest

from mailrail.emails.model import EventKind
from mailrail.ids import Kind
from tests.support.people import add_contact, add_list, contact_of, history, set_status, suppress, suppressions
from tests.support.readers import Mail
from tests.support.webhooks import add_endpoint

BOX = re.compile(r'<label><input type="checkbox" name="list" value="(\w+)"( checked)?>([^<]+)</label>')


def boxes(page: str) -> dict[str, bool]:
    """Lists by name, and whether they are ticked."""
    return {name: bool(checked) for _, checked, name in BOX.findall(page)}


def choice(page: str, *names: str) -> dict[str, Any]:
    """The form of the page with these boxes ticked."""
    ids = {name: list_id for list_id, _, name in BOX.findall(page)}
    seen = re.findall(r'name="seen" value="(\w+)"', page)
    assert seen == list(ids.values())
    return {"choose": "lists", "seen": seen, "list": [ids[name] for name in names]}


async def form(mail: Mail, *names: str) -> str:
    """What comes of ticking these boxes and no others."""
    said = choice(await mail.look(), *names)
    fields = [(name, one) for name, value in said.items() for one in ([value] if isinstance(value, str) else value)]
    answer = await mail.post(fields)
    assert answer.status == 200, answer
    return str(answer.body.decode())


async def members(mail: Mail) -> dict[str, str]:
    """Lists by name, and how the contact stands with them."""
    async with mail.tenant.api.operator.acquire() as conn:
        rows = await conn.fetch(
            "SELECT l.name, m.status FROM list_members m JOIN lists l ON l.id = m.list_id WHERE m.contact_id = $1",
            mail.contact_id,
        )
    return {row["name"]: row["status"] for row in rows}


@pytest.fixture
async def lists(mail: Mail) -> dict[str, str]:
    """News, which he is on; Offers, which he left; Open, which is public; Staff, which is none of his business."""
    made = {
        name: await add_list(mail.tenant, name, public=name == "Open") for name in ("News", "Offers", "Open", "Staff")
    }
    for name in ("News", "Offers"):
        await mail.tenant.post(f"/api/v1/lists/{made[name]}/contacts", {"contacts": [mail.public_contact_id]})
    async with mail.tenant.api.operator.acquire() as conn:
        await conn.execute(
            """UPDATE list_members SET status = 'unsubscribed'
               WHERE list_id = (SELECT id FROM lists WHERE name = 'Offers' AND account_id = $1)""",
            mail.tenant.account_id,
        )
    await add_endpoint(mail.tenant, "https://your-app.com/webhook", ["contact.unsubscribed", "contact.subscribed"])
    return made


async def test_the_choice_is_of_his_own_lists_and_public_ones(mail: Mail, lists: dict[str, str]) -> None:
    page = await mail.look()
    assert boxes(page) == {"News": True, "Offers": False, "Open": False, "Tips &amp; &lt;Tricks&gt;": True}
    assert page.index("Unsubscribe from this list") < page.index("Choose what you get")


async def test_where_there_is_nothing_to_choose_there_is_no_form(mail: Mail) -> None:
    assert boxes(await mail.look()) == {}
    assert boxes(await mail.look(to_list=False)) == {"Tips &amp; &lt;Tricks&gt;": True}


async def test_a_saved_choice_is_what_he_ticked_and_says_so(mail: Mail, lists: dict[str, str]) -> None:
    page = await form(mail, "Offers", "Open")
    assert "You will get from now on: “Offers”, “Open”." in page
    assert "You will get no more: “News”, “Tips &amp; &lt;Tricks&gt;”." in page
    assert boxes(page) == {"News": False, "Offers": True, "Open": True, "Tips &amp; &lt;Tricks&gt;": False}
    assert await members(mail) == {
        "News": "unsubscribed",
        "Offers": "subscribed",
        "Open": "subscribed",
        "Tips & <Tricks>": "unsubscribed",
    }
    numbers = {name: mail.tenant.api.ids.find(Kind.LIST, public_id) for name, public_id in lists.items()}
    assert sorted(await mail.told()) == sorted(
        [
            ("contact.unsubscribed", numbers["News"]),
            ("contact.unsubscribed", mail.list_id),
            ("contact.subscribed", numbers["Offers"]),
            ("contact.subscribed", numbers["Open"]),
        ]
    )
    said = (await history(mail.tenant, mail.public_contact_id))[-4:]
    assert [(line["list"], line["status"], line["source"], line["ip"]) for line in said] == [
        ("News", "unsubscribed", "preference_page", "127.0.0.1"),
        ("Tips & <Tricks>", "unsubscribed", "preference_page", "127.0.0.1"),
        ("Offers", "subscribed", "preference_page", "127.0.0.1"),
        ("Open", "subscribed", "preference_page", "127.0.0.1"),
    ]
    assert said[2]["wording"] == "I want the mail of these lists of Acme: ☑ Offers"
    # He left the list of this mail by this mail.
    assert await mail.events() == [(EventKind.UNSUBSCRIBE, None)]


async def test_the_same_choice_twice_changes_nothing(mail: Mail, lists: dict[str, str]) -> None:
    await form(mail, "Open", "News")
    before = await mail.tables()
    assert "Nothing was changed" in await form(mail, "Open", "News")
    assert await mail.tables() == before


async def test_nothing_ticked_leaves_lists_and_says_what_still_comes(mail: Mail, lists: dict[str, str]) -> None:
    page = await form(mail)
    assert "Mail of Acme that goes to everybody still comes." in page
    assert 'value="all">Unsubscribe from all mail of Acme<' in page
    assert (await mail.statuses())[0] == "subscribed"
    assert set((await members(mail)).values()) == {"unsubscribed"}


async def test_lists_that_he_did_not_see_stay_as_they_are(mail: Mail, lists: dict[str, str]) -> None:
    said = choice(await mail.look(), "Open")
    seen = [one for one in said["seen"] if one != lists["News"]]
    staff, foreign = lists["Staff"], "lst_" + "a" * 26
    fields = [("choose", "lists"), *(("seen", one) for one in [*seen, staff, foreign, "x"])]
    fields += [("list", one) for one in (lists["Open"], lists["News"], staff, foreign, "\x00")]
    assert (await mail.post(fields)).status == 200
    assert await members(mail) == {
        "News": "subscribed",
        "Offers": "unsubscribed",
        "Open": "subscribed",
        "Tips & <Tricks>": "unsubscribed",
    }


async def test_who_left_everything_comes_back_to_what_he_ticks_alone(mail: Mail, lists: dict[str, str]) -> None:
    page = await mail.press(unsubscribe="all")
    assert not any(boxes(page).values())
    before = await mail.tables()
    assert "Nothing was changed" in await form(mail)
    assert await mail.tables() == before
    page = await form(mail, "Offers")
    assert "You had unsubscribed from all mail of Acme; that is over." in page
    assert [name for name, is_on in boxes(page).items() if is_on] == ["Offers"]
    assert (await mail.statuses())[0] == "subscribed"
    assert await members(mail) == {"News": "unsubscribed", "Offers": "subscribed", "Tips & <Tricks>": "unsubscribed"}


async def test_the_way_back_from_everything_is_to_what_was_before(mail: Mail, lists: dict[str, str]) -> None:
    await mail.press(unsubscribe="all")
    page = await mail.look()
    assert "You can have back what you got before: the mail of “News”, “Tips &amp; &lt;Tricks&gt;”, and mail" in page
    for _ in range(2):
        assert "You are subscribed again" in await mail.press(subscribe="all")
    assert await mail.statuses() == ("subscribed", "subscribed")
    assert await mail.told() == [("contact.unsubscribed", None), ("contact.subscribed", None)]
    said = (await history(mail.tenant, mail.public_contact_id))[-1]
    assert (said["status"], said["source"], said["list"], said["ip"], said["wording"]) == (
        "subscribed",
        "preference_page",
        None,
        "127.0.0.1",
        "Get mail of Acme again",
    )


async def test_the_way_back_to_a_list(mail: Mail) -> None:
    await add_endpoint(mail.tenant, "https://your-app.com/webhook")
    page = await mail.press(unsubscribe="list")
    assert 'name="subscribe" value="list">Get the list “Tips &amp; &lt;Tricks&gt;” again<' in page
    for _ in range(2):
        assert "You will get the mail of “Tips" in await mail.press(subscribe="list")
    assert await mail.statuses() == ("subscribed", "subscribed")
    assert await mail.told() == [("contact.unsubscribed", mail.list_id), ("contact.subscribed", mail.list_id)]


async def test_a_click_is_the_yes_that_a_list_asked_for(mail: Mail) -> None:
    asks = await add_list(mail.tenant, "Asks", doubleOptIn=True)
    await mail.tenant.post(f"/api/v1/lists/{asks}/contacts", {"contacts": [mail.public_contact_id]})
    assert boxes(await mail.look())["Asks"] is False
    # Not ticking it is no answer.
    await form(mail, "Tips &amp; &lt;Tricks&gt;")
    assert (await members(mail))["Asks"] == "pending"
    await form(mail, "Tips &amp; &lt;Tricks&gt;", "Asks")
    assert (await members(mail))["Asks"] == "subscribed"
    async with mail.tenant.api.operator.acquire() as conn:
        assert not await conn.fetchval("SELECT count(confirm_due_at) FROM list_members")


@pytest.mark.parametrize(
    ("reason", "status", "words"),
    [
        ("bounce", "bounced", "came back"),
        ("complaint", "complained", "marked as spam"),
        ("manual", "subscribed", "does not send to this address"),
    ],
)
async def test_a_click_lifts_no_bounce_complaint_or_entry(
    mail: Mail, lists: dict[str, str], reason: str, status: str, words: str
) -> None:
    said = choice(await mail.look(), "Open")
    await suppress(mail.tenant, "a@example.com", reason)
    async with mail.tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE contacts SET status = $2 WHERE id = $1", mail.contact_id, status)
    before = await mail.tables()
    page = await mail.look()
    assert words in page
    assert "<form" not in page
    for fields in ({"subscribe": "all"}, {"subscribe": "list"}, {"choose": "lists", "seen": said["seen"][0]}):
        assert "You get no mail" in await mail.press(**fields)
    assert await mail.tables() == before
    assert await suppressions(mail.tenant) == {"a@example.com": reason}


async def test_a_no_outlives_the_bounce(mail: Mail) -> None:
    await suppress(mail.tenant, "a@example.com", "bounce")
    async with mail.tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE contacts SET status = 'bounced' WHERE id = $1", mail.contact_id)
    await mail.press(unsubscribe="all")
    assert (await mail.tenant.delete("/api/v1/suppressions/a@example.com")).status == 200
    assert (await mail.statuses())[0] == "unsubscribed"


async def test_a_return_ends_the_suppression_that_a_deletion_left(mail: Mail) -> None:
    """The address came back by an import, as one who had unsubscribed."""
    await suppress(mail.tenant, "a@example.com", "unsubscribe")
    async with mail.tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE contacts SET status = 'unsubscribed' WHERE id = $1", mail.contact_id)
    await mail.press(subscribe="all")
    assert await suppressions(mail.tenant) == {}
    assert (await mail.statuses())[0] == "subscribed"


async def test_customers_are_told_of_who_comes_back_and_not_of_whom_they_bring(mail: Mail) -> None:
    await add_endpoint(mail.tenant, "https://your-app.com/webhook", ["contact.subscribed"])
    news = await add_list(mail.tenant, "News")
    ann = await add_contact(mail.tenant, listId=news)
    assert await mail.told() == []
    await set_status(mail.tenant, ann["id"], "unsubscribed", at="2026-01-01T00:00:00Z")
    back = {"source": "checkout", "at": "2026-11-02T03:04:05Z"}
    for _ in range(2):
        assert (await set_status(mail.tenant, ann["id"], "subscribed", **back)).status == 200
    assert await mail.told() == [("contact.subscribed", None)]
    assert (await contact_of(mail.tenant, ann["id"]))["status"] == "subscribed"


async def test_a_list_is_made_public_and_private_again(mail: Mail) -> None:
    made = await add_list(mail.tenant, "Open")
    assert (await mail.tenant.get(f"/api/v1/lists/{made}")).body["public"] is False
    for is_public in (True, False):
        changed = await mail.tenant.patch(f"/api/v1/lists/{made}", {"public": is_public})
        assert changed.body["public"] is is_public
        assert ("Open" in boxes(await mail.look())) is is_public
    refused = await mail.tenant.patch(f"/api/v1/lists/{made}", {"public": "yes"})
    assert (refused.status, refused.params) == (422, {"public"})
