"""Proposes the next configuration: each function makes one of Optuna's samplers from a seed.

No torch, no ray. The traits of each sampler are in `config/samplers.py`.

The plan makes a fresh sampler for every draw, seeded by the number of the trial. A search rebuilt
from its store therefore draws the same trials as an uninterrupted one. For this to work a sampler
keeps its state in the study, not in itself. Samplers that keep state in the trials they proposed
(cmaes, nsga2) draw the same only with `concurrent: 1`: their draws depend on which trials had ended
when each one began, and a rebuilt study takes trials one after another. They learn from the ended
trials in either case.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial

from attnfd_ray.config.samplers import traits_of
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.distributions import Distributions, Params, num_values, walk

NUM_STARTUP_TRIALS = 8  # drawn at random, before there are enough results for a model
# Parents per generation of nsga2, and trials per generation. Fixed, because a search may be given
# more trials later.
POPULATION = 8


def tpe(seed: int, distributions: Distributions) -> BaseSampler:
    """Tree-structured Parzen estimator, joint over all settings; running trials count as poor."""
    return Tpe(seed, distributions)


def random(seed: int, distributions: Distributions) -> BaseSampler:
    """Uniform random search."""
    return RandomSampler(seed=seed)


def gp(seed: int, distributions: Distributions) -> BaseSampler:
    """A Gaussian process with expected improvement; learns from complete trials only."""
    return GPSampler(
        seed=seed, n_startup_trials=NUM_STARTUP_TRIALS, warn_independent_sampling=False
    )


def cmaes(seed: int, distributions: Distributions) -> BaseSampler:
    """CMA-ES over the ranges; choices and subsets, which it cannot handle, are drawn at random."""
    _check_package("cmaes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Early stopping leaves 1 of 3 trials complete. Without the pruned ones a generation would
        # take 3 times as long.
        return CmaEs(seed=seed, warn_independent_sampling=False, consider_pruned_trials=True)


def nsga2(seed: int, distributions: Distributions) -> BaseSampler:
    """NSGA-II: generations of 8, bred from the Pareto front so far; learns from complete trials."""
    return NSGAIISampler(seed=seed, population_size=POPULATION)


def grid(seed: int, distributions: Distributions) -> BaseSampler:
    """Every combination once. Raises ConfigError for a continuous range."""
    continuous = [
        name for name, distribution in distributions.items() if num_values(distribution) is None
    ]
    if continuous:
        raise ConfigError(
            [
                f"search: {name}: sampler 'grid' needs a finite range; add step: ..., or use "
                "choice: [...]"
                for name in continuous
            ]
        )
    return Grid(seed, distributions)


class Tpe(TPESampler):
    """Optuna's TPE with a fixed space: Optuna would derive it from all trials at every draw."""

    def __init__(self, seed: int, distributions: Distributions) -> None:
        # group=False: every trial of a study has every param here, so there is only one group
        super().__init__(
            seed=seed, n_startup_trials=NUM_STARTUP_TRIALS, multivariate=True, constant_liar=True
        )
        in_order = dict(sorted(distributions.items()))
        self._space = _without_single_values(in_order)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """Return all params with more than one value, in the order of their names."""
        return self._space


class CmaEs(CmaEsSampler):
    """Optuna's CMA-ES, with draws that do not depend on the number of trials in the study.

    A rebuilt study has fewer trials, since it lacks the rejected draws.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Distributions
    ) -> Params:
        """Return the draw as if the trial were the first: its seed depends on its number."""
        first = copy.copy(trial)
        first.number = 0
        return super().sample_relative(study, first, search_space)


class Grid(BaseSampler):
    """Draws the first combination not yet in the study, from number `seed` on, wrapping around.

    Optuna's own GridSampler and BruteForceSampler call `Study.stop` after the last trial, which
    raises outside `Study.optimize`. GridSampler also numbers combinations by trials, and those
    numbers shift in a rebuilt study.
    """

    def __init__(self, seed: int, distributions: Distributions) -> None:
        self._distributions = distributions
        counts = map(num_values, distributions.values())
        self._start = seed % math.prod(count or 1 for count in counts)
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """Return all params with more than one value."""
        return _without_single_values(self._distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Distributions
    ) -> Params:
        """Return the next combination.

        Empty once all were tried: Optuna then draws at random.
        """
        tried = {
            _key(other.params)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
        }
        for params in walk(self._distributions, self._start):
            if _key(params) not in tried:
                return params
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _without_single_values(distributions: Distributions) -> Distributions:
    return {
        name: distribution
        for name, distribution in distributions.items()
        if not distribution.single()
    }


def _key(params: Params) -> frozenset[tuple[str, Any]]:
    return frozenset(params.items())


def _check_package(sampler: str) -> None:
    """Raise ConfigError where the package that a sampler needs is not installed."""
    package = traits_of(sampler).package
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"tune.sampler: '{sampler}' needs the package '{package}', not installed: "
            f"pip install attnfd-ray[{sampler}]"
        )
