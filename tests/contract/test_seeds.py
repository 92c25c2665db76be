"""Both API contracts, word for word, against a live installation: every request and answer, every price and event."""

import asyncio
import hmac
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from mailrail.accounts.model import Plan
from tests.support.api import Tenant
from tests.support.given import GIVEN, newsletter_draft
from tests.support.installation import Installation, installed
from tests.support.postgres import Database
from tests.support.seeds import (
    HOST,
    KEY,
    NAMES,
    Piece,
    differences,
    parsed_curl,
    pieces,
    printed_curl,
    printed_json,
    samples,
    text_of,
    transcription_errors,
)
from tests.support.tools import require

FUNDS_MICROS = 10_000_000


# —— the transcription is the text, and all of it ——————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize("seed", NAMES)
async def test_every_word_is_a_sample_or_held_by_a_test(seed: str) -> None:
    cut = pieces(seed)
    assert "".join(piece.text for piece in cut) == text_of(seed)
    for piece in cut:
        held_by = piece.said.get("held_by", [])
        assert "request" in piece.said or held_by or piece.said["why_not_held"], piece.text
        assert all(callable(globals()[name]) for name in held_by), held_by


@pytest.mark.parametrize("seed", NAMES)
async def test_no_piece_hides_a_second_sample(seed: str) -> None:
    for piece in pieces(seed):
        is_sample = "request" in piece.said
        assert piece.text.count("\nRequest\n") == (1 if is_sample and seed == "api-v1" else 0), piece.text
        assert is_sample or not re.search(r'^\{|^"\w+":', piece.text, re.MULTILINE), piece.text


@pytest.mark.parametrize("piece", samples(), ids=lambda piece: piece.name)
async def test_a_transcribed_sample_is_the_printed_one(piece: Piece) -> None:
    said = piece.said
    if piece.seed == "api-v1":
        assert piece.text.startswith(
            re.sub(r"/(clx1234|dom_id|camp_id)", "/:id", said["request"]["path"].partition("?")[0])
        )
        assert parsed_curl(printed_curl(piece)) == said["request"]
        printed = printed_json(piece.text.partition("Response\n")[2])
    else:
        printed = printed_json(piece.text)
        body = said["request"]["body"]
        assert printed[:-1] == ([] if body is None else [body])
        path = re.sub("cmp_xyz789", ":id", said["request"]["path"])
        assert f"{said['request']['method']} {path}\n" in text_of(piece.seed)
    assert list(transcription_errors(said["answer"], printed[-1])) == []


# —— the installation, and what each sample takes for given ————————————————————————————————————————————————————————————


