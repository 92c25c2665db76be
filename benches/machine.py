"""What every bench says before its figures."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Processor, cores, memory, versions and the load before we add to it, on one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}, load before {os.getloadavg()[0]:.1f}"
    )


def median(values: list[float]) -> float:
    """The middle value, as odd numbers of runs have one."""
    return sorted(values)[len(values) // 2]
