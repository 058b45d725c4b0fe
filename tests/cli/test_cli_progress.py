"""The progress of a running command: JSON lines, text lines, and the table on a terminal."""

import dataclasses
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from attnfd_ray.cli.progress import progress
from attnfd_ray.cli.progress_table import ProgressTable
from attnfd_ray.cli.progress_text import JsonProgress, TextProgress, searched_text
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.search.records import Counts


def experiment(**changes):
    tree = {
        "experiment": "camvid-r18",
        "data": {"name": "camvid", "root": "/data", "crop": [9, 9]},
        "teacher": {"checkpoint": "/teacher.pt"},
        "student": {},
        "method": {"name": "attnfd"},
        "train": {"epochs": 40},
        "search": {"optim.lr": {"float": [0.1, 1]}},
        "tune": {"trials": 4},
    }
    return ExperimentSettings.model_validate(tree | changes)


def job(trial_id, role="trial", **searched):
    searched = {path.replace("__", "."): value for path, value in searched.items()}
    return Job(
        kind="train",
        trial_id=trial_id,
        role=role,
        settings_json=experiment().model_dump_json(),
        searched=searched,
    )


def metrics(epoch, miou, **more):
    return {
        "epoch": epoch,
        "epochs_total": 40,
        "train_loss": 1.23456,
        "loss_terms": {"ce": 1.2},
        "val_miou": miou - 0.01,
        "val_pixel_acc": 0.9,
        "val_class_acc": 0.8,
        "class_iou": [0.5, None],
        "lr": 0.007,
        "images_per_s": 123.46,
        "wall_s": 3.0,
        "best_miou": miou,
        "best_epoch": epoch - 1,
    } | more


CHOSEN = {
    "optim__lr": 0.123456,
    "method__layers": ["stage4", "aspp"],
    "data__scale": [0.5, 2.0],
    "train__seed": 3,
}
LOST = {"failure_kind": "WORKER_LOST", "failure_text": "the node\nis gone"}


# ---- JSON lines


def test_each_event_is_a_json_object_on_a_line():
    written: list[str] = []
    callback = JsonProgress(written.append)
    one = job("s-0002", **CHOSEN)
    callback.on_stage("teacher: 3\nepochs")
    callback.on_trial_start(one)
    callback.on_epoch_end(one, metrics(2, 0.5))
    callback.on_trial_end(one, "PRUNED", metrics(3, 0.51))
    callback.on_trial_end(one, "FAILED", LOST)
    assert all("\n" not in line for line in written)
    searched = {
        "optim.lr": 0.123456,
        "method.layers": ["stage4", "aspp"],
        "data.scale": [0.5, 2.0],
        "train.seed": 3,
    }
    assert [json.loads(line) for line in written] == [
        {"event": "stage", "text": "teacher: 3\nepochs"},
        {"event": "started", "trial_id": "s-0002", "role": "trial", "searched": searched},
        {
            "event": "epoch",
            "trial_id": "s-0002",
            "epoch": 2,
            "epochs_total": 40,
            "train_loss": 1.23456,
            "val_miou": 0.49,
            "best_miou": 0.5,
            "best_epoch": 1,
            "lr": 0.007,
            "images_per_s": 123.46,
        },
        {
            "event": "finished",
            "trial_id": "s-0002",
            "role": "trial",
            "state": "PRUNED",
            "searched": searched,
            "epoch": 3,
            "epochs_total": 40,
            "val_miou": 0.5,
            "best_miou": 0.51,
            "best_epoch": 2,
        },
        {
            "event": "finished",
            "trial_id": "s-0002",
            "role": "trial",
            "state": "FAILED",
            "searched": searched,
            **LOST,
        },
    ]


# ---- lines for a log


