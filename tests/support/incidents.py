"""What the tests of incidents share: patience scaled down, and what "exactly once" means."""

from mailrail.emails.model import State
from tests.support.api import Tenant
from tests.support.installation import Installation

# A killed process leaves no zombie behind, so the fence may be far shorter than the life of a signature.
QUICK = {
    "lease_s": 1.0,
    "call_timeout_ms": 400,
    "fence_s": 1.0,
    "event_lag_max_s": 0.5,
    "round_size": 20,
    "shard_size": 60,
}


def mails(installation: Installation) -> list[str]:
    """Addresses that SES accepted a mail for, as often as it did; canaries aside."""
    return sorted(installation.simulator.accepted())


def accepted(installation: Installation) -> int:
    """How many mails SES accepted so far, canaries included."""
    return int(installation.simulator.get("stats")["accepted"])


async def audience(tenant: Tenant) -> list[str]:
    """Every address that the tenant's campaigns froze, as often as they did."""
    async with tenant.api.operator.acquire() as conn:
        rows = await conn.fetch("SELECT email FROM audience WHERE account_id = $1", tenant.account_id)
    return sorted(row["email"] for row in rows)


async def states(tenant: Tenant) -> dict[State, int]:
    """Where the tenant's recipients stand."""
    async with tenant.api.operator.acquire() as conn:
        rows = await conn.fetch(
            "SELECT state, count(*) AS n FROM recipient_state WHERE account_id = $1 GROUP BY state", tenant.account_id
        )
    return {State(row["state"]): row["n"] for row in rows}


async def assert_each_got_it_once(installation: Installation, tenant: Tenant) -> None:
    """Nobody twice, nobody missed, by the simulator's log; and the ledger adds up."""
    assert mails(installation) == await audience(tenant)
    assert await installation.audit() == []
