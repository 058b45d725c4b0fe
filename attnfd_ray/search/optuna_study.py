"""Optuna behind four verbs: propose, place, judge, tell. Its study lives in memory; the store is
what lasts.

Every draw is by a fresh sampler whose seed follows from the seed of the search and the number of
the trial, and not from how many draws came before it in this process. Those that were rejected are
in the study of this process alone, so no draw may depend on them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from attnfd_ray import registry
from attnfd_ray.config.metrics import METRICS
from attnfd_ray.config.overrides import baseline_of, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import NUM_SEEDS, SEED
from attnfd_ray.search.baseline import LOSS_WEIGHT, as_trained
from attnfd_ray.search.distributions import decode, encode, to_distributions, walk
from attnfd_ray.search.early_stopping import INDEX, why
from attnfd_ray.search.records import CONTINUE, Decision, PastTrial, WarmStartSummary
from attnfd_ray.search.warm_start import check_sampler, to_frozen_trials, values_at

_Config = frozenset[tuple[str, Any]]  # what of Optuna's params makes a difference

NUM_DRAWS = 50  # for one trial, before the sampler is passed over


class Proposal(NamedTuple):
    """A configuration to try: Optuna's running trial, the searched values, and the settings with
    these and a seed.
    """

    trial: optuna.Trial
    values: dict[str, Any]
    settings: ExperimentSettings


class OptunaStudy:
    """The sampler and the early stopping of one search."""

    def __init__(self, settings: ExperimentSettings) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._settings = settings
        self._after = ""
        self._distributions = to_distributions(settings.search)
        # seeds by config; a config that is not valid counts as tried too
        self._tried: dict[_Config, set[int]] = {}
        self._ruled_out: set[_Config] = set()
        tune = settings.tune
        self._repeats = (
            tune.duplicates == "seed" and tune.sampler != "grid" and SEED not in settings.search
        )
        pruner = registry.load("early_stopping", settings.tune.early_stopping)(
            settings.tune, settings.train.epochs
        )
        aims = [
            StudyDirection.MAXIMIZE if METRICS[name] else StudyDirection.MINIMIZE
            for name in settings.tune.metrics
        ]
        if LOSS_WEIGHT in settings.search and (alone := baseline_of(settings)) is not None:
            # the baseline, which has run or will: drawn again with its seed it would say nothing
            # new
            self._note(values_at(alone, settings.search), settings.train.seed)
        self._study = optuna.create_study(directions=aims, sampler=self._sampler(0), pruner=pruner)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a complete trial is told to be worth."""
        return self._settings.tune.metrics

    def ask(self, index: int) -> Proposal | None:
        """Return the first draw that is valid and has a seed left, or None without any; others are
        told as failed.
        """
        for trial in self._candidates(index):
            values = decode(trial.params, self._settings.search)
            seed = self._free_seed(values)
            settings = None if seed is None else self._validated({SEED: seed, **values})
            self._note(values, seed)
            if settings is not None:
                return Proposal(trial, values, settings)
            self.tell(trial, TrialState.FAIL)
        return None

    def enqueue(self, index: int, values: Mapping[str, Any], seed: int) -> optuna.Trial | None:
        """Return a running trial with these values, or None where they lie outside the space."""
        params = self._note(values, seed)
        return self._ask(index, params) if params else None

    def forbid(self, values: Mapping[str, Any]) -> None:
        """Draw this config never again: it is its settings that cannot run, whatever the seed."""
        params = encode(values, self._settings.search)
        if params is not None:
            self._ruled_out.add(_config(params))

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> Decision:
        """Record the finite value of an epoch not seen before, and say whether the trial may go
        on.
        """
        if (
            len(self._settings.tune.metrics) > 1
        ):  # Optuna takes no curves then, and nothing is stopped
            return CONTINUE
        trial.report(value, epoch)
        if epoch >= self._settings.train.epochs or not trial.should_prune():
            return CONTINUE
        return Decision(
            True, why(self._study, self._study.get_trials(deepcopy=False)[trial.number])
        )

    def tell(
        self, trial: optuna.Trial, state: TrialState, values: Sequence[float] | None = None
    ) -> None:
        """Finish a trial; `values` belong to COMPLETE alone: Optuna takes a pruned one's last
        reported.
        """
        self._study.tell(trial, values, state)

    def add_trials(self, earlier: Iterable[PastTrial]) -> WarmStartSummary:
        """Take up trials of an earlier search, before any of this one. Raises ConfigError where it
        would be in vain.
        """
        check_sampler(self._settings)
        trials, warmth = to_frozen_trials(earlier, self._settings, self._distributions)
        self._study.add_trials(trials)
        # the earlier search may have drawn by the same seed: its first draws are not worth drawing
        # again
        self._after = f"/{len(trials)}"
        return warmth

    def _candidates(self, index: int) -> Iterator[optuna.Trial]:
        """Yield what the sampler draws; where it keeps missing, every combination that may be
        tried.
        """
        params: dict[str, Any] = {}
        # a grid draws in the order of the combinations below, but knows which were tried, not which
        # may be
        for attempt in range(1 if self._settings.tune.sampler == "grid" else NUM_DRAWS):
            self._study.sampler = self._sampler(index, attempt)
            trial = self._study.ask(self._distributions)
            trial.set_user_attr(INDEX, index)
            params = trial.params
            yield trial
        for combination in walk(self._distributions, self._seed(index), params):
            if self._free_seed(decode(combination, self._settings.search)) is not None:
                yield self._ask(index, combination)

    def _ask(self, index: int, params: dict[str, Any]) -> optuna.Trial:
        self._study.sampler = sampler = self._sampler(index)
        self._study.enqueue_trial(params, {INDEX: index})
        trial = self._study.ask(self._distributions)
        if isinstance(sampler, CmaEsSampler | NSGAIISampler):
            # They keep their state in the trials they proposed, and Optuna lets them propose only
            # what is not given. So they do here, in vain but for the state: a rebuilt search would
            # start from the middle of the space, or with a first generation.
            _ = trial.relative_params
        return trial

    def _sampler(self, index: int, attempt: int = 0) -> BaseSampler:
        make = registry.load("sampler", self._settings.tune.sampler)
        sampler: BaseSampler = make(self._seed(index, attempt), self._distributions)
        return sampler

    def _seed(self, index: int, attempt: int = 0) -> int:
        """Return 32 bits that depend on neither process, platform nor version."""
        digest = hashlib.sha256(
            f"{self._settings.tune.seed}/{index}/{attempt}{self._after}".encode()
        ).digest()
        return int.from_bytes(digest[:4], "big")

    def _free_seed(self, values: Mapping[str, Any]) -> int | None:
        """Return the first seed, from the file's on, that this config has not had, and None where
        it may not run.

        It may not where it lies outside the space (a drawn subset may be too small or too large),
        was ruled out, or was tried already and duplicates are skipped.
        """
        params = encode(values, self._settings.search)
        config = _config(params or {})
        if (
            params is None
            or config in self._ruled_out
            or (config in self._tried and not self._repeats)
        ):
            return None
        used = self._tried.get(config, ())
        seeds = (seed % NUM_SEEDS for seed in itertools.count(self._settings.train.seed))
        return next(seed for seed in seeds if seed not in used)

    def _note(self, values: Mapping[str, Any], seed: int | None) -> dict[str, Any] | None:
        """Count these as tried with this seed, and return their params; None where they lie outside
        the space.
        """
        params = encode(values, self._settings.search)
        if params is not None:
            self._tried.setdefault(_config(params), set()).update(() if seed is None else (seed,))
        return params

    def _validated(self, values: Mapping[str, Any]) -> ExperimentSettings | None:
        try:
            return with_values(self._settings, values)
        except (
            ValueError
        ):  # pydantic's: the file was checked value by value, and these do not go together
            return None


def _config(params: Mapping[str, Any]) -> _Config:
    return frozenset(as_trained(params).items())
