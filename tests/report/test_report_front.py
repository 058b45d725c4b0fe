"""The Pareto front of a search with several metrics, by hand."""

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from attnfd_ray.analysis.pareto import on_front
from attnfd_ray.analysis.records import Front, from_json, to_json
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.cli import cli
from attnfd_ray.errors import StoreError
from attnfd_ray.report.best_config import write_best_config
from attnfd_ray.report.text import show

SIZED = ["val_miou", "student_params"]
TIMED = [*SIZED, "latency_ms"]


def config(metric: Any) -> dict[str, Any]:
    method = {"name": "attnfd"}
    return {
        "config_json": json.dumps(
            {"experiment": "camvid", "method": method, "tune": {"metric": metric}}
        )
    }


def fronts(write) -> list[Front]:
    shown = summarise(write.store).shown
    assert shown
    return shown.protocols[0].fronts


@pytest.fixture
def sized(write):
    """Five students.

    t2 is better and smaller than t1 and t3, and nothing dominates t4 and t5.
    """
    known = config(SIZED)
    write("t1", 0.58, role="baseline", student_params=11_000_000, **known)
    write("t2", 0.62, student_params=10_000_000, values={"student.width": 0.9}, **known)
    write("t3", 0.61, student_params=10_500_000, values={"student.width": 0.95}, **known)
    write("t4", 0.64, student_params=12_000_000, values={"student.width": 1.1}, **known)
    write("t5", 0.40, student_params=1_234_567, values={"student.width": 0.25}, **known)
    return write


def test_the_front_is_what_none_beats_in_one_metric_without_losing_in_another(sized) -> None:
    (front,) = fronts(sized)
    assert front.metrics == SIZED
    assert [(line.rank, line.trial_id) for line in front.lines] == [(1, "t4"), (2, "t2"), (5, "t5")]
    assert (front.num_dominated, front.latency_protocol) == (2, None)


def test_the_best_is_still_by_miou_and_the_report_survives_json(sized) -> None:
    report = summarise(sized.store)
    assert report.shown
    assert report.shown.best_trial_id == "t4"
    assert from_json(to_json(report)) == report


def test_equals_are_both_on_the_front_and_what_has_no_full_budget_is_not(sized) -> None:
    sized("t6", 0.62, student_params=10_000_000, **config(SIZED))
    sized("t7", 0.9, student_params=1, epochs_done=60, **config(SIZED))
    sized(
        "t8", 0.9, student_params=1, role="confirm", **config(SIZED)
    )  # not a candidate for the front
    assert [line.trial_id for line in fronts(sized)[0].lines] == ["t4", "t2", "t6", "t5"]


def test_a_config_is_one_point_with_the_means_over_its_seeds(sized) -> None:
    timed = {"latency_protocol": "p", **config(TIMED)}
    sized("u1", 0.70, search_id="s2", config_hash="u", latency_ms=2.0, **timed)
    sized("u2", 0.50, search_id="s2", config_hash="u", latency_ms=4.0, seed=2, **timed)
    sized("u3", 0.61, search_id="s2", latency_ms=2.5, **timed)
    (front,) = (front for front in fronts(sized) if front.metrics == TIMED)
    assert [line.trial_id for line in front.lines] == ["u3"], (
        "the lucky seed alone would be on it too"
    )
    assert front.num_dominated == 1
    sized("u4", 0.66, search_id="s2", config_hash="u", latency_ms=1.2, seed=3, **timed)
    (front,) = (front for front in fronts(sized) if front.metrics == TIMED)
    assert [
        (line.trial_id, round(line.best_val_miou, 4), line.latency_ms) for line in front.lines
    ] == [("u1", 0.62, pytest.approx(2.4))]
    assert front.num_seeds == [3]
    out = io.StringIO()
    show(summarise(sized.store), Console(file=out, width=120))
    assert re.search(r"# +Trial +Seeds +mIoU % .*\n.*\n +\d +u1 +3 +62\.00", out.getvalue())
    assert "Means over the seeds of a config; its best trial is named." in out.getvalue()


def test_a_search_with_one_metric_has_no_front_and_neither_has_a_run_of_its_own(search) -> None:
    assert fronts(search) == []


def test_a_search_begun_over_with_other_metrics_has_a_front_of_its_own(sized) -> None:
    sized(
        "u1",
        0.5,
        search_id="s2",
        latency_ms=3.0,
        latency_protocol="p",
        **config(["val_miou", "latency_ms"]),
    )
    assert [
        ([line.trial_id for line in front.lines], front.latency_protocol) for front in fronts(sized)
    ] == [
        (["t4", "t2", "t5"], None),
        (["u1"], "p"),
    ]


