"""What a search keeps on the disk: training state of trials that may go on, weights of leaders. No
torch, no ray.
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
from attnfd_ray.config.metrics import MIOU
from attnfd_ray.errors import StoreError
from attnfd_ray.store.parts import check_trial_id
from attnfd_ray.store.rows import BASELINES, TrialState
from attnfd_ray.store.store import Store

_WEIGHTS = ("best.safetensors", "last.safetensors")
# a failed trial may be tried again, and goes on from its state then
_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE)
_COLUMNS = (
    "search_id", "trial_id", "role", "state", "seed", "config_hash", "protocol", "best_val_miou", "student_params",
    "latency_ms", "latency_protocol",
)  # fmt: skip

Row = Mapping[str, Any]


def delete_expired(
    store: Store, search_id: str, *, keep_weights: int | None, metrics: Metrics = (MIOU,)
) -> None:
    """Delete what a search needs no longer, by what the store says of its trials; any process, at
    any time.

    What is decided on an older view of the store stays right: a trial that was overtaken never
    leads again. Only where further seeds lower the mean of a leading config may the next one have
    lost its weights by then; run it again for them. Raises StoreError for what cannot be deleted.
    """
    for path, _ in expired_files(store, search_id, keep_weights=keep_weights, metrics=metrics):
        remove(path)


def expired_files(
    store: Store, search_id: str, *, keep_weights: int | None, metrics: Metrics = (MIOU,)
) -> Iterator[tuple[Path, str]]:
    """Yield what a search needs no longer, and why: files and directories of its trials whose end
    is in the store.
    """
    rows = [
        row for row in store.trials(columns=_COLUMNS).to_pylist() if row["search_id"] == search_id
    ]
    kept = trials_keeping_weights(rows, keep_weights, metrics)
    for row in rows:
        directory = run_directory(store, row["trial_id"])
        if row["state"] not in _OVER or directory is None:
            continue
        yield from _there(store, [directory / "checkpoints"], f"the trial is {row['state']}")
        yield from partial_files(store, directory)
        if row["trial_id"] not in kept:
            yield from _there(
                store,
                [directory / name for name in _WEIGHTS],
                "weights of a trial that does not lead",
            )


def trials_keeping_weights(
    rows: Sequence[Row], keep_weights: int | None, metrics: Metrics = (MIOU,)
) -> set[str]:
    """Return the ids of the trials of one search that keep their weights; None: all do.

    Those are the file as written, of baselines the best alone once it is known, and of those that
    had their full budget so many for each protocol: the best of the report, which is the best that
    is not of a baseline's config, then, with several metrics, the front with what baselines are on
    it, then the highest scores of their own. Of a front that is longer than `keep_weights` one may
    move up whose weights are gone, and stays without. What `confirm` ran again is there for its
    scores alone.
    """
    if keep_weights is None:
        return {row["trial_id"] for row in rows}
    alone = {(row["protocol"], row["config_hash"]) for row in rows if row["role"] in BASELINES}
    complete: defaultdict[str | None, list[Row]] = defaultdict(list)
    for row in sorted(
        rows, key=lambda row: order(row["best_val_miou"], row["student_params"], row["trial_id"])
    ):
        if row["role"] != "confirm" and row["state"] == TrialState.COMPLETE:
            complete[row["protocol"]].append(row)
    kept = {
        row["trial_id"] for row in rows if row["role"] not in ("trial", "baseline_trial", "confirm")
    }
    for protocol, group in complete.items():
        drawn = [row for row in group if row["role"] == "trial"]
        ranked = best_first(group)
        best = [
            row
            for row in ranked
            if row["role"] == "trial" and (protocol, row["config_hash"]) not in alone
        ][:1]
        baselines = [row["trial_id"] for row in ranked if row["role"] in BASELINES]
        kept = kept - {*baselines[1:]} | {*baselines[:1]}
        front = on_front(over_seeds(group, metrics), metrics) if len(metrics) > 1 else []
        wanted = dict.fromkeys(row["trial_id"] for row in [*best, *front, *drawn])
        kept |= set([trial_id for trial_id in wanted if trial_id not in kept][:keep_weights])
    return kept


def run_directory(store: Store, trial_id: str) -> Path | None:
    """Return where a trial keeps its files, None for nothing or a link; StoreError for an id that
    is no file name.
    """
    check_trial_id(trial_id)
    directory = store.root / "runs" / trial_id
    return directory if is_own(store, directory) and directory.is_dir() else None


def partial_files(store: Store, directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield the weights of a run that were never written to their end."""
    yield from _there(store, sorted(directory.glob(".*.partial")), "never written to its end")


def is_own(store: Store, path: Path) -> bool:
    """Return whether a path is in the store itself, reached through no link and no link either."""
    inside = path.parent.resolve() == store.root.resolve() / path.parent.relative_to(store.root)
    return inside and not path.is_symlink()


def remove(path: Path) -> None:
    """Delete a file or a directory; one that is gone is no mistake, since others tidy too. Raises
    StoreError.
    """
    try:
        while path.is_dir():
            # what another process deletes under our hands ends one round
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be deleted: {error.strerror or error}; delete it, and start the same "
            "again"
        ) from None


def _there(store: Store, paths: Sequence[Path], why: str) -> Iterator[tuple[Path, str]]:
    yield from ((path, why) for path in paths if is_own(store, path) and path.exists())
