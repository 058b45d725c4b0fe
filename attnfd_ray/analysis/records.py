"""What a report says, as plain records; `to_json` and `from_json` are each other's inverse. No
pyarrow.

mIoU are fractions 0..1 here too; only printed tables show percent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from attnfd_ray.store.rows import Role, TrialState


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """One trial; `rank` counts from 1 within its protocol and is None for a trial that had not its
    full budget.
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
    def full(self) -> bool:
        """Whether the trial ended well after every epoch of its budget, and so may be ranked."""
        return (
            self.state is TrialState.COMPLETE
            and self.best_val_miou is not None
            and self.epochs_done is not None
            and self.epochs_done == self.epochs_total
        )


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Best config minus baseline, fractions, each a mean over its seeds; `note` says what that is
    worth.
    """

    best_epoch_miou: float
    last_epoch_miou: float | None
    num_seeds_best: int
    num_seeds_baseline: int
    note: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `num` values, fractions, with half the width of its 95 % interval; None for a
    single value.
    """

    mean: float
    half_width: float | None
    num: int


@dataclass(frozen=True, kw_only=True)
class ConfigLine:
    """One config over its seeds. `gain` is the mean difference to the baseline over the seeds that
    both have.
    """

    method: str
    values: dict[str, Any]
    is_baseline: bool
    best_val_miou: Estimate
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class ConfirmedLine:
    """A config over fresh seeds. `gain` is its mean difference to the baseline over the seeds that
    both have.

    The interval of `gain` has the confidence of the Confirmation; `verdict` is None for less than
    two such seeds.
    """

    method: str
    values: dict[str, Any]
    is_baseline: bool
    best_val_miou: Estimate
    gain: Estimate | None
    verdict: Literal["better", "worse", "tie"] | None


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The leaders of a search and its baseline, run again over seeds that the search never used;
    best mean first.

    `num_tried` counts the configs of the search, the baseline apart, `num_missing` runs that failed
    or have not ended.
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
    """One class by its name: its IoU, a fraction, at the best epoch of each; None where it was not
    scored.
    """

    name: str
    teacher: float | None
    baseline: float | None
    best: float | None


@dataclass(frozen=True, kw_only=True)
class GradientLine:
    """The gradients of one trial's loss terms with respect to the student, over the epochs that
    measured them.

    `first`, `median` and `last` are |distillation| / |cross-entropy| in `first_epoch`, over all
    epochs and in `last_epoch`; None where the cross-entropy had no gradient. In the last epoch:
    `shares` is loss term -> its norm / the sum of all terms' norms, `cosines` loss term
    (`distillation`: all further ones together) -> cosine with the gradient of the cross-entropy.
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
    """Configs that none dominates in the metrics that their search aimed at, best mIoU first.

    Each is the line of its best trial, with that one's rank, and with means over the config's
    seeds: `num_seeds` of them. `latency_protocol` says how all of them were timed, None where
    latency was no metric.
    """

    metrics: list[str]
    latency_protocol: str | None
    num_dominated: int
    lines: list[TrialLine]
    num_seeds: list[int]


@dataclass(frozen=True, kw_only=True)
class ProtocolReport:
    """Trials measured alike: `ranked` ones had their full budget, `others` had not. None: no score
    yet.

    `configs` are the ranked ones over their seeds, best mean first; empty where no config has two.
    `classes` are in the dataset's order; empty where their names are not known. `fronts` are there
    where a search had several metrics. `gradients` are those of the leading configs and of the file
    as written.
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
    """Trials that failed in one way, with the words of the first."""

    kind: str
    num_trials: int
    first_trial_id: str
    first_text: str | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What it took: seconds over all trials, median images per second over epochs, MiB at the
    highest.
    """

    wall_s: float
    images_per_s_median: float | None
    peak_mem_mib: float | None


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """One experiment in full. `best_trial_id` is of the first protocol that has a best config.

    `confirmations` are one for each search that has any, the latest first.
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
    """Another experiment of the same store; no score, since that would need its protocol."""

    experiment: str
    num_trials: dict[TrialState, int]
    time_utc: datetime


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a store holds: the experiment asked for or the latest, None for an empty store, and the
    others' names.
    """

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
