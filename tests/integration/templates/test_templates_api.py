"""Stored templates over HTTP: versions that never change, and what is refused."""

import asyncio
import re

import asyncpg
import pytest

from mailrail.db.pool import Pool, transaction
from mailrail.ids import Kind
from mailrail.templates import model
from tests.support.api import Tenant

BOTH = pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])
WELCOME = {
    "name": "Welcome",
    "subject": "Welcome, {{ firstName }}",
    "preheader": "Good to have you",
    "html": "<p>Hi {{ firstName }},\nyour code is {{ code }}</p>",
    "text": "Hi {{ firstName }}",
}


@BOTH
async def test_a_template_is_made_read_listed_and_deleted(tenant: Tenant, base: str) -> None:
    made = await tenant.post(f"{base}/templates", WELCOME)
    assert made.status == 201, made.body
    assert re.fullmatch("tpl_[a-z2-7]{26}", made.body["id"])
    assert made.body.items() >= {**WELCOME, "version": 1, "variables": ["code", "firstName"], "warnings": []}.items()
    path = f"{base}/templates/{made.body['id']}"
    shown = (await tenant.get(path)).body
    assert shown.pop("versions") == [{"version": 1, "subject": WELCOME["subject"], "createdAt": made.body["createdAt"]}]
    assert shown == made.body
    listed = (await tenant.get(f"{base}/templates")).body
    assert listed["total"] == 1
    assert listed["templates"] == [
        {name: made.body[name] for name in ("id", "name", "version", "createdAt", "updatedAt")}
    ]
    deleted = await tenant.delete(path)
    assert (deleted.status, deleted.body) == (200, {"id": made.body["id"], "deleted": True})
    for answer in (await tenant.get(path), await tenant.delete(path), await tenant.patch(path, {"name": "x"})):
        assert (answer.status, answer.code) == (404, "template_not_found")


async def test_content_makes_versions_and_a_name_does_not(tenant: Tenant) -> None:
    made = (await tenant.post("/api/v1/templates", WELCOME)).body
    path = f"/api/v1/templates/{made['id']}"
    renamed = (await tenant.patch(path, {"name": "Hello"})).body
    assert (renamed["name"], renamed["version"]) == ("Hello", 1)
    assert (await tenant.patch(path, {"text": WELCOME["text"]})).body["version"] == 1
    changed = (await tenant.patch(path, {"html": "<p>{{ code }}</p>", "preheader": None})).body
    assert (changed["version"], changed["html"], changed["preheader"]) == (2, "<p>{{ code }}</p>", None)
    assert (changed["subject"], changed["name"]) == (WELCOME["subject"], "Hello")
    assert changed["variables"] == ["code", "firstName"]
    first = (await tenant.get(f"{path}/versions/1")).body
    assert first.items() >= {"id": made["id"], "html": WELCOME["html"], "preheader": WELCOME["preheader"]}.items()
    versions = (await tenant.get(f"{path}/versions")).body
    assert ([one["version"] for one in versions["versions"]], versions["total"]) == ([2, 1], 2)
    assert [one["version"] for one in (await tenant.get(path)).body["versions"]] == [2, 1]
    for number in ("3", "0", "-1", "x", "99999999999"):
        answer = await tenant.get(f"{path}/versions/{number}")
        assert (answer.status, answer.code) == (404, "template_not_found")


