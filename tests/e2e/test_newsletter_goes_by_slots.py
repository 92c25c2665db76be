"""A newsletter reaches SES as an inline template with slots: almost everybody, at a fraction of its size."""

import re
from pathlib import Path

import aiohttp
import orjson

from tests.support.up import started

RECIPIENTS = 2_000
SLOTS_SHARE_MIN = 0.9
WIRE_SHARE_MAX = 0.1


async def test_nine_in_ten_go_by_slots_at_a_tenth_of_the_bytes(home: Path) -> None:
    with started(home, "--demo", "--recipients", str(RECIPIENTS)) as up:
        shown = re.search(r"Simulator +(\S+/_simulator)/stats", up.text())
        assert shown is not None, up.text()
        # The simulator's certificate is its own; plain HTTP reaches the same port.
        endpoint = shown[1].replace("https", "http")
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{endpoint}/stats") as answer:
                stats = orjson.loads(await answer.read())
            async with http.get(f"{endpoint}/duplicates") as answer:
                duplicates = orjson.loads(await answer.read())
    calls = [stats[operation] for operation in ("SendEmail", "SendBulkEmail") if operation in stats]
    total = sum(mode["recipients"] for operation in calls for mode in operation.values())
    assert total == RECIPIENTS
    slots = stats["SendBulkEmail"]["slots"]
    assert slots["recipients"] >= SLOTS_SHARE_MIN * total
    assert slots["request_bytes"] <= WIRE_SHARE_MAX * slots["rendered_bytes"]
    assert slots["rendered_bytes"] >= 20_000 * slots["recipients"]
    assert duplicates["count"] == 0
