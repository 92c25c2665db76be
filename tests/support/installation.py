"""A whole installation in one process and a simulator beside it: API, all worker roles, real sockets in between."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mailrail.config import SIMULATOR_TOPIC_ARN, Settings
from mailrail.db.pool import open_pool
from mailrail.ses.limiter import name_of
from mailrail.ses.sender import take_keys
from mailrail.wallet import service as wallet
from mailrail.worker import ROLES, Worker, assemble
from tests.support.api import Api, Tenant, running_api
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.simulator import RunningSimulator, simulating
from tests.support.waiting import until

SETTLE_TIMEOUT_S = 40
ROUND_SIZE = 60
SHARD_SIZE = 200


@dataclass(frozen=True, slots=True)
class Installation:
    """Everything that runs."""

    settings: Settings
    api: Api
    simulator: RunningSimulator
    worker: Worker

    async def set_faults(self, **menu: Any) -> None:
        """Replaces the simulator's faults."""
        url = f"http://127.0.0.1:{self.simulator.port}/_simulator/faults"
        async with self.api.session.put(url, data=orjson.dumps(menu)) as answer:
            assert answer.status == 200, await answer.text()

    async def limiter_is_open(self) -> bool:
        """Whether SES has told its figures."""
        async with self.api.operator.acquire() as conn:
            return bool(
                await conn.fetchval(
                    "SELECT EXISTS (SELECT FROM send_limits WHERE name = $1 AND polled_at IS NOT NULL)",
                    name_of(self.settings),
                )
            )

    async def add_tenant(self) -> Tenant:
        """A tenant with funds and a verified domain."""
        tenant = await self.api.add_tenant()
        await tenant.verify_domain()
        return tenant

    async def add_sender(self, recipients: int) -> Tenant:
        """A tenant with a verified domain and as many contacts."""
        return await add_sender(self.api, recipients)

    async def send_campaign(self, tenant: Tenant) -> str:
        """Starts a campaign to all contacts; its public id."""
        return await send_campaign(tenant)

    async def wait_for(self, tenant: Tenant, campaign_id: str, status: str) -> dict[str, Any]:
        """The campaign's answer once it has the status."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while True:
                shown: dict[str, Any] = (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body
                if shown["status"] == status:
                    return shown
                await asyncio.sleep(0.1)

    async def audit(self) -> list[str]:
        """What is wrong with the ledger."""
        async with self.api.operator.acquire() as conn:
            return await wallet.audit(conn)

    def accepted_twice(self) -> int:
        """Recipients whom the simulator accepted more than once."""
        return int(self.simulator.get("duplicates")["count"])


async def add_sender(api: Api, recipients: int) -> Tenant:
    """A tenant with a verified domain and as many contacts."""
    tenant = await api.add_tenant(funds_micros=300 * recipients)
    await tenant.verify_domain()
    async with api.operator.acquire() as conn:
        await conn.execute(
            """INSERT INTO contacts (account_id, email, first_name)
               SELECT $1, 'p' || n || '@example.net', 'Person ' || n FROM generate_series(1, $2::integer) n""",
            tenant.account_id,
            recipients,
        )
    return tenant


async def send_campaign(tenant: Tenant) -> str:
    """Starts a campaign to all contacts; its public id."""
    made = await tenant.post(
        "/v1/mail/campaigns",
        {
            "name": "News",
            "subject": "Hi {{ firstName }}",
            "from": {"name": "Acme", "email": "news@acme.com"},
            "audience": {},
            "content": {"html": "<p>Hi {{ firstName }}</p>"},
        },
    )
    assert made.status == 201, made.body
    sent = await tenant.post(f"/v1/mail/campaigns/{made.body['id']}/send")
    assert sent.status == 200, sent.body
    return str(made.body["id"])


@asynccontextmanager
async def installed(
    database: Database,
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    roles: Iterable[str] = ROLES,
    **simulator_options: Any,
) -> AsyncIterator[Installation]:
    """An installation for the length of a block; `changes` are settings, `roles` what its worker does. With the simulator's option
    `event_queue` events are pulled, else they are posted to the API. SES has told its figures by then, so that mail is sent as it
    comes and is not left to the workers.
    """
    api_port, simulator_port = free_port(), free_port()
    queue = simulator_options.get("event_queue", "")
    with simulating(
        folder,
        port=simulator_port,
        events_url=None if queue else f"http://127.0.0.1:{api_port}/events/sns",
        topic_arn=SIMULATOR_TOPIC_ARN,
        **simulator_options,
    ) as simulator:
        settings = database.settings(
            ses_endpoint=simulator.endpoint,
            ses_ca_file=str(folder / "ca.pem"),
            sns_topics=(SIMULATOR_TOPIC_ARN,),
            sns_cert_hosts=(f"127.0.0.1:{simulator_port}",),
            sns_ca_file=str(folder / "ca.pem"),
            event_queue=queue,
            aws_endpoint=simulator.endpoint,
            bounce_grace_s=0.0,
            **{"round_size": ROUND_SIZE, "shard_size": SHARD_SIZE, **(changes or {})},
        )
        pool = await open_pool(settings.worker_database_url, application_name="tests worker", hot=True, max_size=16)
        async with running_api(settings, pool, api_port) as api:
            worker = assemble(settings, pool)
            await take_keys(worker.sender, settings)
            try:
                installation = Installation(settings, api, simulator, worker)
                await until(installation.limiter_is_open, "the limiter's figures")
                async with playing(worker, roles):
                    yield installation
            finally:
                await worker.bus.close()
        await pool.close()


@asynccontextmanager
async def playing(worker: Worker, roles: Iterable[str] = ROLES) -> AsyncIterator[None]:
    """Roles of a worker for the length of a block; the send loop ends after its rounds, the others at once."""
    tasks = {name: asyncio.create_task(ROLES[name](worker)) for name in roles}
    try:
        yield
    finally:
        if "send" in tasks:
            worker.send_loop.stop()
            await asyncio.wait([tasks["send"]], timeout=10)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
