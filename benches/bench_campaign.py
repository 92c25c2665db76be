"""Campaigns from the send request to the commit of the last result, all processes and the simulator on this machine.

Method: each run is a fresh installation of its own (`mailrail up --demo --exit`): embedded PostgreSQL with fsync and
synchronous_commit on, TLS to the simulator, the demo's newsletter (20 KB of HTML and text, 13 links, 5 merge fields,
distinct data per recipient, 2 % bounces). A run counts only if nothing is open and the ledger balances. Memory is the
worker's peak resident set as the kernel keeps it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from benches.machine import describe_machine, median

EMAILS_PER_SECOND_MIN = 8_000
WORKER_PEAK_MIB_MAX = 300
WORKER_GROWTH_MAX = 1.15


@dataclass(slots=True)
class Run:
    """One campaign's figures."""

    recipients: int
    seconds: float = 0.0
    settle_seconds: float = 0.0
    emails_per_second: float = 0.0
    worker_peak_mib: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Status 1 when a figure misses its mark."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--recipients", type=int, default=100_000)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    print(describe_machine())
    small = measure(max(chosen.recipients // 10, 1))
    runs = [measure(chosen.recipients) for _ in range(chosen.runs)]
    rate = median([run.emails_per_second for run in runs])
    peak = max(run.worker_peak_mib for run in runs)
    growth = peak / small.worker_peak_mib
    print(f"median {rate:,.0f} emails/s (at least {EMAILS_PER_SECOND_MIN:,})")
    print(f"worker peak {peak:.0f} MiB (at most {WORKER_PEAK_MIB_MAX}), {growth:.2f} times that of a tenth")
    met = rate >= EMAILS_PER_SECOND_MIN and peak <= WORKER_PEAK_MIB_MAX and growth <= WORKER_GROWTH_MAX
    return 0 if met else 1


def measure(recipients: int) -> Run:
    """Runs one campaign in an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="mailrail-bench-") as folder:
        data, summary = Path(folder) / "data", Path(folder) / "summary.json"
        command = [sys.executable, "-m", "mailrail", "up", "--demo", "--exit", "--recipients", str(recipients)]
        command += ["--data", str(data), "--summary", str(summary), "--port", "18025"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
            run = Run(recipients)
            watcher = threading.Thread(target=watch_worker, args=(up, run), daemon=True)
            watcher.start()
            printed, _ = up.communicate()
        if up.returncode != 0:
            raise SystemExit(f"the campaign did not settle:\n{printed[-2000:]}")
        told = json.loads(summary.read_text())
        run.stages = add_stages((data / "logs" / "worker.log").read_text())
    if told["open"] or told["recipients"] != recipients or told["delivered"] + told["bounced"] != recipients:
        raise SystemExit(f"the campaign's states are wrong: {told}")
    run.seconds, run.settle_seconds = told["seconds"], told["settle_seconds"]
    run.emails_per_second = told["emails_per_second"]
    stages = " ".join(f"{name} {seconds:.2f}" for name, seconds in run.stages.items())
    print(
        f"{recipients:>9,} recipients: {run.seconds:6.2f} s, {run.emails_per_second:8,.0f} emails/s, settled after"
        f" {run.settle_seconds:.2f} s more, worker peak {run.worker_peak_mib:.0f} MiB; seconds summed over shards: {stages}",
        flush=True,
    )
    return run


def watch_worker(up: "subprocess.Popen[str]", run: Run) -> None:
    """Keeps the highest VmHWM of the worker among the processes that `up` started."""
    while up.poll() is None:
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                facts = status.read_text()
                if f"\nPPid:\t{up.pid}\n" in facts and b"\0worker" in (status.parent / "cmdline").read_bytes():
                    peak = re.search(r"VmHWM:\s+(\d+) kB", facts)
                    run.worker_peak_mib = max(run.worker_peak_mib, int(peak[1]) / 1024 if peak else 0.0)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
        threading.Event().wait(0.2)


def add_stages(log: str) -> dict[str, float]:
    """Where the time went, summed over the worker's `shard sent` lines."""
    stages: dict[str, float] = {}
    for line in log.splitlines():
        if "shard sent" in line:
            for name, seconds in re.findall(r"(read|write|render|sign|call)=([0-9.]+)", line):
                stages[name] = stages.get(name, 0.0) + float(seconds)
    return stages


if __name__ == "__main__":
    sys.exit(main())