def test_a_single_run_has_a_line_per_epoch():
    written: list[str] = []
    callback = TextProgress(written.append, every_epoch=True)
    run = job("e.train1", role="run")
    callback.on_trial_start(run)
    callback.on_epoch_end(run, metrics(2, 0.5))
    callback.on_trial_end(run, "COMPLETE", metrics(40, 0.6))
    assert written == [
        "e.train1  epoch 2/40  loss 1.2346  mIoU 49.00 %  best 50.00 % at 1  123.5 images/s",
        "e.train1  COMPLETE   mIoU 60.00 % at 39/40  run",
    ]


def test_a_search_has_a_line_per_trial():
    written: list[str] = []
    callback = TextProgress(written.append, every_epoch=False)
    callback.on_stage("teacher resnet50: 3 epochs")
    for state, chosen, last in [
        ("COMPLETE", CHOSEN, metrics(40, 0.6)),
        ("PRUNED", {"method__name": "none"}, metrics(3, 0.3)),
        ("FAILED", {"optim__lr": 1e-5, "method__x": "a\nb"}, metrics(2, 0.2) | LOST),
    ]:
        one = job("s-0002", **chosen)
        callback.on_trial_start(one)
        callback.on_epoch_end(one, last)
        callback.on_trial_end(one, state, last)
    callback.on_trial_end(job("s-0000", role="baseline"), "COMPLETE", metrics(40, 0.5))
    values = "lr=0.123 layers=stage4+aspp scale=0.5+2 seed=3"
    assert written == [
        "teacher resnet50: 3 epochs",
        f"s-0002  COMPLETE   mIoU 60.00 % at 39/40  trial  {values}",
        "s-0002  PRUNED     mIoU 30.00 % at 2/40, stopped at 3  trial  name=none",
        "s-0002  FAILED     WORKER_LOST: the node\\nis gone  trial  lr=1e-05 x=a\\nb",
        "s-0000  COMPLETE   mIoU 50.00 % at 39/40  baseline  no distillation",
    ]


# ---- the table


class Clock:
    """Returns the time that a test sets."""

    now_s = 100.0

    def __call__(self):
        return self.now_s