async def test_of_two_changes_from_one_version_one_is_refused(tenant: Tenant) -> None:
    path = f"/api/v1/templates/{(await tenant.post('/api/v1/templates', WELCOME)).body['id']}"
    answers = await asyncio.gather(*(tenant.patch(path, {"text": f"{n}", "ifVersion": 1}) for n in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert (refused.code, refused.params) == ("template_version_changed", {"ifVersion"})
    [won] = [answer for answer in answers if answer.status == 200]
    assert (await tenant.get(path)).body["text"] == won.body["text"]


async def test_changes_at_the_same_time_all_become_versions(tenant: Tenant) -> None:
    path = f"/api/v1/templates/{(await tenant.post('/api/v1/templates', WELCOME)).body['id']}"
    parts = [{"text": "T"}, {"subject": "S"}, {"preheader": "P"}, {"html": "<p>H</p>"}]
    answers = await asyncio.gather(*(tenant.patch(path, part) for part in parts))
    assert sorted(answer.body["version"] for answer in answers) == [2, 3, 4, 5]
    newest = (await tenant.get(path)).body
    assert newest["version"] == 5
    for part in parts:
        assert newest.items() >= part.items()


async def test_a_name_is_given_once(tenant: Tenant, stranger: Tenant) -> None:
    answers = await asyncio.gather(*(tenant.post("/api/v1/templates", WELCOME) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409]
    first = next(answer.body["id"] for answer in answers if answer.status == 201)
    refused = next(answer for answer in answers if answer.status == 409)
    assert (refused.code, refused.params, refused.body["error"]["id"]) == ("template_exists", {"name"}, first)
    other = (await tenant.post("/api/v1/templates", {**WELCOME, "name": "Other"})).body["id"]
    renamed = await tenant.patch(f"/api/v1/templates/{other}", {"name": "Welcome"})
    assert (renamed.status, renamed.code) == (409, "template_exists")
    assert (await stranger.post("/api/v1/templates", WELCOME)).status == 201


async def test_everything_wrong_is_told_at_once(tenant: Tenant) -> None:
    answer = await tenant.post("/api/v1/templates", {"subject": "a\nb", "html": 7, "text": " ", "content": "x"})
    assert answer.status == 422
    assert answer.params == {"name", "subject", "html", "text", "content"}
    assert (await tenant.post("/api/v1/templates", {"name": "N", "subject": "S"})).params == {"html"}
    assert (await tenant.post("/api/v1/templates", {**WELCOME, "name": "tpl_x"})).params == {"name"}
    wrong = await tenant.post("/api/v1/templates", {**WELCOME, "subject": "{{ a", "html": "<p>\n{% if %}</p>"})
    assert (wrong.status, wrong.params) == (422, {"subject", "html"})
    assert {item["code"] for item in wrong.body["errors"]} == {"template_invalid"}


@pytest.mark.parametrize(
    ("part", "source", "line"),
    [  # The known one asks for variables in its other parts: they do not help this one.
        ("html", "<p>\n{% if %}</p>", 2),
        ("html", "<p>\n\n{{ name | shout }}</p>", 3),
        ("html", "{% include 'secrets' %}", 1),
        ("text", "{% import 'secrets' as s %}", 1),
        ("subject", "{% extends 'secrets' %}", 1),
        ("html", "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", 1),
        ("text", "\n{{ 1 // 0 }}", 2),
        ("html", "é" * 140_000, None),
    ],
)
async def test_a_bad_part_is_refused_by_field_and_line(
    tenant: Tenant, part: str, source: str, line: int | None
) -> None:
    known = await tenant.post("/api/v1/templates", WELCOME)
    for answer in (
        await tenant.post("/api/v1/templates", {"name": "Bad", "text": "x", part: source}),
        await tenant.patch(f"/api/v1/templates/{known.body['id']}", {part: source}),
    ):
        assert (answer.status, answer.code, answer.params) == (422, "template_invalid", {part})
        assert answer.body["error"].get("line") == line
    assert (await tenant.get(f"/api/v1/templates/{known.body['id']}")).body["version"] == 1


async def test_what_only_some_values_break_is_a_warning(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/templates", {"name": "Sum", "text": "{{ total + 1 }}"})
    assert made.status == 201
    [warning] = made.body["warnings"]
    assert "text" in warning


@BOTH
async def test_a_trial_tells_what_would_become_of_it(tenant: Tenant, base: str) -> None:
    async def tried(**body: object) -> object:
        answer = await tenant.post(f"{base}/templates/validate", body)
        assert answer.status == 200, answer.body
        return answer.body

    assert await tried(html="<p>{{ a }}</p>", text="{{ b }}") == {
        "valid": True,
        "errors": [],
        "warnings": [],
        "variables": ["a", "b"],
    }
    wrong = await tried(subject="{{ a", html="<p>\n{% if %}</p>")
    assert isinstance(wrong, dict)
    assert [(one["field"], one["line"]) for one in wrong["errors"]] == [("subject", 1), ("html", 2)]
    assert not wrong["valid"]
    failing = await tried(text="{{ a + 1 }}", variables={"a": "x"})
    assert isinstance(failing, dict)
    assert (failing["valid"], failing["errors"][0]["field"]) == (False, "text")
    lacking = await tried(text="{{ a }}{{ b }}", variables={"a": 1})
    assert isinstance(lacking, dict)
    assert (lacking["valid"], len(lacking["warnings"])) == (True, 1)
    assert (await tenant.post(f"{base}/templates/validate", {"subject": "x"})).params == {"html"}
    assert (await tenant.get(f"{base}/templates")).body["total"] == 0


@BOTH
async def test_a_preview_is_the_mail(tenant: Tenant, base: str) -> None:
    made = (await tenant.post(f"{base}/templates", {**WELCOME, "text": None})).body
    path = f"{base}/templates/{made['id']}"
    await tenant.patch(path, {"subject": "New"})
    seen = (await tenant.post(f"{path}/preview", {"variables": {"firstName": "<Ann>", "code": 7}})).body
    assert (seen["id"], seen["version"], seen["subject"]) == (made["id"], 2, "New")
    assert "<p>Hi &lt;Ann&gt;,\nyour code is 7</p>" in seen["html"]
    assert "Good to have you" in seen["html"]
    assert "Hi <Ann>" in seen["text"]
    old = (await tenant.post(f"{path}/preview", {"version": 1, "variables": {"firstName": "Bob"}})).body
    assert (old["version"], old["subject"]) == (1, "Welcome, Bob")
    broken = await tenant.post(f"{path}/preview", {"version": 1, "variables": {"firstName": "x\r\nBcc: b@c.example"}})
    assert (broken.status, broken.code, broken.params) == (422, "template_invalid", {"subject"})
    assert (await tenant.post(f"{path}/preview", {"version": 3})).code == "template_not_found"


async def test_templates_and_versions_have_limits(
    tenant: Tenant, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrail.templates.service.TEMPLATES_MAX", 1)
    monkeypatch.setattr("mailrail.templates.service.VERSIONS_MAX", 2)
    made = await tenant.post("/api/v1/templates", WELCOME)
    path = f"/api/v1/templates/{made.body['id']}"
    full = await tenant.post("/api/v1/templates", {**WELCOME, "name": "Second"})
    assert (full.status, full.code) == (409, "template_limit_reached")
    assert (await tenant.patch(path, {"text": "2"})).status == 200
    full = await tenant.patch(path, {"text": "3"})
    assert (full.status, full.code) == (409, "template_limit_reached")
    assert (await tenant.patch(path, {"name": "Still fine"})).status == 200


async def test_no_version_can_be_changed_or_written_for_another(
    api_pool: Pool, tenant: Tenant, stranger: Tenant
) -> None:
    made = (await tenant.post("/api/v1/templates", WELCOME)).body
    row_id = tenant.api.ids.find(Kind.TEMPLATE, made["id"])
    for statement in ("UPDATE template_versions SET text = 'x'", "DELETE FROM template_versions"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with transaction(api_pool, tenant.account_id) as conn:
                await conn.execute(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with transaction(api_pool, stranger.account_id) as conn:
            await conn.execute(
                """INSERT INTO template_versions (template_id, version, account_id, text, variables, warnings)
                   VALUES ($1, 2, $2, 'x', '{}', '{}')""",
                row_id,
                tenant.account_id,
            )


def test_names_never_look_like_ids() -> None:
    assert f"{Kind.TEMPLATE}_" == model.ID_PREFIX
