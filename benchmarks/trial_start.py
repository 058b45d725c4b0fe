"""Measures how long a trial takes to start, against a trial started as in Ray's documentation.

    python -m benchmarks.trial_start

On both sides the clock starts when Tune asks its searcher for the trial, which is before Tune
starts it. It stops in the training process just before the first step, when the networks are built.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.runtime.cluster import environment
from attnfd_ray.runtime.jobs.callback import Counts
from attnfd_ray.runtime.jobs.messages import Job
from benchmarks.record import load, record

SECONDS_LIMIT = 0.5
NUM_DOCUMENTED = 3
TIMEOUT_S = 600

# The baseline and the file as written come before what the sampler draws: five trials.
EXPERIMENT = """\
experiment: trial-start
data:    {name: toyscenes, root: "${ROOT}/scenes", crop: [32, 32]}
teacher: {backbone: resnet18, width: 0.25, train: {epochs: 1}}
student: {backbone: resnet18, width: 0.125}
method:  {name: attnfd, layers: [stage4, aspp, decoder], reduction_ratio: 4, loss_weight: 2.0}
train:   {epochs: 1, batch_size: 4, steps_per_epoch: 1, seed: 1}
scaling: {workers: 1, cpus_per_worker: 1, gpus_per_worker: 0}
search:
  method.loss_weight: {float: [0.1, 30], log: true}
tune:    {trials: 4, sampler: tpe, seed: 0, early_stopping: none, concurrent: 1}
store:   "${ROOT}/store"
"""


class Stopwatch:
    """A callback that records when each trial was asked for and when it was ready."""

    def __init__(self) -> None:
        self.asked_utc_s: dict[str, float] = {}
        self.ready_utc_s: dict[str, float] = {}

    def on_stage(self, text: str) -> None:
        """Nothing to time."""

    def on_search_start(self, counts: Counts) -> None:
        """Nothing to time."""

    def on_trial_start(self, job: Job) -> None:
        self.asked_utc_s[job.trial_id] = time.time()

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        self.ready_utc_s.setdefault(job.trial_id, metrics["ready_utc_s"])

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        assert state == "COMPLETE", f"{job.trial_id}: {state} {metrics}"

    def seconds(self) -> list[float]:
        """Return how long each trial took to start, in order, without the teacher's training."""
        return [self.ready_utc_s[trial] - asked for trial, asked in self.asked_utc_s.items()]


def ours(settings: ExperimentSettings) -> list[float]:
    """Return the seconds that each trial of a search takes to start."""
    from attnfd_ray.runtime.commands import tune

    stopwatch = Stopwatch()
    tune(settings, stopwatch)
    return stopwatch.seconds()


def documented(settings: ExperimentSettings, root: Path) -> list[float]:
    """Return the same for a Tune function with a TorchTrainer that uses TuneReportCallback."""
    import ray.train
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.search import Searcher

    from attnfd_ray.runtime.cluster.connect import connected

    stopwatch = Stopwatch()

    class Asked(Searcher):
        def suggest(self, trial_id: str) -> dict[str, Any]:
            stopwatch.asked_utc_s[trial_id] = time.time()
            return {}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            assert not error, f"{trial_id} failed"

    class Ready(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            stopwatch.ready_utc_s.setdefault(trial.trial_id, result["ready_utc_s"])

    student_json = settings.student.model_dump_json()

    def loop(_: dict[str, Any]) -> None:
        from attnfd_ray.config.schema import ModelSettings
        from attnfd_ray.models import build_model

        build_model(ModelSettings.model_validate_json(student_json), num_classes=12)
        ray.train.report({"ready_utc_s": time.time()})

    def trial(_: dict[str, Any]) -> None:
        TorchTrainer(
            loop,
            train_loop_config={},
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(
                name=tune.get_context().get_trial_id(),
                storage_path=str(root / "train"),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    with connected():
        tune.Tuner(
            trial,
            tune_config=tune.TuneConfig(
                search_alg=Asked(), num_samples=NUM_DOCUMENTED, max_concurrent_trials=1
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=str(root), verbose=0, callbacks=[Ready()]
            ),
        ).fit()
    return stopwatch.seconds()


def main() -> int:
    """Measure, record, and return 1 if the limit is exceeded."""
    load_before = load()
    signal.alarm(TIMEOUT_S)  # ends this process, and Ray's processes with it
    environment.prepare()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write_toyscenes(root / "scenes", size=32, train=8, val=2)
        file = root / "experiment.yaml"
        file.write_text(EXPERIMENT, encoding="utf-8")
        settings = load_experiment(file, environ={**os.environ, "ROOT": directory})
        ours_s = ours(settings)
        documented_s = documented(settings, root / "documented")
    signal.alarm(0)
    ours_median_s = statistics.median(ours_s[1:])
    documented_median_s = statistics.median(documented_s[1:])
    is_within_limit = ours_median_s <= SECONDS_LIMIT
    kept = {True: "yes", False: "NO"}[is_within_limit]
    lines = [
        f"ours, s a trial:       {_joined(ours_s)}",
        f"documented, s a trial: {_joined(documented_s)}",
        (
            f"median from the second trial on, s: ours {ours_median_s:.3f}, "
            f"documented {documented_median_s:.2f}"
        ),
        f"documented / ours: {documented_median_s / ours_median_s:.0f}",
        f"limit {SECONDS_LIMIT} s kept: {kept}",
    ]
    record(
        "trial_start",
        lines,
        config=EXPERIMENT,
        seeds="1 to train, 0 to search",
        load_before=load_before,
    )
    return int(not is_within_limit)


def _joined(seconds: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in seconds)


if __name__ == "__main__":
    sys.exit(main())
