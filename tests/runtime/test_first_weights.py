"""The files that networks start from: the driver records their hashes, each node checks them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from command_line import CommandLine, write

from attnfd_ray.analysis import trials
from attnfd_ray.config.overrides import config_hash, with_values
from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.errors import AttnFDError, CheckpointError, ConfigError
from attnfd_ray.models import build_model, pretrained
from attnfd_ray.models.pretrained import file_hash
from attnfd_ray.runtime import confirm
from attnfd_ray.runtime.cluster.probe import probe_node
from attnfd_ray.runtime.files.first_weights import first_weights, pinned
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.jobs.worker import Worker
from attnfd_ray.runtime.session import RunContext, open_experiment
from attnfd_ray.runtime.teacher import ready_teacher
from attnfd_ray.runtime.tuner import _Bridge, job_of
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.store.store import Store

Make = Callable[[], ExperimentSettings]


def file_of(path: Path, *, seed: int, **network: Any) -> str:
    """Write a backbone's weights; return the path."""
    torch.manual_seed(seed)
    settings = ModelSettings.model_validate({"backbone": "resnet18", "width": 0.125, **network})
    torch.save(build_model(settings, num_classes=3).backbone.state_dict(), path)
    return str(path)


@pytest.fixture
def a(tmp_path: Path) -> str:
    return file_of(tmp_path / "a.pth", seed=1)


@pytest.fixture
def b(tmp_path: Path) -> str:
    return file_of(tmp_path / "b.pth", seed=2)


def context_of(settings: ExperimentSettings, search_id: str = "s") -> RunContext:
    return RunContext(
        settings=settings,
        store=Store.open(settings.store, create=True),
        run_id=search_id,
        search_id=search_id,
    )