def test_latencies_of_different_devices_are_never_compared(write) -> None:
    known = {"student_params": 5_000_000, **config(TIMED)}
    write("t1", 0.6, latency_ms=5.0, latency_protocol="gpu", **known)
    write("t2", 0.5, latency_ms=4.0, latency_protocol="gpu", **known)
    write("t3", 0.4, latency_ms=6.0, latency_protocol="gpu", **known)
    write("t4", 0.3, latency_ms=9.0, latency_protocol="cpu", **known)
    write("t5", 0.3, **known)  # not timed
    found = {
        front.latency_protocol: ([line.trial_id for line in front.lines], front.num_dominated)
        for front in fronts(write)
    }
    assert found == {"gpu": (["t1", "t2"], 1), "cpu": (["t4"], 0)}


def test_the_front_is_that_of_comparing_each_with_each() -> None:
    rng = random.Random(0)
    for _ in range(200):
        rows = [
            {
                "best_val_miou": rng.randint(0, 5) / 10,
                "student_params": rng.randint(0, 5),
                "latency_ms": float(rng.randint(0, 5)),
                "latency_protocol": rng.choice("ab"),
            }
            for _ in range(rng.randint(0, 30))
        ]

        def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
            signs = {"best_val_miou": -1, "student_params": 1, "latency_ms": 1}
            pairs = [(sign * one[name], sign * other[name]) for name, sign in signs.items()]
            alike = one["latency_protocol"] == other["latency_protocol"]
            return alike and all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

        expected = [row for row in rows if not any(beats(other, row) for other in rows)]
        assert on_front(rows, tuple(TIMED)) == expected


def test_it_is_printed_with_sizes_times_and_how_they_were_measured(write) -> None:
    how = {"latency_protocol": "360x480 fp32 on Fast GPU", **config(TIMED)}
    write(
        "t1",
        0.62,
        student_params=11_234_567,
        latency_ms=5.125,
        values={"student.width": 1.0},
        **how,
    )
    write(
        "t2", 0.5, student_params=2_000_000, latency_ms=1.5, values={"student.width": 0.25}, **how
    )
    write(
        "t3", 0.49, student_params=3_000_000, latency_ms=1.75, values={"student.width": 0.4}, **how
    )
    out = io.StringIO()
    show(summarise(write.store), Console(file=out, width=80))
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    assert (
        """\
Front: 2 configs not dominated in val_miou, student_params and latency_ms, 1
dominated
  #   Trial   mIoU %   Params, M   Latency, ms   Values
  ─────────────────────────────────────────────────────────
  1   t1       62.00      11.235          5.12   width=1
  2   t2       50.00       2.000          1.50   width=0.25

  Latency of one image, 360x480 fp32 on Fast GPU; trials that ran beside it on
  the same machine slow it: compare those of tune.concurrent: 1. Settings of
  any: attnfd-ray report --best-config FILE --trial TRIAL.
"""
        in text
    )


def test_the_settings_of_any_trial_can_be_written_under_a_name_that_says_which(
    sized, tmp_path: Path
) -> None:
    report = summarise(sized.store)
    assert write_best_config(sized.store, report, tmp_path / "t5.yaml", trial_id="t5") == "t5"
    text = (tmp_path / "t5.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Trial t5 of experiment camvid, ")
    assert "experiment: camvid-t5\n" in text
    assert write_best_config(sized.store, report, tmp_path / "t4.yaml", trial_id="t4") == "t4"
    assert "experiment: camvid-best\n" in (tmp_path / "t4.yaml").read_text(encoding="utf-8")
    with pytest.raises(
        StoreError, match=r"experiment 'camvid' has no trial 't55'; did you mean 't5'\?"
    ):
        write_best_config(sized.store, report, tmp_path / "t55.yaml", trial_id="t55")


def test_the_command_line_takes_a_trial_with_the_file_its_settings_go_to(
    sized, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        cli, ["report", "results", "--best-config", "t5.yaml", "--trial", "t5"]
    )
    assert (result.exit_code, "t5.yaml: the settings of trial t5" in result.output) == (0, True)
    assert "experiment: camvid-t5" in (tmp_path / "t5.yaml").read_text(encoding="utf-8")
    alone = CliRunner().invoke(cli, ["report", "results", "--trial", "t5"])
    assert alone.exit_code == 2
    assert "--trial says whose settings --best-config FILE writes: give both" in alone.output