def drawn(table, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(clock):
    table = ProgressTable(experiment(), searching=True, write=print, clock=clock)
    table.on_search_start(Counts(planned=5))
    return table


def test_a_searched_method_is_shown_by_its_name():
    assert (
        searched_text(job("s-0002", method={"name": "kd", "temperature": 4.0}, train__seed=2))
        == "method=kd seed=2"
    )


def test_further_search_metrics_are_shown_with_the_score(table):
    last = metrics(40, 0.6) | {"student_params": 263_400, "latency_ms": 3.125}
    written = []
    events = []
    one = job("s-0002", optim__lr=0.1)
    TextProgress(written.append, every_epoch=False).on_trial_end(one, "COMPLETE", last)
    assert written == ["s-0002  COMPLETE   mIoU 60.00 % at 39/40, 0.263 M, 3.12 ms  trial  lr=0.1"]
    JsonProgress(events.append).on_trial_end(one, "COMPLETE", last)
    assert (json.loads(events[0])["student_params"], json.loads(events[0])["latency_ms"]) == (
        263_400,
        3.125,
    )
    table.on_trial_start(one)
    table.on_trial_end(one, "COMPLETE", last)
    assert "60.00 %, 0.263 M, 3.12 ms" in "\n".join(drawn(table))


def test_a_teacher_has_ten_lines_in_a_search():
    written = []
    lines = TextProgress(written.append, every_epoch=False)
    for epoch in range(1, 41):
        lines.on_epoch_end(job("teacher", role="teacher"), metrics(epoch, 0.5))
    assert [line.split()[2] for line in written] == [f"{epoch}/40" for epoch in range(4, 41, 4)]


@pytest.mark.parametrize("width", [1, 20, 80, 300])
@pytest.mark.parametrize("searching", [True, False])
def test_an_empty_table_can_be_drawn_at_any_width(clock, searching, width):
    table = ProgressTable(experiment(), searching=searching, write=print, clock=clock)
    assert len(drawn(table, width)) >= 2


def test_before_the_first_trial_the_table_shows_the_stage(table):
    table.on_stage("teacher resnet50: 3 epochs, as teacher-abc")
    assert drawn(table) == [
        "camvid-r18  0/5 done  0 running  0 failed  best -  baseline -  0:00:00",
        "teacher resnet50: 3 epochs, as teacher-abc",
        "trial  state  epoch  mIoU  searched",
    ]


def test_the_table_shows_running_trials_first_and_then_the_best(table, clock):
    trials = [
        ("s-0000", "baseline", {}, "COMPLETE", metrics(40, 0.5)),
        ("s-0001", "as_written", {}, "PRUNED", metrics(9, 0.4)),
        ("s-0002", "trial", {"optim__lr": 0.123456}, "FAILED", metrics(3, 0.9) | LOST),
        ("s-0003", "trial", CHOSEN, "COMPLETE", metrics(40, 0.6)),
    ]
    for trial_id, role, chosen, state, last in trials:
        table.on_trial_start(job(trial_id, role, **chosen))
        table.on_epoch_end(job(trial_id, role, **chosen), last)
        table.on_trial_end(job(trial_id, role, **chosen), state, last)
    running = job("s-0004", optim__lr=0.5)
    table.on_trial_start(running)
    table.on_epoch_end(running, metrics(7, 0.3))
    clock.now_s += 3600
    headline = "camvid-r18  4/5 done  1 running  1 failed  best 60.00 %  baseline 50.00 %"
    assert drawn(table) == [
        f"{headline}  about 0:15:00 left",
        "1:00:00",
        "trial   state     epoch     mIoU  searched",
        "s-0004  RUNNING    7/40  30.00 %  lr=0.5",
        "s-0003  COMPLETE  40/40  60.00 %  lr=0.123 layers=stage4+aspp scale=0.5+2 seed=3",
        "s-0000  COMPLETE  40/40  50.00 %  no distillation",
        "s-0001  PRUNED     9/40  40.00 %  as_written",
        "s-0002  FAILED     3/40  90.00 %  WORKER_LOST",
    ]


def test_a_trial_that_failed_before_its_first_epoch_has_no_score(table):
    table.on_trial_start(job("s-0000"))
    table.on_trial_end(
        job("s-0000"), "INFEASIBLE", {"failure_kind": "OOM", "failure_text": "too much"}
    )
    assert drawn(table)[-1] == "s-0000  INFEASIBLE   0/40     -  OOM"


def test_a_trial_that_ctrl_c_stopped_is_neither_done_nor_running(table, clock):
    table.on_trial_end(job("s-0000"), "COMPLETE", metrics(40, 0.5))
    table.on_trial_start(job("s-0001"))
    table.on_trial_end(job("s-0001"), "UNFINISHED", metrics(7, 0.4))
    table.on_trial_start(job("s-0002"))
    clock.now_s += 60
    assert drawn(table)[0].startswith("camvid-r18  1/5 done  1 running  0 failed")
    assert "about 0:04:00 left" in drawn(table)[0]


@pytest.mark.parametrize("state", ["COMPLETE", "PRUNED", "UNFINISHED"])
def test_a_trial_that_ended_before_its_first_epoch_is_a_line_too(state):
    written = []
    TextProgress(written.append, every_epoch=False).on_trial_end(
        job("s-0002", optim__lr=0.1), state, {}
    )
    assert written == [f"s-0002  {state:<10} no epoch was finished  trial  lr=0.1"]


def test_a_teacher_is_shown_and_not_counted(table):
    teacher = job("teacher-abc", role="teacher")
    table.on_epoch_end(teacher, metrics(2, 0.7))
    assert drawn(table)[0].startswith(
        "camvid-r18  0/5 done  0 running  0 failed  best -  baseline -"
    )
    assert drawn(table)[-1] == "teacher-abc  RUNNING   2/40  70.00 %  teacher"


def test_a_single_run_is_not_counted_either(clock):
    table = ProgressTable(experiment(), searching=False, write=print, clock=clock)
    table.on_trial_start(job("e.train1", role="run"))
    clock.now_s += 61
    assert drawn(table) == [
        "camvid-r18  0:01:01",
        "trial     state    epoch  mIoU  searched",
        "e.train1  RUNNING   0/40     -  run",
    ]


def test_a_resumed_search_counts_the_trials_of_earlier_sessions(table):
    table.on_search_start(
        Counts(planned=5, complete=2, failed=1, best_value=0.61, baseline_value=0.5)
    )
    assert drawn(table)[0].startswith(
        "camvid-r18  3/5 done  0 running  1 failed  best 61.00 %  baseline 50.00 %"
    )


def test_the_baseline_is_the_best_of_its_own_trials_and_none_of_them_the_best(table):
    table.on_search_start(Counts(planned=5, best_value=0.4, baseline_value=0.5))
    for number, score in enumerate((0.6, 0.55), start=1):
        table.on_trial_end(
            job(f"s-b000{number}", "baseline_trial", optim__lr=0.1), "COMPLETE", metrics(40, score)
        )
    headline, *rows = drawn(table)
    assert "best 40.00 %  baseline 60.00 %" in headline
    assert rows[-2].split() == ["s-b0001", "COMPLETE", "40/40", "60.00", "%", "lr=0.1"]


def again(trial_id, role="trial"):
    """Return a job with another seed than the file."""
    settings = experiment(train={"epochs": 40, "seed": 2})
    return dataclasses.replace(
        job(trial_id, role, optim__lr=0.1), settings_json=settings.model_dump_json()
    )


def test_another_seed_than_that_of_the_file_is_shown(table):
    table.on_trial_start(again("s-0005"))
    assert drawn(table)[-1].endswith("lr=0.1 seed=2")
    written = []
    callback = TextProgress(written.append, every_epoch=False, seed=1)
    for each in (again("s-0005"), job("s-0001", optim__lr=0.1), again("t", "teacher")):
        callback.on_trial_end(each, "COMPLETE", metrics(40, 0.5))
    assert [line.rpartition("  ")[2] for line in written] == ["lr=0.1 seed=2", "lr=0.1", "lr=0.1"]


def test_a_log_has_a_line_for_a_resumed_search():
    written = []
    TextProgress(written.append, every_epoch=False).on_search_start(
        Counts(planned=5, complete=2, failed=1)
    )
    TextProgress(written.append, every_epoch=False).on_search_start(Counts(planned=5))
    assert written == ["resuming: 3 of 5 trials are finished"]


def test_as_many_rows_are_shown_as_fit_on_a_screen(table):
    for number in range(50):
        table.on_trial_start(job(f"s-{number:04d}"))
        table.on_trial_end(job(f"s-{number:04d}"), "COMPLETE", metrics(40, number / 100))
    rows = drawn(table)[2:]
    assert len(rows) == 12
    assert rows[0].startswith("s-0049  COMPLETE  40/40  49.00 %")


def test_searched_values_are_never_read_as_markup(table):
    table.on_trial_start(job("s-0001", method__note="[/b] [red]x"))
    assert drawn(table)[-1].endswith("note=[/b] [red]x")


@pytest.mark.slow
def test_the_table_can_be_drawn_while_trials_come_in(table):
    done = threading.Event()

    def draw():
        times = 0
        while not done.is_set():
            drawn(table)
            times += 1
        return times

    with ThreadPoolExecutor() as pool:
        drawing = pool.submit(draw)
        for number in range(2000):
            table.on_trial_start(job(f"s-{number:04d}"))
        done.set()
        assert drawing.result() > 0


# ---- warnings


def strong(epoch, ratio):
    return metrics(
        epoch,
        0.5,
        gradient_norms={"cross_entropy": 0.5, "attnfd/aspp": 9.0, "distillation": ratio / 2},
    )


WARNING = (
    "s-0002 epoch 2: the gradient of attnfd is 7.2 times that of cross-entropy (above 3 it can "
    "dominate the training); try a lower method.loss_weight"
)


def test_every_view_warns_once_of_a_trial_whose_distillation_is_too_strong():
    logged = []
    events = []
    printed = []
    views = [
        TextProgress(logged.append, every_epoch=False),
        JsonProgress(events.append),
        ProgressTable(experiment(), searching=True, write=printed.append),
    ]
    for view in views:
        for epoch, ratio in ((1, 3.0), (2, 7.2), (3, 9.0)):
            view.on_epoch_end(job("s-0002"), strong(epoch, ratio))
        view.on_epoch_end(job("s-0003"), strong(1, 20.0))
    second = WARNING.replace("s-0002 epoch 2", "s-0003 epoch 1").replace("7.2", "20")
    assert logged == printed == [WARNING, second]
    warned = [event for event in map(json.loads, events) if event["event"] == "warning"]
    assert warned[0] == {"event": "warning", "trial_id": "s-0002", "epoch": 2, "text": WARNING}
    assert len(warned) == 2


def test_a_log_of_a_single_run_warns_after_the_line_of_the_epoch():
    written = []
    TextProgress(written.append, every_epoch=True).on_epoch_end(
        job("s-0002", role="run"), strong(2, 7.2)
    )
    assert written[0].startswith("s-0002  epoch 2/40")
    assert written[1:] == [WARNING]


@pytest.mark.parametrize(
    "norms",
    [
        {},
        None,
        {"cross_entropy": 0.0, "distillation": 5.0},
        {"cross_entropy": 1.0, "distillation": 3.0},
    ],
    ids=["nothing measured", "an old epoch", "no gradient of cross-entropy", "at the limit"],
)
def test_without_a_ratio_above_the_limit_there_is_no_warning(norms):
    written = []
    TextProgress(written.append, every_epoch=False).on_epoch_end(
        job("s-0002"), metrics(1, 0.5, gradient_norms=norms)
    )
    assert written == []


def test_the_warning_names_no_loss_weight_for_a_method_without_one():
    chosen = experiment(method={"name": "none"}, teacher=None)
    one = dataclasses.replace(job("s-0002"), settings_json=chosen.model_dump_json())
    written = []
    TextProgress(written.append, every_epoch=False).on_epoch_end(one, strong(1, 7.2))
    assert written[0].endswith("; try a lower weight of the method's loss terms")


def test_on_a_terminal_a_warning_stays_above_the_table(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(experiment(), as_json=False, searching=True) as view:
        view.on_epoch_end(job("s-0002"), strong(2, 7.2))
    assert capsys.readouterr().out.count("times that of cross-entropy") == 1


# ---- which of the three


def test_away_from_a_terminal_there_are_lines_and_on_demand_json(capsys):
    with progress(experiment(), as_json=False, searching=True) as callback:
        assert isinstance(callback, TextProgress)
        callback.on_stage("a teacher")
    with progress(experiment(), as_json=True, searching=True) as callback:
        assert isinstance(callback, JsonProgress)
        callback.on_stage("a teacher")
    assert capsys.readouterr().out == 'a teacher\n{"event": "stage", "text": "a teacher"}\n'


def test_on_a_terminal_there_is_a_table(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(experiment(), as_json=False, searching=True) as callback:
        assert isinstance(callback, ProgressTable)
        callback.on_stage("a teacher")
    assert "a teacher" in capsys.readouterr().out


def test_a_line_is_written_at_once(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr("sys.stdout", log)
        with progress(experiment(), as_json=False, searching=True) as callback:
            callback.on_stage("a teacher")
            assert (tmp_path / "log").read_text() == "a teacher\n"