class Silent:
    """A callback that does nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def test_opening_an_experiment_pins_its_files_and_logs_them(
    tree: dict[str, Any], settings: Make, a: str, b: str
) -> None:
    tree["student"] |= {"pretrained": a}
    tree["teacher"] |= {"pretrained": b}
    lines: list[str] = []
    with open_experiment(settings(), "train", fresh=False, log=lines.append) as (context, _):
        made = context.settings
    assert (made.student.pretrained_sha256, made.teacher and made.teacher.pretrained_sha256) == (
        file_hash(Path(a)),
        file_hash(Path(b)),
    )
    saved = json.loads((Path(tree["store"]) / f"experiments/{context.run_id}.json").read_text())
    assert saved["student"]["pretrained_sha256"] == file_hash(Path(a))
    assert [line.partition(" tensors")[0] for line in lines] == [
        f"student.pretrained: {a}: 120",
        f"teacher.pretrained: {b}: 120",
    ]


def claim(settings: ExperimentSettings, command: Literal["train", "search"] = "train") -> str:
    with open_experiment(settings, command, fresh=False, log=lambda _: None) as (context, _):
        return context.run_id


def test_another_file_under_the_same_path_is_another_experiment_and_a_moved_one_is_not(
    tree: dict[str, Any], settings: Make, a: str, tmp_path: Path
) -> None:
    tree["student"] |= {"pretrained": a}
    assert claim(settings()) == "tiny.train1"
    moved = tmp_path / "moved.pth"
    moved.write_bytes(Path(a).read_bytes())
    tree["student"]["pretrained"] = str(moved)
    assert claim(settings()) == "tiny.train1"
    old = file_hash(moved)
    file_of(moved, seed=3)
    with pytest.raises(ConfigError) as caught:
        claim(settings())
    assert f"other settings (student.pretrained_sha256: {old} -> {file_hash(moved)});" in str(
        caught.value
    )


def test_an_experiment_of_a_version_without_hashes_is_resumed(
    tree: dict[str, Any], settings: Make, a: str
) -> None:
    tree["student"] |= {"pretrained": a}
    claim(settings())
    file = Path(tree["store"]) / "experiments/tiny.train1.json"
    old = json.loads(file.read_text())
    del old["student"]["pretrained_sha256"]
    file.write_text(json.dumps(old))
    assert claim(settings()) == "tiny.train1"


def test_a_file_that_the_settings_pin_is_refused_when_it_is_another(
    tree: dict[str, Any], settings: Make, a: str
) -> None:
    tree["student"] |= {"pretrained": a, "pretrained_sha256": "0" * 16}
    with pytest.raises(CheckpointError) as caught:
        claim(settings())
    assert str(caught.value).startswith(
        f"{a} on {socket.gethostname()}: its SHA-256 begins with {file_hash(Path(a))}, "
        "pretrained_sha256 is 0000"
    )


def test_the_id_of_a_teacher_depends_on_the_file_that_it_starts_from(
    tree: dict[str, Any], settings: Make, a: str, b: str
) -> None:
    jobs: list[Job] = []

    class Stopped(Exception):
        pass

    class Broker:
        class submit:
            @staticmethod
            def remote(job: Job) -> Any:
                jobs.append(job)
                raise Stopped

    for path in (a, b, a):
        tree["teacher"]["pretrained"] = path
        with pytest.raises(Stopped):
            ready_teacher(context_of(pinned(settings())), Broker(), Silent())  # type: ignore[arg-type]
    assert [job.settings.student.pretrained_sha256 for job in jobs] == [
        file_hash(Path(each)) for each in (a, b, a)
    ]
    assert jobs[0].trial_id == jobs[2].trial_id != jobs[1].trial_id


def test_every_trial_is_pinned_to_its_own_file_and_no_other(
    tree: dict[str, Any], settings: Make, a: str, b: str
) -> None:
    tree |= {"method": {"name": "none"}, "teacher": None}
    tree["student"] |= {"pretrained": a}
    tree["search"] = {"student.pretrained": {"choice": ["none", a, b]}}
    tree["tune"] = {"trials": 3, "sampler": "grid", "early_stopping": "none"}
    base = pinned(settings())
    assert [(name, network.pretrained) for name, network in first_weights(base)] == [
        ("student.pretrained", a),
        ("student.pretrained", b),
    ]
    plan = SearchPlan(base, search_id="tiny.search1")
    jobs = [job_of(suggestion, context_of(base)) for suggestion in iter(plan.next, None)]
    found = {
        (job.settings.student.pretrained, job.settings.student.pretrained_sha256) for job in jobs
    }
    assert found == {("none", None), (a, file_hash(Path(a))), (b, file_hash(Path(b)))}


def test_a_file_that_only_a_search_draws_is_missed_before_the_search_starts(
    tree: dict[str, Any], settings: Make, a: str
) -> None:
    tree["search"] = {"student.pretrained": {"choice": ["none", a, f"{a}.gone"]}}
    with pytest.raises(CheckpointError, match=r"a\.pth\.gone cannot be read on "):
        claim(settings(), "search")
    assert not (Path(tree["store"]) / "experiments").exists()


def test_a_file_that_is_deleted_during_a_search_ends_it_in_one_line(
    tree: dict[str, Any], settings: Make, a: str
) -> None:
    tree |= {
        "method": {"name": "none"},
        "teacher": None,
        "search": {"student.pretrained": {"choice": ["none", a]}},
    }
    tree["tune"] = {"trials": 2, "sampler": "grid", "early_stopping": "none"}
    base = pinned(settings())

    class WithoutBroker(_Bridge):
        def _ask_broker(self, method: str, *arguments: Any) -> Any:
            return None

    groups: Any = type("WorkerGroups", (), {"name": "g", "namespace": "n"})
    plan = SearchPlan(base, search_id="tiny.search1")
    bridge = WithoutBroker(plan, groups, context_of(base), Silent())  # type: ignore[arg-type]
    Path(a).unlink()
    for number in range(4):
        bridge.suggest(str(number))
    assert isinstance(bridge.fatal, CheckpointError)
    assert f"{a} cannot be read on" in str(bridge.fatal)


def complete(settings: ExperimentSettings, **values: Any) -> dict[str, Any]:
    """Return a complete trial of a search, as in the store."""
    row = dict.fromkeys(trials.TRIAL_COLUMNS)
    return row | {
        "experiment": "tiny",
        "search_id": "s",
        "trial_id": "s-0001",
        "role": "trial",
        "state": "COMPLETE",
        "seed": 1,
        "method": "none",
        "best_val_miou": 0.5,
        "epochs_done": 4,
        "epochs_total": 4,
        "searched_json": json.dumps(values),
        "config_hash": config_hash(with_values(settings, values)),
    }


def test_a_leader_is_confirmed_from_the_file_it_started_from(
    tree: dict[str, Any], settings: Make, a: str
) -> None:
    tree |= {"method": {"name": "none"}, "teacher": None}
    tree["student"] |= {"pretrained": a}
    made = pinned(settings())

    def hashes(then: ExperimentSettings) -> list[str | None]:
        rows = [
            complete(then) | {"trial_id": "s-0000", "role": "baseline"},
            complete(then, **{"optim.lr": 0.5}),
        ]
        with_epochs = [trials.with_epochs(row, []) for row in rows]
        runs = confirm.planned_runs(context_of(made), with_epochs, top=1, seeds=1)
        return [run.settings.student.pretrained_sha256 for run in runs]

    assert hashes(made) == [file_hash(Path(a))] * 2
    assert hashes(settings()) == [None] * 2  # of a version without hashes
    with pytest.raises(
        CheckpointError, match="had other settings than this file gives now: the file of"
    ):
        hashes(with_values(made, {"student.pretrained_sha256": "0" * 16}))


def test_each_node_reports_missing_and_different_files(
    tree: dict[str, Any], settings: Make, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree["student"] |= {"pretrained": a}
    tree["teacher"] |= {"pretrained": b}
    made = settings()
    weights = first_weights(made)
    directory = Path(made.store) / "preflight" / "t0"
    directory.mkdir(parents=True)
    (directory / "driver").write_text("t0")
    assert probe_node(made, "t0", "host/ab12", weights).problems == ()
    old = file_hash(Path(b))
    Path(a).unlink()
    file_of(Path(b), seed=9)
    monkeypatch.setattr(socket, "gethostname", lambda: "far")
    gone, other = probe_node(made, "t0", "far/ab12", weights).problems
    assert gone.startswith(
        f"node far/ab12: student.pretrained: pretrained: {a} cannot be read on far (No such file"
    )
    assert other.startswith(
        f"node far/ab12: teacher.pretrained: {b} on far: its SHA-256 begins with "
    )
    assert f"pretrained_sha256 is {old}" in other


def test_a_node_without_imagenet_weights_asks_whether_they_can_be_had(
    tree: dict[str, Any], settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree |= {
        "method": {"name": "none"},
        "teacher": None,
        "student": {"backbone": "resnet18", "pretrained": "imagenet"},
    }
    network = settings().student
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr("attnfd_ray.models.imagenet.ask_for", asked.append)
    pretrained.check_within_reach(network)
    assert asked == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]

    def unreachable(_: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("attnfd_ray.models.imagenet.ask_for", unreachable)
    with pytest.raises(
        CheckpointError,
        match=r"ImageNet weights of resnet18: cannot be downloaded \(no route to host\)",
    ):
        pretrained.check_within_reach(network)


def test_a_worker_refuses_a_file_that_changed(tree: dict[str, Any], settings: Make, a: str) -> None:
    tree |= {"method": {"name": "none"}, "teacher": None}
    tree["student"] |= {"pretrained": a}
    made = pinned(settings())
    file_of(Path(a), seed=8)
    events: list[Event] = []
    job = context_of(made).job("t1", "trial")
    Worker(torch.device("cpu"), lambda _, event: events.append(event)).do(job)
    (event,) = events
    assert event.failure_kind == "CONFIG"
    assert (event.failure_text or "").startswith(
        f"{a} on {socket.gethostname()}: its SHA-256 begins with "
    )


def test_weights_of_a_teacher_that_no_trial_needs_are_not_read(
    tree: dict[str, Any], settings: Make, a: str
) -> None:
    tree |= {"method": {"name": "none"}}
    tree["teacher"] |= {"pretrained": f"{a}.gone"}
    assert pinned(settings()) == settings()
    tree["search"] = {"method": {"choice": [{"name": "none"}, {"name": "kd"}]}}
    with pytest.raises(AttnFDError, match="cannot be read"):
        pinned(settings())


@pytest.mark.slow
def test_the_command_ends_with_one_line(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["student"] |= {"pretrained": "gone/net.pth"}
    for command in ("tune", "check"):
        done = attnfd_ray(command, write(tree, tmp_path))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "gone/net.pth cannot be read on " in done.stderr


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_search_over_first_weights_runs_and_resumes(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path, a: str, b: str
) -> None:
    tree["student"] |= {"pretrained": a}
    tree["teacher"] |= {"pretrained": b}
    tree["train"]["epochs"] = 1
    tree["search"] = {"student.pretrained": {"choice": ["none", a, b]}}
    tree["tune"] = {"trials": 3, "sampler": "grid", "early_stopping": "none"}
    file = write(tree, tmp_path)
    checked = attnfd_ray("check", file)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"student.pretrained: {a}: 120 tensors taken for the backbone\n" in checked.stdout
    done = attnfd_ray("tune", file)
    assert (done.returncode, done.stderr) == (0, "")
    rows = (
        Store.open(tree["store"], create=False)
        .trials(columns=["role", "state", "config_json"])
        .to_pylist()
    )
    assert {row["state"] for row in rows} == {"COMPLETE"}
    students = [(row["role"], json.loads(row["config_json"])["student"]) for row in rows]
    hashes = {None: "none", file_hash(Path(a)): a, file_hash(Path(b)): b}
    assert all(
        hashes[student["pretrained_sha256"]] == student["pretrained"] for _, student in students
    )
    assert {student["pretrained"] for role, student in students if role == "trial"} >= {"none", b}
    assert [student["pretrained"] for role, student in students if role == "teacher"] == [b]
    again = attnfd_ray("tune", file)
    assert (again.returncode, again.stderr) == (0, "")
    assert "is complete: nothing left to try" in again.stdout
    Path(a).unlink()
    gone = attnfd_ray("tune", file)
    assert gone.returncode == 2
    assert gone.stderr.count("\n") == 1
