"""What every method in the registry's table promises; a new method joins by being there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod
from attnfd_ray.distill.method import Method
from attnfd_ray.errors import ConfigError
from attnfd_ray.testing.methods import MethodContract

METHODS = sorted(registry.TABLES["method"])
# settings without a default
NEEDED = {"sum": {"terms": [{"name": "kd", "weight": 1}, {"name": "cwd_feature", "weight": 50}]}}
# first words of the names of terms, where they differ from the method's own name
TERM_NAMES = {"sum": {"kd", "cwd_feature"}}
# settings under which equal features have the distance 0, connectors aside
NO_GATES = {"student_gate": "identity", "teacher_gate": "identity", "train_channel_mlp": True}
FOR_EQUAL: dict[str, Mapping[str, Any] | None] = {
    "attnfd": NO_GATES,
    "attnfd_paper": NO_GATES,
    "attnfd_release": NO_GATES,
    "mgd": None,  # a generator fills in what a mask removed, so features are never equal
}


def test_the_table_is_not_empty() -> None:
    assert len(METHODS) >= 13


class TestEveryMethod(MethodContract):
    @pytest.fixture(autouse=True, params=METHODS)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        name = self.method = request.param
        self.settings = NEEDED.get(name, {})
        self.term_names = TERM_NAMES.get(name, {name})
        self.settings_for_equal = FOR_EQUAL.get(name, {})


# A method as a user writes it: it keeps the contract, and the contract finds mistakes in it.


class Own(LayerwiseMethod):
    """Mean absolute difference of features."""

    class Settings(LayerSettings):
        layers: list[str] = ["decoder"]
        loss_weight: float = 1.0

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        return nn.Conv2d(student_channels, teacher_channels, 1)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return F.l1_loss(student_NCHW.float(), teacher_NCHW.float())


class TestOwn(MethodContract):
    method = f"{__name__}:Own"


class LearningTeacher(Own):
    def forward(self, student, teacher, labels_NHW):
        terms = super().forward(student, teacher, labels_NHW)
        return {"own/teacher": teacher["decoder"].mean(), **terms}


class Vector(Own):
    def distance(self, student_NCHW, teacher_NCHW):
        return super().distance(student_NCHW, teacher_NCHW)[None]


class Unused(Own):
    def __init__(self, settings, networks):
        super().__init__(settings, networks)
        self.unused = nn.Parameter(torch.zeros(1))


class InPlace(Own):
    def distance(self, student_NCHW, teacher_NCHW):
        return super().distance(student_NCHW, teacher_NCHW.mul_(2))


class SumOverBatch(Own):
    def distance(self, student_NCHW, teacher_NCHW):
        return len(student_NCHW) * super().distance(student_NCHW, teacher_NCHW)


class Unweighted(Own):
    def forward(self, student, teacher, labels_NHW):
        terms = super().forward(student, teacher, labels_NHW)
        return {name: term / self.settings.loss_weight for name, term in terms.items()}


class Overflowing(Own):
    def distance(self, student_NCHW, teacher_NCHW):
        return (1e6 * (student_NCHW - teacher_NCHW)).square().mean()


@pytest.mark.parametrize(
    ("kind", "test", "problem"),
    [
        (LearningTeacher, "no_gradient_reaches_the_teacher", "teacher's feature at decoder"),
        (Vector, "its_terms_are_named_finite_scalars", r"has shape \[1\]; needs a scalar"),
        (
            Unused,
            "every_parameter_that_learns_gets_a_gradient_and_so_does_the_student",
            "unused gets no gradient",
        ),
        (
            InPlace,
            "it_leaves_the_features_that_it_is_given_as_they_are",
            "the teacher's features were changed in place",
        ),
        (
            SumOverBatch,
            "its_terms_change_with_the_cut_of_a_batch_only_if_it_says_so",
            "depends_on_batch is False",
        ),
        (Unweighted, "its_terms_are_proportional_to_its_loss_weight", "at loss_weight 3"),
        (Overflowing, "it_is_finite_in_half_precision", "in torch.float16"),
    ],
)
def test_a_mistake_in_a_method_is_found(kind: type, test: str, problem: str) -> None:
    contract = MethodContract()
    contract.method = f"{__name__}:{kind.__name__}"
    with pytest.raises(AssertionError, match=problem):
        getattr(contract, f"test_{test}")()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("resting", "frozen_prefixes"),
        ("cut_matters", "depends_on_batch"),
        ("divides_by_batch", "loss_over_batch_size"),
    ],
)
def test_a_method_with_a_name_of_an_earlier_version_is_refused_with_the_new_name(
    old: str, new: str
) -> None:
    with pytest.raises(ConfigError, match=f"Mine.{old} is now called {new}; rename it"):
        type("Mine", (Method,), {old: True})
