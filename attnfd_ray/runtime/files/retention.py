"""Which files of a search are kept: checkpoints of trials that may resume, weights of leaders.

No torch, no ray.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnfd_ray.analysis.pareto import Metrics, on_front, over_seeds
from attnfd_ray.analysis.ranking import best_first, order
from attnfd_ray.atomic import TEMPORARY_SUFFIX
from attnfd_ray.config.metrics import MIOU
from attnfd_ray.errors import StoreError
from attnfd_ray.run_files import BEST_WEIGHTS, CHECKPOINTS, LAST_WEIGHTS
from attnfd_ray.store import layout
from attnfd_ray.store.parts import check_trial_id
from attnfd_ray.store.store import Store
from attnfd_ray.terms import BASELINES, TrialState

_WEIGHTS = (BEST_WEIGHTS, LAST_WEIGHTS)
# FAILED is not among them: such a trial may be retried, and then resumes from its checkpoint
_FINAL_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE)
_COLUMNS = (
    "search_id",
    "trial_id",
    "role",
    "state",
    "seed",
    "config_hash",
    "protocol",
    "best_val_miou",
    "student_params",
    "latency_ms",
    "latency_protocol",
)

Row = Mapping[str, Any]


def delete_expired(
    store: Store, search_id: str, *, keep_weights: int | None, metrics: Metrics = (MIOU,)
) -> None:
    """Delete the files that a search no longer needs, by the rows of its trials.

    Any process may do this at any time. A decision on older rows stays right: a trial that was
    overtaken never leads again. There is one exception. If further seeds lower the mean of a
    leading config, the weights of the next one may be gone; run it again to get them. Raises
    StoreError for what cannot be deleted.
    """
    for path, _ in expired_files(store, search_id, keep_weights=keep_weights, metrics=metrics):
        remove(path)


def expired_files(
    store: Store, search_id: str, *, keep_weights: int | None, metrics: Metrics = (MIOU,)
) -> Iterator[tuple[Path, str]]:
    """Yield (path, reason) for the files and directories of ended trials that are not needed."""
    rows = [
        row for row in store.trials(columns=_COLUMNS).to_pylist() if row["search_id"] == search_id
    ]
    keeping = trials_keeping_weights(rows, keep_weights, metrics)
    for row in rows:
        directory = run_directory(store, row["trial_id"])
        if row["state"] not in _FINAL_STATES or directory is None:
            continue
        yield from _existing(store, [directory / CHECKPOINTS], f"the trial is {row['state']}")
        yield from partial_files(store, directory)
        if row["trial_id"] not in keeping:
            weights = [directory / name for name in _WEIGHTS]
            yield from _existing(store, weights, "weights of a trial that does not lead")


def trials_keeping_weights(
    rows: Sequence[Row], keep_weights: int | None, metrics: Metrics = (MIOU,)
) -> set[str]:
    """Return the ids of the trials of one search that keep their weights; None keeps all.

    Keeps the as-written trial, the best complete baseline (the untuned one until then), and, per
    protocol, up to `keep_weights` further complete trials in this order:

    1. the report's best, which is never of a baseline's config;
    2. with several metrics, the Pareto front, baselines included;
    3. the highest mIoU.

    If the front has more than `keep_weights` trials, one of them may move up after its weights were
    deleted; it stays without. Runs of `confirm` keep no weights: only their scores are needed.
    """
    if keep_weights is None:
        return {row["trial_id"] for row in rows}
    keeping = {
        row["trial_id"] for row in rows if row["role"] not in ("trial", "baseline_trial", "confirm")
    }
    baseline_configs = {
        (row["protocol"], row["config_hash"]) for row in rows if row["role"] in BASELINES
    }
    for group in _complete_by_protocol(rows):
        ranked = best_first(group)
        baselines = [row["trial_id"] for row in ranked if row["role"] in BASELINES]
        keeping -= set(baselines[1:])
        keeping |= set(baselines[:1])
        leaders = [
            row
            for row in ranked
            if row["role"] == "trial"
            and (row["protocol"], row["config_hash"]) not in baseline_configs
        ]
        front: Sequence[Row] = ()
        if len(metrics) > 1:
            front = on_front(over_seeds(group, metrics), metrics)
        by_miou = [row for row in group if row["role"] == "trial"]
        candidates = dict.fromkeys(row["trial_id"] for row in [*leaders[:1], *front, *by_miou])
        further = [trial_id for trial_id in candidates if trial_id not in keeping]
        keeping |= set(further[:keep_weights])
    return keeping


def _complete_by_protocol(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the complete trials of each protocol, highest mIoU first, without `confirm` runs."""
    ordered = sorted(
        rows, key=lambda row: order(row["best_val_miou"], row["student_params"], row["trial_id"])
    )
    groups: defaultdict[str | None, list[Row]] = defaultdict(list)
    for row in ordered:
        if row["role"] != "confirm" and row["state"] == TrialState.COMPLETE:
            groups[row["protocol"]].append(row)
    return list(groups.values())


def run_directory(store: Store, trial_id: str) -> Path | None:
    """Return the directory of a trial's files, or None if there is none or it is a link.

    Raises StoreError for an id that is not a file name.
    """
    check_trial_id(trial_id)
    directory = layout.run_directory(store.root, trial_id)
    if is_own(store, directory) and directory.is_dir():
        return directory
    return None


def partial_files(store: Store, directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, reason) for the weights of a run that were never written to their end."""
    unfinished = sorted(directory.glob(f".*{TEMPORARY_SUFFIX}"))
    yield from _existing(store, unfinished, "never written to its end")


def is_own(store: Store, path: Path) -> bool:
    """Return whether a path is inside the store, is not a link and is not reached through one."""
    parent = store.root.resolve() / path.parent.relative_to(store.root)
    return path.parent.resolve() == parent and not path.is_symlink()


def remove(path: Path) -> None:
    """Delete a file or a directory; another process may have done so. Raises StoreError."""
    try:
        while path.is_dir():
            # another process may delete files inside it at the same time: then try again
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be deleted: {error.strerror or error}; delete it, and start the same "
            "again"
        ) from None


def _existing(store: Store, paths: Sequence[Path], reason: str) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if is_own(store, path) and path.exists():
            yield path, reason
