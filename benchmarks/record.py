"""Saves a measurement with its command, versions, machine, seeds and configuration.

Nothing that names this machine is written: no host, no user, no path outside the project.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from attnfd_ray.runtime.cluster.versions import git_commit, versions

RESULTS = Path(__file__).parent / "results"


def record(
    name: str,
    lines: Sequence[str],
    *,
    config: str,
    seeds: str,
    load_before: float,
    now: datetime | None = None,
    root: Path = RESULTS,
) -> Path:
    """Print the result of `python -m benchmarks.<name>`, and save it with its conditions.

    A second result of the same minute replaces the first. `load_before` is that of `load`.
    """
    now = now or datetime.now(UTC)
    packages = [f"{package} {version}" for package, version in versions().items()]
    num_cpus = len(os.sched_getaffinity(0))
    facts = {
        "command": f"python -m benchmarks.{name}",
        "time": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": git_commit() or "unknown",
        "versions": ", ".join(packages),
        "machine": (f"{cpu_model()}, {num_cpus} CPUs, {memory_gib():.0f} GiB, {platform.system()}"),
        "load": (
            f"{load_before:.1f} before the start (average over a minute; a quiet machine has less "
            "than 0.3)"
        ),
        "seeds": seeds,
    }
    head = [f"{key}: {value}" for key, value in facts.items()]
    text = "\n".join([*head, "", *lines, "", "config:", config.strip(), ""])
    print("\n".join(lines), flush=True)
    file = root / f"{now:%Y-%m-%d}-{name}-{now:%H%M}.txt"
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def load() -> float:
    """Return the load average of the last minute; call it before anything is measured."""
    return os.getloadavg()[0]


def cpu_model() -> str:
    """Return the name of the processor, or its architecture."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("model name"):
            _, _, name = line.partition(":")
            return name.strip()
    return platform.machine()


def memory_gib() -> float:
    """Return the machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
