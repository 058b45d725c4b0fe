"""Prints a Markdown table of all methods over their seeds, from a store.

    python -m benchmarks.methods STORE EXPERIMENT

The store is that of an ordinary search, such as `search_spaces/methods_toyscenes.yaml`. Nothing is
trained here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from attnfd_ray.analysis.gradients import gradient_line
from attnfd_ray.analysis.records import ConfigLine, Estimate
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.store.store import Store

_COLUMNS = (
    "method",
    "weight",
    "seeds",
    "mIoU, %",
    "gain, points",
    "against the student alone",
    "gradient, first",
    "last",
)


def methods_table(store: Store, experiment: str) -> Iterator[str]:
    """Yield the rows of a Markdown table, best mean first.

    Each verdict follows from that config's own interval. The last columns are |gradient of the
    distillation terms| / |gradient of the cross-entropy| for the student, means over the seeds: in
    the first epoch and in the last.
    """
    shown = summarise(store, experiment=experiment).shown
    assert shown is not None
    protocol = shown.protocols[0]  # the one with most trials
    weights = published_weights(store, experiment)
    trials: dict[str, list[str]] = {}
    for line in protocol.ranked:
        trials.setdefault(_name(line.method, line.values), []).append(line.trial_id)
    yield _row(_COLUMNS)
    yield _row(["---"] * len(_COLUMNS))
    for config in protocol.configs:
        if config.is_baseline and config.method != "none":
            continue  # the search's own first trial, which has one seed
        name = _name(config.method, config.values)
        weight = weights.get(config.method, "")
        if "loss_weight" in name:
            weight = "as named"
        gain = "-"
        if config.gain:
            gain = interval(config.gain, sign="+")
        score = config.best_val_miou
        gradients = _gradients(store, trials[name])
        yield _row(
            [name, weight, str(score.num), interval(score), gain, verdict(config), *gradients]
        )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _name(method: str, values: Mapping[str, Any]) -> str:
    """Return a method with the values of its config: `attnfd (norm image)`."""
    changed = dict(values.get("method", {}))
    for path, value in values.items():
        if path not in ("method", "train.seed"):
            changed[path.removeprefix("method.")] = value
    changed.pop("name", None)
    words = ", ".join(f"{key} {value}" for key, value in changed.items())
    short = method.rpartition(":")[2]
    if not words:
        return short
    return f"{short} ({words})"


def _gradients(store: Store, trial_ids: list[str]) -> tuple[str, str]:
    """Return the mean ratio of gradients in the first epoch and in the last."""
    lines = [gradient_line(store, trial_id) for trial_id in trial_ids]
    known = [line for line in lines if line]
    return _mean([line.first for line in known]), _mean([line.last for line in known])


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{fmean(known):.2f}"


def interval(value: Estimate, sign: str = "") -> str:
    """Return `mean ± half the width of the 95 % interval`, in per cent or points."""
    mean = f"{100 * value.mean:{sign}.2f}"
    if value.half_width is None:
        return mean
    return f"{mean} ± {100 * value.half_width:.2f}"


def verdict(line: ConfigLine) -> str:
    """Return whether the interval of the gain excludes 0."""
    if line.gain is None or line.gain.half_width is None:
        if line.is_baseline:
            return "is it"
        return "one seed: no verdict"
    if abs(line.gain.mean) <= line.gain.half_width:
        return "tie"
    if line.gain.mean > 0:
        return "better"
    return "worse"


def main() -> None:
    """Print the table of one experiment, and how its rows were measured."""
    path, experiment = sys.argv[1:]
    store = Store.open(path, create=False)
    print("\n".join(methods_table(store, experiment)))
    rows = [
        row
        for row in store.trials().to_pylist()
        if row["experiment"] == experiment and row["wall_s"]
    ]
    row = next(row for row in rows if row["role"] not in ("teacher", "baseline"))
    hours = sum(other["wall_s"] for other in rows) / 3600
    versions = [f"{package} {version}" for package, version in row["versions"]]
    print(
        f"\n- {len(rows)} runs, the teacher's included if it was trained for them, {hours:.1f} h "
        "of them in all."
    )
    print(
        f"- Protocol `{row['protocol']}`, data hash {row['data_hash']}, commit "
        f"{row['git_commit']}, {row['device']}."
    )
    print(f"- {', '.join(versions)}.")


def published_weights(store: Store, experiment: str) -> dict[str, str]:
    """Return method -> its default weight or weights, from the trials that changed nothing else."""
    columns = ["experiment", "method", "searched_json", "config_json"]
    weights: dict[str, str] = {}
    for row in store.trials(columns=columns).to_pylist():
        searched = json.loads(row["searched_json"] or "{}")
        is_default = searched.get("method") == {"name": row["method"]}
        if row["experiment"] == experiment and is_default:
            weights[row["method"]] = published(row)
    return weights


def published(row: Mapping[str, str]) -> str:
    """Return the weight or weights in a method's settings."""
    method = json.loads(row["config_json"])["method"]
    weights = [f"{value:g}" for key, value in method.items() if "weight" in key]
    return ", ".join(weights)


if __name__ == "__main__":
    main()
