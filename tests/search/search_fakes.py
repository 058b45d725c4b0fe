"""Experiments with a fake network and a fake method, so that these tests need no torch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attnfd_ray.config.schema import ExperimentSettings, MethodSettings
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion
from attnfd_ray.terms import State

LAYERS = ["stage3", "stage4", "aspp", "decoder"]
SPACE: dict[str, Any] = {
    "method.layers": {"subset": LAYERS, "min": 1},
    "method.reduction_ratio": {"choice": [4, 8, 16, 32]},
    "method.loss_weight": {"float": [0.1, 100], "log": True},
}


class FakeArch:
    tap_names = LAYERS


class FakeMethod:
    needs_teacher = False

    class Settings(MethodSettings):
        layers: list[str] = ["aspp"]
        parts: list[str] = ["p0"]
        reduction_ratio: int = 16
        loss_weight: float = 2.0


class Weightless:
    needs_teacher = False

    class Settings(MethodSettings):
        pass


def experiment(
    search: dict[str, Any] | None = None,
    *,
    epochs: int = 9,
    method: dict[str, Any] | None = None,
    **tune: Any,
) -> ExperimentSettings:
    return ExperimentSettings.model_validate(
        {
            "experiment": "fake",
            "data": {"name": "camvid", "root": "/nowhere", "crop": [8, 8]},
            "student": {"arch": "search_fakes:FakeArch"},
            "method": {"name": "search_fakes:FakeMethod", **(method or {})},
            "train": {"epochs": epochs},
            "search": SPACE if search is None else search,
            "tune": tune,
        }
    )


def past(
    suggestion: Suggestion, state: str = "COMPLETE", scores: list[float] | tuple[float, ...] = ()
) -> PastTrial:
    """Return the trial as the store would, with these scores at epochs 1, 2, ..."""
    return PastTrial(
        trial_id=suggestion.trial_id,
        role=suggestion.role,
        values=suggestion.values,
        state=state,  # type: ignore[arg-type]
        seed=suggestion.settings.train.seed,
        epochs=list(enumerate(scores, start=1)),
    )


def run(plan: SearchPlan, suggestion: Suggestion, scores: list[float]) -> PastTrial:
    """Report the scores until the plan stops the trial, and finish it.

    Return it as the store would.
    """
    for epoch, score in enumerate(scores, start=1):
        if plan.report(suggestion.trial_id, epoch, score).stop:
            plan.finish(suggestion.trial_id, "PRUNED", score)
            return past(suggestion, "PRUNED", scores[:epoch])
    plan.finish(suggestion.trial_id, "COMPLETE", scores[-1])
    return past(suggestion, "COMPLETE", scores)


Lived = dict[
    str, tuple[Suggestion, str, list[float]]
]  # by trial id: what was tried, how it stands, its curve


def killed_again_and_again(
    rebuilt: Callable[[list[PastTrial]], SearchPlan],
    curve_of: Callable[[Suggestion], list[float]],
    rng: random.Random,
) -> Lived:
    """Run a search to its end, with three trials at a time, one epoch after another in any order.

    A kill forgets everything that is not stored, including a trial that was just handed out.
    """
    stored: Lived = {}
    plan, live, num_kills = rebuilt([]), dict[str, Suggestion](), 0

    def killed() -> SearchPlan:
        live.clear()
        return rebuilt([past(*row) for row in stored.values()])

    while not plan.is_done or live:
        if rng.random() < 0.1:
            plan, num_kills = killed(), num_kills + 1
        while len(live) < 3 and (suggestion := plan.next()) is not None:
            if rng.random() < 0.1:
                plan, num_kills = killed(), num_kills + 1
                continue
            known = stored.setdefault(suggestion.trial_id, (suggestion, "RUNNING", []))
            assert known[:2] == (suggestion, "RUNNING")
            live[suggestion.trial_id] = suggestion
        trial_id = rng.choice(sorted(live))
        suggestion, _, curve = stored[trial_id]
        whole = curve_of(suggestion)
        if len(curve) < len(whole):
            curve.append(whole[len(curve)])
        stop = plan.report(trial_id, len(curve), curve[-1]).stop
        if stop or len(curve) == len(whole):
            state: State = "PRUNED" if stop else "COMPLETE"
            plan.finish(trial_id, state, curve[-1])
            stored[trial_id] = (live.pop(trial_id), state, curve)
    assert num_kills > 0
    return stored
