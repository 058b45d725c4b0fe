import io
from pathlib import Path

import pytest
from rich.console import Console

from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.text import show
from attnfd_ray.store.store import Store

GOLDEN = Path(__file__).parents[1] / "golden"

SEARCH = """\
camvid
  attnfd; 11 trials: 1 unfinished, 6 complete, 1 pruned, 2 failed, 1 infeasible
  7 h 16 min in all, 102.0 images/s (median), 9121 MiB at the peak

In short
  The best config, attnfd layers=[stage4, aspp] loss_weight=2.154, has a gain of
  +2.33 points of mIoU over the student alone (baseline). The search itself
  cannot show how certain that is, since its best was lucky too: `attnfd-ray
  confirm FILE` runs both over fresh seeds. The teacher has 67.12 %.

Protocol: val 360x480, no flips
                Trial   mIoU %   Best at   Last %
  ───────────────────────────────────────────────
  teacher       t0       67.12   118/120    66.87
  baseline      t1       58.00   118/120    57.75
  best config   t3       60.33   118/120    60.08

  Gain over the baseline: +2.33 points, +2.33 at the last epoch. 1 seed each:
  not a measure of certainty. The best of 4 was chosen on the images it is
  scored on, which flatters it; the baseline is not tuned.

Ranking (complete, full budget)
  #   Trial   mIoU %   Best at         Wall   Values
  ──────────────────────────────────────────────────────────────────────────────
  1   t3       60.33   118/120   1 h 02 min   layers=[stage4, aspp]
                                              loss_weight=2.154
  2   r1       60.20   118/120   1 h 02 min   (train)
  3   t2       59.10   118/120   1 h 02 min   (as written)
  4   t1       58.00   118/120   1 h 02 min   (baseline)
  5   t4       57.12   118/120   1 h 02 min   layers=[stage1, stage2, stage3,
                                              decoder] loss_weight=87

Not ranked
  State        Trial   mIoU %     Done         Wall   Values
  ──────────────────────────────────────────────────────────────────────────────
  pruned       t5       41.00   10/120   1 h 02 min   layers=[stage1]
                                                      loss_weight=0.1; asha:
                                                      below the best third at
                                                      epoch 10
  unfinished   t9       31.00    3/120   1 min 30 s   layers=[aspp]

No score yet
  State        Trial   mIoU %   Done   Wall   Values
  ──────────────────────────────────────────────────
  failed       t6           -    -/-      -
  failed       t7           -    -/-      -
  infeasible   t8           -    -/-      -

Failures
  Kind            Trials   First
  ───────────────────────────────────────────────
  out_of_memory        2   t6: CUDA out of memory
  connector            1   t8: no such [tap]

Run the best config again
  attnfd-ray report results --experiment camvid --best-config best.yaml && \
attnfd-ray train best.yaml
"""


def printed(report, *, width=80, encoding="utf-8"):
    """Return the output to a pipe, without blanks at the ends of lines."""
    pipe = io.BytesIO()
    file = io.TextIOWrapper(pipe, encoding=encoding)
    show(report, Console(file=file, width=width, color_system=None))
    file.flush()
    return "".join(f"{line.rstrip()}\n" for line in pipe.getvalue().decode(encoding).splitlines())


def test_a_search_at_80_columns(search):
    assert printed(summarise(search.store)) == SEARCH


def test_an_old_store_still_gives_its_old_report(monkeypatch):
    monkeypatch.chdir(GOLDEN)
    report = summarise(Store.open("store_v1", create=False))
    assert printed(report) == (GOLDEN / "store_v1.txt").read_text()


def test_an_empty_store_says_what_to_do(write):
    assert printed(summarise(write.store), width=200) == (
        "results: no trials yet; `attnfd-ray train` or `tune` with this store adds some\n"
    )


def test_other_experiments_get_a_line_each(search):
    search("y1", 0.3, experiment="newer")
    text = printed(summarise(search.store))
    assert text.startswith("newer\n  attnfd; 1 trial: 1 complete\n")
    assert "There is no finished baseline to compare with." in text
    assert text.endswith(
        "Also in this store (--experiment NAME shows one)\n"
        "  camvid: 11 trials: 1 unfinished, 6 complete, 1 pruned, 2 failed, 1 infeasible;\n"
        "  last 2026-03-01 12:11 UTC\n"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_long_names_stay_within_80_columns(write, encoding):
    long = "x" * 100
    write(f"{long}1", 0.5, role="baseline", experiment=long)
    write(f"{long}2", 0.6, experiment=long, values={f"method.{long}": long}, protocol=f"val {long}")
    write(f"{long}3", experiment=long, state="FAILED", failure_kind=long, failure_text=long)
    lines = printed(summarise(write.store), encoding=encoding).splitlines()
    assert [
        line for line in lines if len(line) > 80 and not line.startswith("  attnfd-ray report")
    ] == []
    assert sum(line.count("x") for line in lines) > 12 * 100, "something was cut off"
