"""Three workers and a sender of single mails share one quota of SES: all of it is used, hardly anything is throttled, and
mail that may not wait does not wait. Judged by what the simulator accepted and refused, second by second.
"""

import asyncio
import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from tests.support.api import running_api
from tests.support.installation import add_sender, send_campaign
from tests.support.postgres import Database
from tests.support.processes import wait_until
from tests.support.simulator import RunningSimulator, simulating
from tests.support.workers import environment, working

pytestmark = [pytest.mark.load, pytest.mark.timeout(180)]

WORKERS = 3
USED_MIN = 0.95
THROTTLED_MAX = 0.01
TOKEN_WAIT_P99_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the simulator and the sender of single mails saw in a stretch of time."""

    accepted: int
    calls: int
    throttled_calls: int
    token_waits_s: list[float]

    def wait_s(self, part: float) -> float:
        """The wait that `part` of the single mails did not exceed."""
        return sorted(self.token_waits_s)[math.ceil(part * len(self.token_waits_s)) - 1]


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [(100, 10), pytest.param(100, 60, marks=pytest.mark.long), pytest.param(14, 60, marks=pytest.mark.long)],
)
async def test_workers_use_the_quota_together_and_single_mails_do_not_wait(
    rate: int, seconds: int, database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    with simulating(tmp_path / "simulator", max_send_rate=rate) as simulator:
        settings = database.settings(
            ses_endpoint=simulator.endpoint, ses_ca_file=str(simulator.directory / "ca.pem"), shard_size=500
        )
        await launch(settings, worker_pool, recipients=rate * (seconds + 30))
        with working(settings, tmp_path, WORKERS, roles="send"), sending_single_mails(settings, tmp_path) as output:
            await asyncio.to_thread(wait_until, lambda: simulator.get("stats")["accepted"] > 0, "the first mail")
            await asyncio.sleep(seconds + 1)
            seen = look(simulator, seconds, output)
    used = seen.accepted / (rate * seconds)
    print(
        f"\n{rate}/s for {seconds} s: {used:.1%} of the quota used, {seen.throttled_calls} of {seen.calls} calls throttled,"
        f" token wait p50 {seen.wait_s(0.5) * 1000:.0f} ms, p99 {seen.wait_s(0.99) * 1000:.0f} ms,"
        f" max {max(seen.token_waits_s) * 1000:.0f} ms of {len(seen.token_waits_s)}"
    )
    assert used >= USED_MIN
    assert seen.throttled_calls < THROTTLED_MAX * seen.calls
    assert len(seen.token_waits_s) > 3 * seconds
    assert seen.wait_s(0.99) <= TOKEN_WAIT_P99_MAX_S


async def launch(settings: Settings, operator: Pool, recipients: int) -> None:
    """A campaign that waits for workers."""
    async with running_api(settings, operator) as api:
        await send_campaign(await add_sender(api, recipients))


@contextlib.contextmanager
def sending_single_mails(settings: Settings, folder: Path) -> Iterator[Path]:
    """The process that tokens are granted to on demand; its output."""
    output = folder / "transactional.txt"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.transactional"], stdout=out, env=environment(settings)
        )
    try:
        wait_until(lambda: b"ready" in output.read_bytes(), "the sender of single mails")
        yield output
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def look(simulator: RunningSimulator, seconds: int, output: Path) -> Seen:
    """What happened in the first `seconds` after the first mail; calls and waits of the whole time."""
    stats = simulator.get("stats")
    accepted_calls = sum(mode["calls"] for name in ("SendEmail", "SendBulkEmail") for mode in stats[name].values())
    refused = sum(stats["rejected_calls"].values())
    log = simulator.get("accepted?limit=1000000")
    assert log["complete"]
    at_s = [datetime.fromisoformat(mail["at"]).timestamp() for mail in log["mails"]]
    lines = [line.split() for line in output.read_text().splitlines()[1:]]
    return Seen(
        accepted=sum(at < at_s[0] + seconds for at in at_s),
        calls=accepted_calls + refused,
        throttled_calls=refused,
        token_waits_s=[float(waited) for waited, _ in lines],
    )