@pytest.fixture(scope="module")
async def installation(database: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """Campaigns wait, for nobody works on them; events do not come, so that what is sent stays `sent`, as printed."""
    folder = tmp_path_factory.mktemp("simulator")
    async with installed(database, folder, roles=("fold",), event_types=[]) as running:
        yield running


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    """An account that may send from every domain of the samples."""
    found = await installation.api.add_tenant(funds_micros=FUNDS_MICROS)
    for domain in ("yourdomain.com", "domain.com", "acme.com"):
        await found.verify_domain(domain)
    return found


# —— every sample ——————————————————————————————————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize("piece", samples(), ids=lambda piece: piece.name)
async def test_a_printed_request_is_answered_as_printed(tenant: Tenant, piece: Piece) -> None:
    ids = await GIVEN[piece.said["given"]](tenant)
    request = piece.said["request"]
    body = None if request["body"] is None else json.loads(replaced(json.dumps(request["body"]), ids))
    answer = await tenant.api.call(
        request["method"],
        replaced(request["path"], ids),
        headers=request.get("headers", {}) | {"Authorization": f"Bearer {tenant.key}"},
        json=body,
    )
    assert_printed(piece, answer.status, answer.body)


@pytest.mark.parametrize("piece", samples("api-v1"), ids=lambda piece: piece.name)
async def test_a_printed_curl_line_works(tenant: Tenant, piece: Piece) -> None:
    require("curl")
    ids = await GIVEN[piece.said["given"]](tenant)
    line = replaced(printed_curl(piece), ids)
    # The URL of the webhook stays: it is not ours.
    line = line.replace(f"{HOST}/api/v1/", f"{tenant.api.base_url}/api/v1/").replace(KEY, tenant.key)
    status_last = line.replace("curl", "curl --silent --show-error --write-out '\\n%{http_code}'", 1)
    shell = await asyncio.create_subprocess_exec("bash", "-c", status_last, stdout=asyncio.subprocess.PIPE)
    told, _ = await shell.communicate()
    assert shell.returncode == 0
    body, _, status = told.decode().rpartition("\n")
    assert_printed(piece, int(status), json.loads(body))


def replaced(text: str, ids: dict[str, str]) -> str:
    """With our ids in place of the printed ones."""
    for printed, ours in ids.items():
        text = text.replace(printed, ours)
    return text


def assert_printed(piece: Piece, status: int, body: Any) -> None:
    """The answer is the printed one."""
    assert status == piece.said["status"], body
    assert list(differences(body, piece.said["answer"])) == [], body


# —— what the text says beside its samples —————————————————————————————————————————————————————————————————————————————


async def test_a_request_without_the_printed_header_is_refused(tenant: Tenant) -> None:
    for headers in ({}, {"Authorization": "Bearer sk_live_your_api_key_here"}):
        for method, path in {(piece.said["request"]["method"], piece.said["request"]["path"]) for piece in samples()}:
            refused = await tenant.api.call(method, path, headers=headers)
            assert refused.status == 401, (method, path, refused)


async def test_a_plan_allows_as_many_requests_as_printed(installation: Installation) -> None:
    printed = re.findall(r"(\w+): (\d+) req/min", text_of("api-v1"))
    assert len(printed) == 3
    for name, requests in printed:
        tenant = await installation.api.add_tenant(plan=Plan(name.lower()))
        assert (await tenant.get("/api/v1/domains")).headers["ratelimit-limit"] == requests
    starter = await installation.api.add_tenant(plan=Plan.STARTER)
    answers = [await starter.get("/api/v1/domains") for _ in range(101)]
    assert [answer.status for answer in answers] == [200] * 100 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_a_revoked_key_opens_nothing(tenant: Tenant) -> None:
    refused = await tenant.api.call("GET", "/api/v1/domains", await tenant.revoked_key())
    assert (refused.status, refused.code) == (401, "api_key_invalid")


async def test_a_webhook_may_ask_for_every_printed_event(tenant: Tenant) -> None:
    events = re.findall(r"^((?:campaign|email|contact)\.\w+) ", text_of("mail-v1"), re.MULTILINE)
    assert len(events) == 8
    events += [event for event in ("email.sent",) if f'"{event}"' in text_of("api-v1")]
    for path in ("/api/v1/webhooks", "/v1/mail/webhooks"):
        made = await tenant.post(path, {"url": "https://your-app.com/webhook", "events": events})
        assert (made.status, made.body["events"]) == (201, events)


async def test_every_endpoint_has_the_printed_price(tenant: Tenant) -> None:
    printed = re.findall(r"^((?:GET|POST) /v1/mail/\S+)\n(.+)$", text_of("mail-v1"), re.MULTILINE)
    assert len(printed) == 7
    listed = (await tenant.get("/v1/mail/pricing")).body["pricing"]
    assert {one["endpoint"]: one["price"] for one in listed}.items() >= dict(printed).items()
    document = (await tenant.api.call("GET", "/openapi.json")).body
    documented = {
        f"{method.upper()} {re.sub(r'{.+?}', ':id', path)}": operation.get("x-price")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert documented.items() >= dict(printed).items()


async def test_only_sending_costs_money(tenant: Tenant) -> None:
    """Contacts and drafts are free; a send holds the estimate, exactly, and nothing is charged until mail is delivered."""
    path = f"/v1/mail/campaigns/{(await newsletter_draft(tenant))['cmp_xyz789']}"
    before = (await tenant.get("/v1/mail/wallet")).body
    assert (before["availableMicros"], before["heldMicros"]) == (FUNDS_MICROS, 0)
    assert (await tenant.get(path)).body["estimatedCostMicros"] == 10_240 * 300
    assert (await tenant.post(f"{path}/send")).status == 200
    after = (await tenant.get("/v1/mail/wallet")).body
    assert (after["availableMicros"], after["heldMicros"]) == (FUNDS_MICROS - 3_072_000, 3_072_000)
    [hold] = (await tenant.get("/v1/mail/wallet/holds")).body["holds"]
    assert (hold["capturedMicros"], hold["openMicros"]) == (0, 3_072_000)


@pytest.mark.parametrize(("tampered", "status"), [(False, "200"), (True, "401")])
async def test_the_printed_signature_check_accepts_what_we_sign(
    tenant: Tenant, tmp_path: Path, *, tampered: bool, status: str
) -> None:
    """The sample runs as printed, between an `app` like Express's and one request to it."""
    require("node")
    made = await tenant.post("/api/v1/webhooks", {"url": "https://your-app.com/webhook", "events": ["email.opened"]})
    secret: str = made.body["secret"]
    sent = {
        "type": "email.opened",
        "data": {"id": "eml_a", "to": "jörg@example.com", "tags": [{"name": "a/b", "value": "<1>"}]},
    }
    body = orjson.dumps(sent)
    signature = hmac.new(secret.encode(), body, "sha256").hexdigest()
    if tampered:
        body = body.replace(b"eml_a", b"eml_b")
    [piece] = [piece for piece in pieces("api-v1") if piece.text.startswith("All webhook payloads")]
    program = tmp_path / "webhook.js"
    program.write_text(EXPRESS + piece.text[piece.text.index("//") :])
    node = await asyncio.create_subprocess_exec(
        "node", str(program), secret, signature, body.decode(), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await node.communicate()
    assert (node.returncode, told.decode().split()[0]) == (0, status)


# What the sample needs of Express: the body parsed, and an answer with a status.
EXPRESS = """
const [SECRET, signature, body] = process.argv.slice(2);
const app = { post: (path, handler) => setImmediate(() => {
  const res = { code: 200, status(code) { this.code = code; return this; }, send(text) { console.log(this.code, text); } };
  handler({ headers: { 'x-webhook-signature': signature }, body: JSON.parse(body) }, res);
}) };
"""


# —— a difference is seen ——————————————————————————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize(
    ("got", "said", "seen"),
    [
        ({"id": "eml_ab2", "more": 1}, {"id": "<eml>"}, 0),
        ({"id": "con_ab2"}, {"id": "<eml>"}, 1),
        ({}, {"id": "<eml>"}, 1),
        ({"cost": 3.07}, {"cost": 3.07}, 0),
        ({"cost": 3.072}, {"cost": 3.07}, 1),
        ({"cost": "3.07"}, {"cost": 3.07}, 1),
        ({"total": 2.0}, {"total": 2}, 1),
        ({"success": 1}, {"success": True}, 1),
        ([{"a": 1}, {"b": 2}, {"a": 3}], [{"a": 1}, {"a": 3}], 0),
        ([{"a": 3}, {"a": 1}], [{"a": 1}, {"a": 3}], 1),
        (["a", "b"], ["a"], 1),
        ([], "<list>", 1),
        ("2026-04-08T10:15:00.123Z", "<time>", 1),
    ],
)
async def test_a_difference_is_seen(got: Any, said: Any, seen: int) -> None:
    assert len(list(differences(got, said))) == seen
