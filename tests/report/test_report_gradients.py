"""The gradients of the loss terms in a report."""

import dataclasses
import io

import pytest
from rich.console import Console

from attnfd_ray.analysis.gradients import gradient_line
from attnfd_ray.analysis.records import GradientLine, from_json, to_json
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.text import show
from attnfd_ray.store.rows import EpochRow

TABLE = """\
  Trial   First   Median    Last   Cosine   Shares
  ──────────────────────────────────────────────────────────────────────────────
  t1        0.6    ! 3.9   ! 7.2    -0.12   cross_entropy 12 %, kd 66 %, at 22 %
  t2          3        3       3    -0.12   cross_entropy 25 %, kd 56 %, at 19 %

  First, median and last epoch: the gradient of distillation / that of
  cross-entropy; above 3 (!) distillation can take over the training: try a
  lower method.loss_weight. In the last epoch: the cosine of these two
  gradients, and each term's share of the sum of all terms' norms.
"""


@pytest.fixture
def epochs(write):
    """Append the epochs of a trial, one for each pair of (cross-entropy, distillation).

    The term kd has 3/4 of the distillation.
    """

    def append(trial_id, *pairs, **given):
        known = {
            "experiment": "camvid",
            "seed": 1,
            "method": "attnfd",
            "role": "trial",
            "epochs_total": 120,
        } | given
        for epoch, pair in enumerate(pairs, start=1):
            measured = {}
            if pair is not None:
                ce, distillation = pair
                norms = {"cross_entropy": ce, "kd": 0.75 * distillation, "at": 0.25 * distillation}
                cosines = {"kd": 0.5, "at": 0.25, "distillation": -0.125} if ce else {}
                measured = {
                    "gradient_norms": norms | {"distillation": distillation},
                    "gradient_cosines": cosines,
                }
            write.store.append_epoch(
                EpochRow(
                    trial_id=trial_id,
                    epoch=epoch,
                    val_miou=0.5,
                    protocol=write.protocol,
                    **known,
                    **measured,
                )
            )

    return append


def lines_of(write):
    (protocol,) = summarise(write.store).shown.protocols
    return protocol.gradients


def printed(write):
    pipe = io.StringIO()
    show(summarise(write.store), Console(file=pipe, width=80, color_system=None))
    return [line.rstrip() for line in pipe.getvalue().splitlines()]


def test_ratios_are_of_the_first_the_median_and_the_last_epoch_and_the_rest_of_the_last(
    write, epochs
):
    write("t1", 0.6)
    epochs("t1", (2.0, 1.0), (1.0, 7.0), (1.0, 4.0))
    assert gradient_line(write.store, "t1") == GradientLine(
        trial_id="t1", first_epoch=1, last_epoch=3, first=0.5, median=4.0, last=4.0,
        shares={"cross_entropy": 0.2, "kd": 0.6, "at": 0.2},
        cosines={"kd": 0.5, "at": 0.25, "distillation": -0.125},
    )  # fmt: skip


def test_epochs_that_measured_nothing_are_passed_over(write, epochs):
    write("t1", 0.6)
    epochs("t1", None, (1.0, 2.0), (1.0, 3.0), None)
    line = gradient_line(write.store, "t1")
    assert (line.first_epoch, line.last_epoch) == (2, 3)
    assert (line.first, line.median, line.last) == (2.0, 2.5, 3.0)


def test_a_cross_entropy_without_a_gradient_has_no_ratio(write, epochs):
    write("t1", 0.6)
    epochs("t1", (0.0, 4.0))
    line = gradient_line(write.store, "t1")
    assert (line.first, line.median, line.last, line.cosines) == (None, None, None, {})
    assert line.shares == {"cross_entropy": 0.0, "kd": 0.75, "at": 0.25}
    assert [
        line.split() for line in printed(write) if line.startswith("  t1") and "kd" in line
    ] == [["t1", "-", "-", "-", "-", "cross_entropy", "0", "%,", "kd", "75", "%,", "at", "25", "%"]]


def test_gradients_that_all_vanish_have_no_shares(write, epochs):
    write("t1", 0.6)
    epochs("t1", (0.0, 0.0))
    assert gradient_line(write.store, "t1").shares == {}


def test_a_trial_that_measured_nothing_has_no_line_and_the_report_no_section(search):
    assert gradient_line(search.store, "t9") is None
    assert gradient_line(search.store, "t3") is None, "it has no epochs in the store at all"
    assert all(protocol.gradients == [] for protocol in summarise(search.store).shown.protocols)
    assert not [line for line in printed(search) if "Gradient" in line]


def test_the_five_leading_configs_and_the_file_as_written_are_shown_and_no_baseline(write, epochs):
    write("t0", 0.9, role="baseline", method="none")
    for number in range(1, 8):
        write(f"t{number}", 0.8 - number / 100)
    write(
        "t8", 0.795, config_hash="t1", seed=2
    )  # a second seed of the first config, which beats its first
    write("t9", 0.1, role="as_written")
    write("r1", state="RUNNING", role="run", search_id=None, protocol=write.protocol)
    for trial_id in ("t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9", "r1"):
        epochs(trial_id, (1.0, 1.0))
    assert [line.trial_id for line in lines_of(write)] == ["t8", "t2", "t3", "t4", "t5", "t9", "r1"]


def test_a_ratio_above_3_is_marked(write, epochs):
    write("t1", 0.6)
    write("t2", 0.5)
    epochs("t1", (1.0, 0.6), (1.0, 7.2))
    epochs("t2", (1.0, 3.0))
    text = printed(write)
    start = text.index("Gradients of the loss terms with respect to the student (L2 norms)")
    assert "\n".join(text[start + 1 : start + 11]) == TABLE


def test_many_long_terms_stay_within_80_columns(write, epochs):
    write("t1" * 40, 0.6)
    norms = {f"attnfd/backbone.layer{number}": 1.0 for number in range(20)}
    epochs("t1" * 40, None)
    write.store.append_epoch(
        EpochRow(
            trial_id="t1" * 40,
            epoch=2,
            epochs_total=120,
            experiment="camvid",
            seed=1,
            method="attnfd",
            role="trial",
            gradient_norms={"cross_entropy": 1e-9, **norms, "distillation": 20.0},
        )
    )
    text = printed(write)
    assert max(len(line) for line in text if not line.startswith("  attnfd-ray report")) <= 80
    assert [line for line in text if "! 2e+10" in line]


def test_lines_survive_json(write, epochs):
    write("t1", 0.6)
    epochs("t1", (1.0, 7.2), (0.0, 1.0))
    report = summarise(write.store)
    assert from_json(to_json(report)) == report
    older = dataclasses.replace(report.shown.protocols[0], gradients=[])
    assert older != report.shown.protocols[0]
