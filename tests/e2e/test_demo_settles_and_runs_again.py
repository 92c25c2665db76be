"""The demo campaign ends with every recipient in a final state and every micro-dollar settled; a second run reuses it."""

from pathlib import Path

import orjson
import pytest

from mailrail.up.installation import attach
from mailrail.up.postgres import Cluster, ensure_database, running
from tests.support.postgres import SECRET
from tests.support.up import fetch, finish


async def test_the_demo_settles_and_a_second_run_reuses_it(home: Path, tmp_path: Path) -> None:
    summaries = []
    printed = ""
    for recipients in (100, 150):
        file = tmp_path / f"{recipients}.json"
        done = finish(home, "--demo", "--recipients", str(recipients), "--exit", "--summary", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        figures = orjson.loads(file.read_bytes())
        assert figures["recipients"] == recipients
        assert figures["delivered"] == recipients * 98 // 100
        assert figures["bounced"] == recipients * 2 // 100
        assert figures["open"] == figures["failed"] == figures["skipped"] == 0
        assert figures["held_micros"] == recipients * 300
        assert figures["captured_micros"] == figures["delivered"] * 300
        assert figures["released_micros"] == figures["held_micros"] - figures["captured_micros"]
        assert 0 < figures["seconds"] <= figures["settle_seconds"]
        summaries.append(figures)
        printed = done.stdout
    assert "using the demo account of last time" in printed
    with running(home) as cluster:
        url = cluster.url("mailrail")
        assert len(await fetch(url, "SELECT FROM mailrail.accounts")) == 1
        keys = await fetch(url, "SELECT prefix, revoked_at IS NULL AS active FROM mailrail.api_keys ORDER BY id")
        assert [row["active"] for row in keys] == [False, True]
        assert [summary["api_key"].startswith(row["prefix"]) for summary, row in zip(summaries, keys, strict=True)]
        addresses = await fetch(url, "SELECT count(*) FROM mailrail.contacts WHERE email LIKE 'bounce%'")
        assert addresses[0][0] == 5
        assert (await fetch(url, "SELECT sum(amount_micros) FROM mailrail.postings"))[0][0] == 0


@pytest.mark.long
def test_time_that_runs_out_is_status_1_with_what_is_open(home: Path) -> None:
    done = finish(home, "--demo", "--recipients", "100", "--timeout", "0.5")
    assert done.returncode == 1
    assert "The demo did not finish within 0.5 s. It was at" in done.stdout


@pytest.mark.long
async def test_an_outside_database_and_endpoint(home: Path, cluster: Cluster) -> None:
    await ensure_database(cluster, "outside")
    done = finish(
        home, "--demo", "--recipients", "50", "--exit", "--database", cluster.url("outside"), MAILRAIL_SECRET_KEY=SECRET
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (home / "postgres").exists()
    assert attach({"MAILRAIL_UP_DATA": str(home)}) == {}
