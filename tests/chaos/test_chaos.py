"""The kill harness under pytest. A short run belongs to every `make test`; the whole run adds that of record, the broken builds
that it must catch, and the runs with lost events. MAILRAIL_TEST_CHAOS_SEED repeats one.
"""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import kafka
from tests.support.processes import processes_with

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("MAILRAIL_TEST_CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))

pytestmark = pytest.mark.chaos


def run(folder: Path, minutes: float, *options: str) -> dict[str, Any]:
    """A run as a process of its own; its summary. What it printed, seed included, is in pytest's captured output."""
    file = folder / "summary.json"
    command = [
        sys.executable,
        "-m",
        "tests.chaos.run",
        "--seed",
        str(SEED),
        "--minutes",
        str(minutes),
        "--json",
        str(file),
    ]
    command += ["--keep", str(folder / "run"), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "python")])}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, timeout=minutes * 60 + 90)
    assert file.exists(), f"the run ended with status {done.returncode} and no summary"
    assert processes_with(str(folder)) == set(), "processes are left"
    summary: dict[str, Any] = orjson.loads(file.read_bytes())
    assert (done.returncode == 0) is not (summary["wrong"] or summary["unmet"])
    return summary


def with_kafka() -> str:
    """The flag for the bus of a full run."""
    why = kafka.missing()
    assert why is None or not os.environ.get("CI"), why
    return "--no-kafka" if why else "--kafka"


@pytest.mark.timeout(240)
def test_a_short_storm_loses_and_doubles_nobody(tmp_path: Path) -> None:
    summary = run(tmp_path, 2, "--kills", "60", "--recipients", "1500", "--hits", "1", "--snapshots", "40")
    assert (summary["wrong"], summary["unmet"]) == ([], [])


@pytest.mark.long
@pytest.mark.timeout(1100)
def test_a_thousand_kills_lose_and_double_nobody(tmp_path: Path) -> None:
    summary = run(
        tmp_path, 15, "--kills", "1000", "--recipients", "10000", "--hits", "20", "--snapshots", "500", with_kafka()
    )
    assert (summary["wrong"], summary["unmet"]) == ([], [])


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("control", ["no_claim", "no_quiet", "no_age_check"])
def test_a_broken_build_is_caught(tmp_path: Path, control: str) -> None:
    # It ends with the first duplicate, most often within a minute.
    summary = run(
        tmp_path,
        5,
        "--control",
        control,
        "--until-caught",
        "--hits",
        "0",
        "--snapshots",
        "0",
        "--kills",
        "0",
        "--recipients",
        "0",
    )
    assert summary["duplicates"] > 0


@pytest.mark.long
@pytest.mark.timeout(330)
@pytest.mark.parametrize("policy", ["resend", "never_resend"])
def test_lost_events_cost_at_most_what_the_policy_says(tmp_path: Path, policy: str) -> None:
    options = (
        "--policy",
        policy,
        "--lose-events",
        "0.005",
        "--kills",
        "150",
        "--recipients",
        "4000",
        "--hits",
        "0",
        "--snapshots",
        "100",
    )
    summary = run(tmp_path, 4, *options)
    assert (summary["wrong"], summary["unmet"]) == ([], [])
    if policy == "never_resend":
        assert summary["duplicates"] == 0
        assert summary["unresolved"] > 0
    else:
        assert summary["duplicates"] <= summary["simulator"]["events"]["lost"]
        assert summary["resent"] > 0
