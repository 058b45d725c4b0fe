"""The records of a report; `from_json` is the inverse of `to_json`. No pyarrow, no torch, no ray.

All mIoU are fractions in 0..1; only printed tables show per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from attnfd_ray.terms import Role, TrialState


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """One trial.

    `rank` counts from 1 within the protocol. It is None for a trial without its full budget.
    """

    trial_id: str
    role: Role
    method: str
    seed: int
    state: TrialState
    stop_reason: str | None
    config_hash: str | None
    values: dict[str, Any]
    best_val_miou: float | None
    best_epoch: int | None
    last_val_miou: float | None
    epochs_done: int | None
    epochs_total: int | None
    student_params: int | None
    wall_s: float | None
    test_miou: float | None = None
    failure_kind: str | None = None
    latency_ms: float | None = None
    latency_protocol: str | None = None
    rank: int | None = None

    @property
    def has_full_budget(self) -> bool:
        """Whether the trial completed every epoch of its budget with a score, and may be ranked."""
        if self.best_val_miou is None or self.epochs_done is None:
            return False
        return self.state is TrialState.COMPLETE and self.epochs_done == self.epochs_total


Lines = Sequence[TrialLine]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Best config minus baseline, each a mean over its seeds, in fractions.

    `note` has sentences on how far the difference can be trusted.
    """

    best_epoch_miou: float
    last_epoch_miou: float | None
    num_seeds_best: int
    num_seeds_baseline: int
    note: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `num` fractions, with half the width of its interval (None for one value)."""

    mean: float
    half_width: float | None
    num: int


@dataclass(frozen=True, kw_only=True)
class ConfigLine:
    """One config over its seeds.

    `gain` is the mean difference to the baseline over the seeds that both have.
    """

    method: str
    values: dict[str, Any]
    is_baseline: bool
    best_val_miou: Estimate
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class ConfirmedLine:
    """A config over fresh seeds.

    `gain` is the mean difference to the baseline over the seeds that both have. Its interval has
    the confidence of the Confirmation. `verdict` is None for less than two such seeds.
    """

    method: str
    values: dict[str, Any]
    is_baseline: bool
    best_val_miou: Estimate
    gain: Estimate | None
    verdict: Literal["better", "worse", "tie"] | None


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The leaders of a search and its baseline on seeds that the search never used.

    `lines` are sorted by mean, best first. `num_tried` counts the configs of the search without
    baselines, and `num_missing` the runs that failed or have not ended.
    """

    search_id: str
    num_tried: int
    num_leaders: int
    num_seeds: int
    num_missing: int
    confidence: float
    lines: list[ConfirmedLine]


@dataclass(frozen=True, kw_only=True)
class ClassLine:
    """The IoU of one class at each trial's best epoch, a fraction; None where not scored."""

    name: str
    teacher: float | None
    baseline: float | None
    best: float | None


@dataclass(frozen=True, kw_only=True)
class GradientLine:
    """The gradients of one trial's loss terms with respect to the student.

    `first`, `median` and `last` are |distillation| / |cross-entropy|: in `first_epoch`, over all
    epochs that measured it, and in `last_epoch`. They are None where the cross-entropy had no
    gradient. `shares` and `cosines` are those of the last epoch. `shares` is loss term -> its norm
    / the sum of all terms' norms. `cosines` is loss term -> cosine with the gradient of the
    cross-entropy, with `distillation` for all other terms together.
    """

    trial_id: str
    first_epoch: int
    last_epoch: int
    first: float | None
    median: float | None
    last: float | None
    shares: dict[str, float]
    cosines: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Front:
    """The configs that no other dominates in the metrics of their search, best mIoU first.

    Each line is that of the config's best trial, with its rank, but with means over the config's
    `num_seeds` seeds. `latency_protocol` is how all of them were timed, or None where latency was
    not a metric.
    """

    metrics: list[str]
    latency_protocol: str | None
    num_dominated: int
    lines: list[TrialLine]
    num_seeds: list[int]


@dataclass(frozen=True, kw_only=True)
class ProtocolReport:
    """The trials measured by one protocol; None as the protocol stands for trials without a score.

    `ranked` trials had their full budget, `others` did not. `configs` are means over seeds, best
    first; empty where no config has two seeds. `classes` are in the dataset's order; empty where
    their names are unknown. `fronts` are those of searches with several metrics. `gradients` are
    those of the leading configs and of the file as written.
    """

    protocol: str | None
    teacher: TrialLine | None
    baseline: TrialLine | None
    best: TrialLine | None
    gain: Gain | None
    configs: list[ConfigLine]
    ranked: list[TrialLine]
    others: list[TrialLine]
    classes: list[ClassLine] = field(default_factory=list)
    fronts: list[Front] = field(default_factory=list)
    gradients: list[GradientLine] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """Trials with the same kind of failure, and the error message of the first."""

    kind: str
    num_trials: int
    first_trial_id: str
    first_text: str | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds over all trials, median images per second over epochs, highest memory in MiB."""

    wall_s: float
    images_per_s_median: float | None
    peak_mem_mib: float | None


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """One experiment in full.

    `best_trial_id` is that of the first protocol with a best config. `confirmations` has one entry
    for each search whose leaders were run again, the latest first.
    """

    experiment: str
    methods: list[str]
    num_trials: dict[TrialState, int]
    protocols: list[ProtocolReport]
    failures: list[FailureGroup]
    cost: Cost
    best_trial_id: str | None
    best_command: str | None
    confirmations: list[Confirmation] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ExperimentLine:
    """Another experiment of the store; without a score, which would need its protocol."""

    experiment: str
    num_trials: dict[TrialState, int]
    time_utc: datetime


@dataclass(frozen=True, kw_only=True)
class Report:
    """A store: one experiment in full (None for an empty store), and a line for each other one."""

    store: str
    shown: ExperimentReport | None
    others: list[ExperimentLine]


_ADAPTER = TypeAdapter(Report)


def to_json(report: Report) -> str:
    """Return a report as one JSON document."""
    return _ADAPTER.dump_json(report, indent=2).decode()


def from_json(text: str) -> Report:
    """Return the report that `to_json` wrote."""
    return _ADAPTER.validate_json(text)
