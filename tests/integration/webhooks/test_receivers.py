"""Other people's receivers verify what we send: the sample that the documentation prints, under Node.js and Express, and the
libraries of Standard Webhooks for Node.js and Python.
"""

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from mailrail._core import Codec
from mailrail.db.pool import Pool
from mailrail.ids import Ids, Kind
from mailrail.webhooks.handlers import Dispatcher
from mailrail.webhooks.model import Message
from mailrail.webhooks.payload import BODY_MAX_BYTES, body_of
from tests.support.api import Tenant
from tests.support.postgres import SECRET
from tests.support.tools import require
from tests.support.webhooks import Receiver, add_endpoint

RECEIVERS = Path(__file__).parents[2] / "outside" / "webhooks"
START_S = 30.0
NASTY = [
    "Hello",
    'quotes " and \\ and / and </script>',
    "Grüße, שלום, 🙂, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢, é",
    "\u2028\u2029\ufeff\u00a0\x7f\x80\x9f\ufffd\uffff",
    "".join(map(chr, range(1, 32))),
    "__proto__",
    "1.0",
    "1e400",
    "",
    "x" * 998,
]


def message(number: int, text: str, tags: list[str] | None = None) -> Message:
    """A mail's event whose every text is that one."""
    facts = {
        "to": f"{text}@example.com",
        "subject": text,
        "test": False,
        "tags": tags or [f"{text}={text}", "10=1", "2=1"],
    }
    return Message(
        number,
        "email.bounced",
        datetime.now(UTC),
        2**40,
        7,
        3,
        2**62,
        None,
        None,
        {**facts, "bounceType": "hard", "reason": text},
    )


def test_javascript_prints_every_body_as_it_was_signed() -> None:
    require("node")
    ids, chance = Ids(Codec(SECRET.encode())), random.Random(7)
    # Any text that PostgreSQL stores: no NUL, no halves of pairs.
    points = [point for point in range(1, 0x110000) if not 0xD800 <= point < 0xE000]
    made = ["".join(map(chr, chance.choices(points, k=40))) for _ in range(500)]
    made += ["".join(map(chr, chance.choices(range(1, 0x300), k=40))) for _ in range(500)]
    bodies = [body_of(message(number, text), ids).decode() for number, text in enumerate([*NASTY, *made], 1)]
    check = "for (const b of JSON.parse(require('fs').readFileSync(0))) if (JSON.stringify(JSON.parse(b)) !== b) console.log(b)"
    said = subprocess.run(["node", "-e", check], input=json.dumps(bodies).encode(), capture_output=True, check=True)
    assert said.stdout == b""


def test_no_body_is_too_large() -> None:
    ids = Ids(Codec(SECRET.encode()))
    worst = message(2**62, "\x01" * 1000, tags=["\U0001f642" * 100 + "=" + "\U0001f642" * 100] * 20)
    assert len(body_of(worst, ids)) < BODY_MAX_BYTES


@pytest.fixture(scope="module")
def packages() -> None:
    """What the receivers need, as it is locked."""
    require("npm")
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=RECEIVERS, check=True, capture_output=True
    )


@asynccontextmanager
async def receiver_in_node(script: str, secret: str) -> AsyncIterator[int]:
    """A receiver that knows the secret; its port."""
    process = await asyncio.create_subprocess_exec("node", script, secret, cwd=RECEIVERS, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(await asyncio.wait_for(process.stdout.readline(), START_S))
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(("script", "path"), [("sample.js", "/webhook"), ("standard.js", "/")])
async def test_receivers_in_node_verify_every_delivery(
    tenant: Tenant, worker_pool: Pool, dispatcher: Dispatcher, packages: None, script: str, path: str
) -> None:
    made = await add_endpoint(tenant, "http://127.0.0.1:1/", ["campaign.sent"])
    endpoint = f"/api/v1/webhooks/{made['id']}"
    async with receiver_in_node(script, made["secret"]) as port:
        url = f"http://127.0.0.1:{port}{path}"
        assert (await tenant.patch(endpoint, {"url": url, "events": ["*"]})).status == 200
        await insert(worker_pool, tenant, NASTY)
        assert await settled(tenant, endpoint) == {"delivered": len(NASTY)}
        # Another secret, and the same receivers refuse.
        await tenant.post(f"{endpoint}/rotate-secret")
        await worker_pool.execute(
            "UPDATE webhook_endpoints SET previous_until = now() WHERE previous_until IS NOT NULL"
        )
        refused = (await tenant.post(f"{endpoint}/test")).body["id"]
        while not (shown := (await tenant.get(f"/api/v1/webhooks/deliveries/{refused}")).body)["log"]:
            await asyncio.sleep(0.05)
        assert shown["log"][0]["httpStatus"] == 401


async def test_the_library_for_python_verifies_every_delivery(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    await insert(worker_pool, tenant, NASTY)
    await receiver.wait_for(len(NASTY))
    rotated = (await tenant.post(f"/api/v1/webhooks/{made['id']}/rotate-secret")).body
    await tenant.post(f"/api/v1/webhooks/{made['id']}/test")
    received = await receiver.wait_for(len(NASTY) + 1)
    for got in received:
        assert Webhook(made["secret"]).verify(got.body, got.headers) == orjson.loads(got.body)
        with pytest.raises(WebhookVerificationError):
            Webhook(made["secret"]).verify(got.body.replace(b"{", b"{ ", 1), got.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(made["secret"]).verify(got.body, {**got.headers, "webhook-id": "evt_other"})
    Webhook(rotated["secret"]).verify(received[-1].body, received[-1].headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(rotated["secret"]).verify(received[0].body, received[0].headers)


async def insert(pool: Pool, tenant: Tenant, texts: list[str]) -> None:
    """An event for each text."""
    rows = [message(number, text) for number, text in enumerate(texts)]
    await pool.executemany(
        """INSERT INTO webhook_messages (account_id, type, at, stream_id, seq, campaign_id, contact_id, facts)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)""",
        [(tenant.account_id, m.type, m.at, m.stream_id, m.seq, m.campaign_id, m.contact_id, m.facts) for m in rows],
    )


async def settled(tenant: Tenant, endpoint: str) -> dict[str, int]:
    """Deliveries by status, once each was tried."""
    while True:
        listed = (await tenant.get(f"{endpoint}/deliveries?limit=100")).body["deliveries"]
        if listed and all(
            one["status"] != "pending" or (one["attempts"] > 0 and one["nextAttemptAt"]) for one in listed
        ):
            statuses = [one["status"] for one in listed]
            if "pending" not in statuses or any(one["attempts"] > 1 for one in listed):
                return {status: statuses.count(status) for status in sorted(set(statuses))}
        await asyncio.sleep(0.1)


def test_ids_of_messages_are_those_of_the_headers() -> None:
    ids = Ids(Codec(SECRET.encode()))
    assert orjson.loads(body_of(message(5, "x"), ids))["data"]["eventId"] == ids.encode(Kind.WEBHOOK_MESSAGE, 5)
