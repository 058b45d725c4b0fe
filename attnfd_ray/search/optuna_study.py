"""The sampler and the early stopping of one search, with Optuna's own verbs. No torch, no ray.

`ask` draws a trial and `enqueue` adds one with given values. `report` takes the value of an epoch
and decides whether the trial continues. `tell` ends a trial, `add_trials` adds those of an earlier
search, and `forbid` excludes a configuration. The Optuna study is in memory; only the store lasts.

Each draw uses a fresh sampler. Its seed depends on the search's seed and the trial's number, not on
how many draws this process made before. Draws that were rejected exist in this process alone, so no
other draw may depend on them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from attnfd_ray import registry
from attnfd_ray.config.metrics import METRICS
from attnfd_ray.config.overrides import baseline_of, with_values
from attnfd_ray.config.samplers import traits_of
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import NUM_SEEDS, SEED
from attnfd_ray.search.baseline import LOSS_WEIGHT, as_trained
from attnfd_ray.search.distributions import (
    Distributions,
    Params,
    Values,
    decode,
    encode,
    to_distributions,
    walk,
)
from attnfd_ray.search.early_stopping import INDEX, why
from attnfd_ray.search.records import CONTINUE, Decision, PastTrial, WarmStartSummary
from attnfd_ray.search.warm_start import check_sampler, to_frozen_trials, values_at

_Config = frozenset[tuple[str, Any]]  # those of Optuna's params that affect training

NUM_DRAWS = 50  # per trial; after that, combinations are tried in order
_DIRECTIONS = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}


class Proposal(NamedTuple):
    """A configuration to try.

    `trial` is Optuna's running trial, `values` are the searched values, and `settings` contain
    these and a seed.
    """

    trial: optuna.Trial
    values: dict[str, Any]
    settings: ExperimentSettings


class OptunaStudy:
    """The sampler and the early stopping of one search.

    Raises ConfigError where the sampler cannot search the space, or needs a package that is not
    installed.
    """

    def __init__(self, settings: ExperimentSettings) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        tune = settings.tune
        self._settings = settings
        self._search = settings.search
        self._traits = traits_of(tune.sampler)
        self._seed_suffix = ""
        self._distributions: Distributions = to_distributions(settings.search)
        # seeds by configuration; one that is not valid counts as tried too
        self._tried_seeds: dict[_Config, set[int]] = {}
        self._forbidden: set[_Config] = set()
        self._repeats = (
            tune.duplicates == "seed"
            and not self._traits.is_exhaustive
            and SEED not in settings.search
        )
        if LOSS_WEIGHT in settings.search:
            self._mark_baseline_tried()
        make_pruner = registry.load("early_stopping", tune.early_stopping)
        self._optuna_study = optuna.create_study(
            directions=[_DIRECTIONS[METRICS[name]] for name in tune.metrics],
            sampler=self._sampler(0),
            pruner=make_pruner(tune, settings.train.epochs),
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of a complete trial's values, in this order."""
        return self._settings.tune.metrics

    def ask(self, index: int) -> Proposal | None:
        """Return the first draw for trial `index` that is valid and has an unused seed.

        None where there is no such configuration left. Rejected draws end as failed.
        """
        for trial in self._candidates(index):
            values = decode(trial.params, self._search)
            seed = self._unused_seed(values)
            self._mark_tried(values, seed)
            settings = self._validated(values, seed)
            if settings is not None:
                return Proposal(trial, values, settings)
            self.tell(trial, TrialState.FAIL)
        return None

    def enqueue(self, index: int, values: Values, seed: int) -> optuna.Trial | None:
        """Return a running trial with these values, or None where they are outside the space."""
        params = self._mark_tried(values, seed)
        if not params:
            return None
        return self._ask_for(index, params)

    def forbid(self, values: Values) -> None:
        """Never draw this configuration again: it cannot run, with any seed."""
        params = encode(values, self._search)
        if params is not None:
            self._forbidden.add(_config(params))

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> Decision:
        """Record the value of an epoch, and decide whether the trial continues.

        The value is finite and the epoch was not reported before. With several metrics nothing is
        stopped early: Optuna takes no intermediate values then.
        """
        if len(self._settings.tune.metrics) > 1:
            return CONTINUE
        trial.report(value, epoch)
        if epoch >= self._settings.train.epochs or not trial.should_prune():
            return CONTINUE
        trials = self._optuna_study.get_trials(deepcopy=False)
        reason = why(self._optuna_study, trials[trial.number])
        return Decision(stop=True, reason=reason)

    def tell(
        self, trial: optuna.Trial, state: TrialState, values: Sequence[float] | None = None
    ) -> None:
        """End a trial.

        Only COMPLETE takes `values`: for a pruned trial Optuna uses the last reported one.
        """
        self._optuna_study.tell(trial, values, state)

    def add_trials(self, earlier: Iterable[PastTrial]) -> WarmStartSummary:
        """Add trials of an earlier search, before any trial of this one.

        Raises ConfigError where the sampler would not learn from them.
        """
        check_sampler(self._settings)
        trials, summary = to_frozen_trials(earlier, self._settings, self._distributions)
        self._optuna_study.add_trials(trials)
        # The earlier search may have had the same seed. With another seed here, its first draws are
        # not drawn again.
        self._seed_suffix = f"/{len(trials)}"
        return summary

    def _candidates(self, index: int) -> Iterator[optuna.Trial]:
        """Yield the sampler's draws, then every combination that may still be tried."""
        num_draws = NUM_DRAWS
        if self._traits.is_exhaustive:
            # it draws in the order of the combinations below, and does not know which are forbidden
            num_draws = 1
        params: Params = {}
        for attempt in range(num_draws):
            self._optuna_study.sampler = self._sampler(index, attempt)
            trial = self._optuna_study.ask(self._distributions)
            trial.set_user_attr(INDEX, index)
            params = trial.params
            yield trial
        for combination in walk(self._distributions, self._seed(index), params):
            values = decode(combination, self._search)
            if self._unused_seed(values) is not None:
                yield self._ask_for(index, combination)

    def _ask_for(self, index: int, params: Params) -> optuna.Trial:
        """Return a running trial with these params."""
        self._optuna_study.sampler = sampler = self._sampler(index)
        self._optuna_study.enqueue_trial(params, {INDEX: index})
        trial = self._optuna_study.ask(self._distributions)
        # a user's own sampler has no traits, but may be one of Optuna's
        own_keeps_state = isinstance(sampler, CmaEsSampler | NSGAIISampler)
        if self._traits.keeps_state_in_trials or own_keeps_state:
            # Optuna asks the sampler only for params that are not given, so the sampler would not
            # store its state in this trial. A rebuilt search would then start anew. Reading
            # `relative_params` makes the sampler draw; the draw itself is not used.
            _ = trial.relative_params
        return trial

    def _sampler(self, index: int, attempt: int = 0) -> BaseSampler:
        make_sampler = registry.load("sampler", self._settings.tune.sampler)
        seed = self._seed(index, attempt)
        sampler: BaseSampler = make_sampler(seed, self._distributions)
        return sampler

    def _seed(self, index: int, attempt: int = 0) -> int:
        """Return 32 bits that do not depend on the process, the platform or any version."""
        text = f"{self._settings.tune.seed}/{index}/{attempt}{self._seed_suffix}"
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def _unused_seed(self, values: Values) -> int | None:
        """Return the first seed, from the file's on, that this configuration has not had.

        None where it may not run: it is outside the space (a drawn subset may be too small or too
        large), it is forbidden, or it was tried already and duplicates are skipped.
        """
        params = encode(values, self._search)
        if params is None:
            return None
        config = _config(params)
        if config in self._forbidden:
            return None
        if config in self._tried_seeds and not self._repeats:
            return None
        used = self._tried_seeds.get(config, set())
        for seed in itertools.count(self._settings.train.seed):
            if seed % NUM_SEEDS not in used:
                return seed % NUM_SEEDS
        raise AssertionError("there are more seeds than trials")

    def _mark_tried(self, values: Values, seed: int | None) -> Params | None:
        """Count these values as tried with this seed, and return their params.

        None where they are outside the space.
        """
        params = encode(values, self._search)
        if params is not None:
            seeds = self._tried_seeds.setdefault(_config(params), set())
            if seed is not None:
                seeds.add(seed)
        return params

    def _mark_baseline_tried(self) -> None:
        """Count the baseline as tried: it has a trial of its own, which a draw would repeat."""
        alone = baseline_of(self._settings)
        if alone is not None:
            values = values_at(alone, self._search)
            self._mark_tried(values, self._settings.train.seed)

    def _validated(self, values: Values, seed: int | None) -> ExperimentSettings | None:
        """Return the settings with these values, or None where they do not fit together."""
        if seed is None:
            return None
        try:
            return with_values(self._settings, {SEED: seed, **values})
        except (
            ValueError
        ):  # pydantic's; each value is valid by itself, which the file's check shows
            return None


def _config(params: Params) -> _Config:
    return frozenset(as_trained(params).items())
