"""What every method gave over its seeds: a Markdown table of a store, with what makes it believable.

    python -m benchmarks.methods STORE EXPERIMENT

The search that fills the store is an ordinary one, `search_spaces/methods_toyscenes.yaml` say; nothing is trained here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from attnfd_ray.report.records import ConfigLine, Estimate
from attnfd_ray.report.summary import summarise
from attnfd_ray.store.store import Store


def table(lines: list[ConfigLine], weights: dict[str, str]) -> Iterator[str]:
    """Yield the rows, best mean first; a verdict is read off the interval of the gain, each method by itself."""
    yield "| method | weight | seeds | mIoU, % | gain, points | against the student alone |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for line in lines:
        if line.is_baseline and line.method != "none":
            continue  # the search's own first trial, which has one seed
        what = ", ".join(f"{key} {value}" for key, value in line.values.get("method", {}).items() if key != "name")
        name = f"{line.method} ({what})" if what else line.method
        weight = weights.get(line.method, "") if "loss_weight" not in what else "as named"
        gain = interval(line.gain, sign="+") if line.gain else "-"
        score = line.best_val_miou
        yield f"| {name} | {weight} | {score.num} | {interval(score)} | {gain} | {verdict(line)} |"


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
    shown = summarise(store, experiment=sys.argv[2]).shown
    assert shown is not None
    protocol = shown.protocols[0]  # the one with most trials
    rows = [row for row in store.trials().to_pylist() if row["experiment"] == sys.argv[2] and row["wall_s"]]
    students = [row for row in rows if row["role"] not in ("teacher", "baseline")]
    plain = [row for row in students if json.loads(row["searched_json"]).get("method") == {"name": row["method"]}]
    print("\n".join(table(protocol.configs, {row["method"]: published(row) for row in plain})))
    row = students[0]
    config = json.loads(row["config_json"])
    hours = sum(other["wall_s"] for other in rows) / 3600
    teacher = protocol.teacher
    print(f"\n- Teacher: mIoU {100 * (teacher.best_val_miou or 0):.2f} %." if teacher else "")
    print(f"- {len(rows)} runs, the teacher's included, {hours:.1f} h of them in all; protocol `{row['protocol']}`.")
    print(f"- Data hash {row['data_hash']}, commit {row['git_commit']}, {row['device']}.")
    print("- " + ", ".join(f"{package} {version}" for package, version in row["versions"]) + ".")
    shared = {key: config[key] for key in ("data", "teacher", "student", "optim", "train")}
    shared["data"].pop("root")
    shared["train"].pop("seed")
    print("\nEvery run, its method and seed aside:\n\n```json\n" + json.dumps(shared) + "\n```")


def published(row: dict[str, str]) -> str:
    """Return the weight or weights among a method's settings."""
    method = json.loads(row["config_json"])["method"]
    found = {key: value for key, value in method.items() if "weight" in key}
    return ", ".join(f"{value:g}" for value in found.values())


if __name__ == "__main__":
    main()
