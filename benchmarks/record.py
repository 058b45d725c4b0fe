"""What makes a measurement believable: it is kept with its command, versions, machine, seeds and
configuration.

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
    """Print what `python -m benchmarks.<name>` found, and write it with all that led to it to a
    file of this day.

    A second result of the same minute replaces the first; any other stays.
    """
    now = now or datetime.now(UTC)
    facts = {
        "command": f"python -m benchmarks.{name}",
        "time": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": git_commit() or "unknown",
        "versions": ", ".join(f"{package} {version}" for package, version in versions().items()),
        "machine": f"{cpu_model()}, {len(os.sched_getaffinity(0))} CPUs, {memory_gib():.0f} GiB, "
        f"{platform.system()}",
        "load": f"{load_before:.1f} before the start (average over a minute; a quiet machine has "
        "less than 0.3)",
        "seeds": seeds,
    }
    head = [f"{key}: {value}" for key, value in facts.items()]
    print("\n".join(lines), flush=True)
    file = root / f"{now:%Y-%m-%d}-{name}-{now:%H%M}.txt"
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "\n".join([*head, "", *lines, "", "config:", config.strip(), ""]), encoding="utf-8"
    )
    return file


def load() -> float:
    """Return how many processes wanted a processor over the last minute; take it before anything is
    measured.
    """
    return os.getloadavg()[0]


def cpu_model() -> str:
    """Return the processor's name as Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def memory_gib() -> float:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
