"""What proposes the next configuration: each function makes one of Optuna's samplers from a seed.
No torch, no ray.

The plan makes a fresh sampler for every draw, seeded by the number of the trial, so that a search
rebuilt from its store draws what an uninterrupted one would. A sampler therefore keeps what it
knows in the study, not in itself. For cmaes and nsga2 that holds with `concurrent: 1` only: what
they draw depends on which trials had ended when each one began, and a rebuilt study takes them one
after another. The trials that ended teach them either way.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from collections.abc import Mapping
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

from attnfd_ray.errors import ConfigError
from attnfd_ray.search.distributions import num_values, walk

NUM_STARTUP_TRIALS = 8  # drawn at random before a model of the results is worth having
# Parents of a generation of nsga2, and how many trials make one. Fixed, for a search may be given
# more trials later.
POPULATION = 8

Distributions = Mapping[str, BaseDistribution]


def tpe(seed: int, distributions: Distributions) -> BaseSampler:
    """Tree-structured Parzen estimators over all settings jointly; running trials count as poor
    ones.
    """
    return Tpe(seed, distributions)


def random(seed: int, distributions: Distributions) -> BaseSampler:
    """Every configuration alike."""
    return RandomSampler(seed=seed)


def gp(seed: int, distributions: Distributions) -> BaseSampler:
    """A Gaussian process with expected improvement; learns from complete trials only."""
    return GPSampler(
        seed=seed, n_startup_trials=NUM_STARTUP_TRIALS, warn_independent_sampling=False
    )


def cmaes(seed: int, distributions: Distributions) -> BaseSampler:
    """CMA-ES over the ranges; choices and subsets are drawn at random, which it cannot handle."""
    _require("cmaes", sampler="cmaes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Of 3 trials early stopping leaves 1 complete: without the pruned ones a generation takes 3
        # times as long.
        return CmaEs(seed=seed, warn_independent_sampling=False, consider_pruned_trials=True)


def nsga2(seed: int, distributions: Distributions) -> BaseSampler:
    """NSGA-II: generations of 8 bred from the front of those before; learns from complete trials
    only.
    """
    return NSGAIISampler(seed=seed, population_size=POPULATION)


def grid(seed: int, distributions: Distributions) -> BaseSampler:
    """Every combination once. Raises ConfigError for a range of real numbers without steps."""
    endless = [
        name for name, distribution in distributions.items() if num_values(distribution) is None
    ]
    if endless:
        raise ConfigError(
            [
                f"search: {name}: sampler 'grid' needs a finite range; add step: ..., or use "
                "choice: [...]"
                for name in endless
            ]
        )
    return Grid(seed, distributions)


class Tpe(TPESampler):
    """Optuna's, told the space: it would work it out from every trial of the study, again for every
    draw.
    """

    def __init__(self, seed: int, distributions: Distributions) -> None:
        # group=False: every trial of a study has every param here, so there are no groups to tell
        # apart.
        super().__init__(
            seed=seed, n_startup_trials=NUM_STARTUP_TRIALS, multivariate=True, constant_liar=True
        )
        self._space = {
            name: distributions[name]
            for name in sorted(distributions)
            if not distributions[name].single()
        }

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all that there is to choose, in the order of names."""
        return self._space


class CmaEs(CmaEsSampler):
    """Optuna's, whose draw also depends on how many trials the study has: a rebuilt one lacks the
    rejected draws.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the draw of the trial as if it were the first; its seed is its own already."""
        first = copy.copy(trial)
        first.number = 0
        return super().sample_relative(study, first, search_space)


class Grid(BaseSampler):
    """The first combination no trial of the study has had, counted from number `seed`, wrapping
    round.

    Optuna's own GridSampler and BruteForceSampler call `Study.stop` when told the last trial, which
    raises outside `Study.optimize`; and the former numbers combinations by trials, which a rebuilt
    study would shift.
    """

    def __init__(self, seed: int, distributions: Distributions) -> None:
        self._distributions = dict(distributions)
        self._start = seed % math.prod(
            num_values(distribution) or 1 for distribution in distributions.values()
        )
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all that there is to choose."""
        return {
            name: distribution
            for name, distribution in self._distributions.items()
            if not distribution.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next combination; nothing once all were tried, and Optuna then draws at
        random.
        """
        tried = {
            _key(other.params)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
        }
        return next(
            (
                params
                for params in walk(self._distributions, self._start)
                if _key(params) not in tried
            ),
            {},
        )

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _key(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(params.items())


def _require(package: str, *, sampler: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"tune.sampler: '{sampler}' needs the package '{package}', not installed: pip install "
            f"attnfd-ray[{sampler}]"
        )
