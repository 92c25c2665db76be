"""The model of the send engine, searched by spin to the last state, and its mutants, in each of which spin must find a fault.

MAILRAIL_TEST_PROFILE=slow searches wider bounds as well: minutes, and some gigabytes.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("never_twice.pml")
DEPTH_MAX = 100_000
TIMEOUT_S = 270
SLOW_TIMEOUT_S = 3000

# Bounds on top of two workers, two recipients and two attempts each.
SMALL = ("CRASHES=0", "SLOW=1", "PAUSES=0")
USUAL = ("CRASHES=1", "SLOW=1", "PAUSES=0")


@dataclass(frozen=True, slots=True)
class Search:
    """What spin said: `states` visited, `fault` the first assertion that fails or the cycle found, None without one."""

    states: int
    fault: str | None


def search(folder: Path, defines: tuple[str, ...], *, cycles: bool = False, timeout_s: float = TIMEOUT_S) -> Search:
    """Searches every state; with `cycles` for a way to go on for ever instead of for failing assertions."""
    _require("spin", "cc")
    flags = [f"-D{define}" for define in defines]
    _run(folder, 60, "spin", *flags, "-a", str(MODEL))
    how = ["-DNP"] if cycles else ["-DSAFETY", "-DNOREDUCE"]
    _run(folder, 60, "cc", "-O3", "-DNOFAIR", *how, "-o", "pan", "pan.c")
    said = _run(folder, timeout_s, "./pan", f"-m{DEPTH_MAX}", "-w24", *(["-l"] if cycles else []))
    for flaw in ("max search depth too small", "out of memory", "VECTORSZ", "aborting"):
        assert flaw not in said, said
    states = re.search(r"^ *([\d.e+]+) states, stored", said, re.MULTILINE)
    errors = re.search(r"errors: (\d+)$", said, re.MULTILINE)
    assert states is not None, said
    assert errors is not None, said
    fault = re.search(r"^pan:\d+: (.+)$", said, re.MULTILINE)
    assert (fault is None) == (errors[1] == "0"), said
    found = Search(int(float(states[1])), fault and fault[1])
    print(f"spin: {' '.join(defines)}: {found.states} states, {found.fault or 'no fault'}")
    return found


def _require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"continuous integration needs {' and '.join(missing)}")
    if missing:
        pytest.skip(f"{' and '.join(missing)} is not installed (Debian: apt-get install spin gcc)")


def _run(folder: Path, timeout_s: float, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, timeout=timeout_s, capture_output=True, text=True)
    assert done.returncode == 0 or command[0] == "./pan", f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


WIDE = [
    ("CRASHES=1", "SLOW=1", "PAUSES=1"),
    ("CRASHES=0", "SLOW=2", "PAUSES=0"),
    (*USUAL, "CANCELS"),
    ("CRASHES=1", "SLOW=1", "PAUSES=1", "CANCELS", "LOSSY", "NEVER_RESEND"),
    (*USUAL, "CLOCK_STOPS", "BOTH_CLOCKS"),
]
# Minutes, and some gigabytes.
WIDER = [
    ("CRASHES=1", "SLOW=2", "PAUSES=1"),
    ("CRASHES=2", "SLOW=1", "PAUSES=0"),
    ("CRASHES=1", "SLOW=1", "PAUSES=1", "CANCELS"),
    (*SMALL, "ATTEMPTS=3"),
]
IS_SLOW = os.environ.get("MAILRAIL_TEST_PROFILE") == "slow"


@pytest.mark.timeout(SLOW_TIMEOUT_S if IS_SLOW else TIMEOUT_S + 30)
@pytest.mark.parametrize(
    "defines",
    [
        (*USUAL, "LOSSY"),
        *(pytest.param(defines, marks=pytest.mark.long) for defines in WIDE),
        *(WIDER if IS_SLOW else []),
    ],
    ids=" ".join,
)
def test_nobody_gets_it_twice_and_everybody_ends(tmp_path: Path, defines: tuple[str, ...]) -> None:
    found = search(tmp_path, defines, timeout_s=SLOW_TIMEOUT_S if IS_SLOW else TIMEOUT_S)
    assert found.fault is None
    assert found.states > 1_000_000


@pytest.mark.parametrize("defines", [SMALL, (*SMALL, "CANCELS", "LOSSY", "NEVER_RESEND")], ids=" ".join)
def test_no_run_goes_on_for_ever(tmp_path: Path, defines: tuple[str, ...]) -> None:
    assert search(tmp_path, defines, cycles=True).fault is None


TWICE = "assertion violated (to[r].accepts<=1)"
OPEN = "assertion violated ((((((("


@pytest.mark.parametrize(
    ("defines", "fault"),
    [
        (("NO_CLAIM",), TWICE),
        (("CHECK_BEFORE_SIGN",), TWICE),
        (("NO_FENCE",), TWICE),
        (("NO_WATERMARK",), TWICE),
        (("SES_IGNORES_AGE",), TWICE),
        (("RETRY_UNANSWERED",), TWICE),
        (("CLOCK_STOPS",), TWICE),
        (("STALE_RELEASE",), OPEN),
        (("LATE_PERMIT", "NEVER_RESEND"), "assertion violated  !((to[0].result[to[0].attempt]&8))"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.long
def test_a_mutant_is_caught(tmp_path: Path, defines: tuple[str, ...], fault: str) -> None:
    found = search(tmp_path, (*USUAL, *defines))
    assert found.fault is not None
    assert found.fault.startswith(fault)


@pytest.mark.parametrize(
    ("witness", "options"),
    [
        ("RESENT", ()),
        ("EVENT_SETTLES", ()),
        ("OLD_SIGNATURE", ()),
        ("UNRESOLVED", ("LOSSY", "CANCELS")),
        ("LOST_AND_RESENT", ("LOSSY",)),
    ],
)
def test_the_model_reaches_what_it_is_about(tmp_path: Path, witness: str, options: tuple[str, ...]) -> None:
    found = search(tmp_path, (*USUAL, *options, f"WITNESS_{witness}"))
    assert found.fault is not None
    assert found.fault.startswith("assertion violated  !(")
