"""What every method gave over its seeds: a Markdown table of a store, with what makes it
believable.

    python -m benchmarks.methods STORE EXPERIMENT

The search that fills the store is an ordinary one, `search_spaces/methods_toyscenes.yaml` say;
nothing is trained here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from attnfd_ray.analysis.gradients import gradient_line
from attnfd_ray.analysis.records import ConfigLine, Estimate
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.store.store import Store


def methods_table(store: Store, experiment: str) -> Iterator[str]:
    """Yield the rows of a Markdown table, best mean first; each verdict is read off that config's
    own interval.

    The last columns are |gradient of the distillation terms| / |gradient of the cross-entropy| for
    the student, means over the seeds: in the first epoch and in the last.
    """
    shown = summarise(store, experiment=experiment).shown
    assert shown is not None
    protocol = shown.protocols[0]  # the one with most trials
    weights = published_weights(store, experiment)
    trials: dict[str, list[str]] = {}
    for line in protocol.ranked:
        trials.setdefault(_name(line.method, line.values), []).append(line.trial_id)
    yield "| method | weight | seeds | mIoU, % | gain, points | against the student alone | gradient, first | last |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for config in protocol.configs:
        if config.is_baseline and config.method != "none":
            continue  # the search's own first trial, which has one seed
        name = _name(config.method, config.values)
        weight = "as named" if "loss_weight" in name else weights.get(config.method, "")
        gain = interval(config.gain, sign="+") if config.gain else "-"
        score = config.best_val_miou
        first, last = _gradients(store, trials[name])
        yield f"| {name} | {weight} | {score.num} | {interval(score)} | {gain} | {verdict(config)} | {first} | {last} |"


def _name(method: str, values: Mapping[str, Any]) -> str:
    """Return a method with what its config changes: `attnfd (norm image)`."""
    changed = dict(values.get("method", {})) | {
        path.removeprefix("method."): value
        for path, value in values.items()
        if path not in ("method", "train.seed")
    }
    what = ", ".join(f"{key} {value}" for key, value in changed.items() if key != "name")
    short = method.rpartition(":")[2]
    return f"{short} ({what})" if what else short


def _gradients(store: Store, trial_ids: list[str]) -> tuple[str, str]:
    found = [line for line in (gradient_line(store, trial_id) for trial_id in trial_ids) if line]
    first, last = ([value for value in values if value is not None]
                   for values in ([line.first for line in found], [line.last for line in found]))  # fmt: skip
    return (f"{fmean(first):.2f}" if first else "", f"{fmean(last):.2f}" if last else "")


def interval(value: Estimate, sign: str = "") -> str:
    """Return `mean ± half the width of the 95 % interval`, in percent or points."""
    spread = "" if value.half_width is None else f" ± {100 * value.half_width:.2f}"
    return f"{100 * value.mean:{sign}.2f}{spread}"


def verdict(line: ConfigLine) -> str:
    """Say whether the interval of the gain leaves 0 out."""
    if line.gain is None or line.gain.half_width is None:
        return "is it" if line.is_baseline else "one seed: no verdict"
    if abs(line.gain.mean) <= line.gain.half_width:
        return "tie"
    return "better" if line.gain.mean > 0 else "worse"


def main() -> None:
    """Print the table of one experiment and the facts of its rows."""
    store = Store.open(sys.argv[1], create=False)
    print("\n".join(methods_table(store, sys.argv[2])))
    rows = [
        row
        for row in store.trials().to_pylist()
        if row["experiment"] == sys.argv[2] and row["wall_s"]
    ]
    row = next(row for row in rows if row["role"] not in ("teacher", "baseline"))
    hours = sum(other["wall_s"] for other in rows) / 3600
    print(
        f"\n- {len(rows)} runs, the teacher's included if it was trained for them, {hours:.1f} h "
        "of them in all."
    )
    print(
        f"- Protocol `{row['protocol']}`, data hash {row['data_hash']}, commit "
        f"{row['git_commit']}, {row['device']}."
    )
    print("- " + ", ".join(f"{package} {version}" for package, version in row["versions"]) + ".")


def published_weights(store: Store, experiment: str) -> dict[str, str]:
    """Return method -> its default weight or weights, from the trials that changed nothing else."""
    rows = store.trials(
        columns=["experiment", "method", "searched_json", "config_json"]
    ).to_pylist()
    plain = [row for row in rows if row["experiment"] == experiment
             and json.loads(row["searched_json"] or "{}").get("method") == {"name": row["method"]}]  # fmt: skip
    return {row["method"]: published(row) for row in plain}


def published(row: dict[str, str]) -> str:
    """Return the weight or weights among a method's settings."""
    method = json.loads(row["config_json"])["method"]
    found = {key: value for key, value in method.items() if "weight" in key}
    return ", ".join(f"{value:g}" for value in found.values())


if __name__ == "__main__":
    main()
