"""What every method in the registry's table promises; a new method joins by being there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.config.schema import MethodSettings, ModelSettings
from attnfd_ray.distill.batch_sums import BatchSums
from attnfd_ray.distill.method import BatchNormStats, Networks
from attnfd_ray.models import SegmentationModel, TapRecorder, build_model

NUM_CLASSES = 5
METHODS = sorted(registry.TABLES["method"])
WEIGHTED = [
    name for name in METHODS if "loss_weight" in registry.load("method", name).Settings.model_fields
]
# what has no default
NEEDED = {"sum": {"terms": [{"name": "kd", "weight": 1}, {"name": "cwd_feature", "weight": 50}]}}
# under whose names the terms are, where not the method's own
HEADS = {"sum": {"kd", "cwd_feature"}}
# settings with which equal features have the distance 0, connectors aside
NO_GATES = {"student_gate": "identity", "teacher_gate": "identity", "train_channel_mlp": True}
# whose connectors are not all that stands between equal features: a generator fills in what a mask
# took away
NEVER_EQUAL = {"mgd"}
EQUAL = {name: NO_GATES for name in METHODS if name.startswith("attnfd")}


@cache
def network(width: float) -> SegmentationModel:
    torch.manual_seed(int(8 * width))
    return build_model(
        ModelSettings(backbone="resnet18", width=width), num_classes=NUM_CLASSES
    ).eval()


def student_network() -> SegmentationModel:
    return network(0.125)


def teacher_network() -> SegmentationModel:
    return network(0.25)


def labels() -> Tensor:
    """Four 33x33 label maps, unevenly ignored."""
    drawn = torch.randint(NUM_CLASSES, (4, 33, 33), generator=torch.Generator().manual_seed(1))
    drawn[0, :20], drawn[2, 5:] = 255, 255
    return drawn


def features(model: SegmentationModel, taps: tuple[str, ...]) -> dict[str, Tensor]:
    recorder = TapRecorder(model, taps)
    with torch.no_grad():
        model(torch.rand((4, 3, 33, 33), generator=torch.Generator().manual_seed(0)))
    found = recorder.features
    recorder.close()
    return found


@dataclass
class Case:
    """A method as its own defaults make it, between a small student and a wider teacher."""

    name: str
    kind: Any

    def settings(self, **changes: Any) -> MethodSettings:
        settings: MethodSettings = self.kind.Settings.model_validate(
            NEEDED.get(self.name, {}) | changes
        )
        return settings

    def make(
        self, seed: int = 0, student: SegmentationModel | None = None, **changes: Any
    ) -> nn.Module:
        """Make it between `student`, or the narrow one, and the teacher."""
        networks = Networks(
            student_channels=(student or student_network()).tap_channels(),
            teacher_channels=teacher_network().tap_channels() if self.kind.needs_teacher else {},
            teacher_norms=norms(teacher_network()) if self.kind.needs_teacher else {},
            num_classes=NUM_CLASSES,
        )
        torch.manual_seed(seed)
        method: nn.Module = self.kind(self.settings(**changes), networks)
        return method

    @property
    def taps(self) -> tuple[str, ...]:
        taps: tuple[str, ...] = self.kind.taps(self.settings())
        return taps

    def student(self) -> dict[str, Tensor]:
        return {
            tap: feature.requires_grad_()
            for tap, feature in features(student_network(), self.taps).items()
        }

    def teacher(self) -> dict[str, Tensor]:
        return features(teacher_network(), self.taps) if self.kind.needs_teacher else {}


def norms(model: SegmentationModel) -> dict[str, BatchNormStats]:
    found = {tap: model.last_norm(tap) for tap in model.taps}
    return {
        tap: BatchNormStats(scale=norm.weight.detach(), shift=norm.bias.detach())
        for tap, norm in found.items()
        if norm
    }


def total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([torch.zeros(()), *terms.values()]).sum()


def seeded(method: nn.Module, *arguments: Any) -> dict[str, Tensor]:
    """Call a method that may draw random numbers, always the same ones."""
    torch.manual_seed(7)
    terms: dict[str, Tensor] = method(*arguments)
    return terms


@pytest.fixture(params=METHODS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param, registry.load("method", request.param))


def test_the_table_is_not_empty() -> None:
    assert len(METHODS) >= 13


class TestEveryMethod:
    def test_its_settings_survive_a_round_trip_and_carry_its_name(self, case: Case) -> None:
        assert case.settings().name == case.name
        assert (
            case.kind.Settings.model_validate(case.settings().model_dump(mode="json"))
            == case.settings()
        )

    def test_it_wants_taps_that_networks_have_and_a_teacher_only_if_it_listens_to_one(
        self, case: Case
    ) -> None:
        assert set(case.taps) <= set(student_network().taps)
        assert len(set(case.taps)) == len(case.taps)
        if case.kind.needs_teacher:
            assert case.taps

    def test_its_terms_are_named_finite_scalars(self, case: Case) -> None:
        terms = case.make().train()(case.student(), case.teacher(), labels())
        assert bool(terms) == case.kind.needs_teacher
        assert "cross_entropy" not in terms
        for name, term in terms.items():
            assert name.split("/")[0] in HEADS.get(case.name, {case.name})
            assert term.shape == ()
            assert term.isfinite()

    def test_every_parameter_that_learns_gets_a_gradient_and_so_does_the_student(
        self, case: Case
    ) -> None:
        method, student = case.make().train(), case.student()
        loss = total(method(student, case.teacher(), labels()))
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        learning = {
            name: parameter
            for name, parameter in method.named_parameters()
            if parameter.requires_grad
        }
        for name, tensor in (learning | student).items():
            assert tensor.grad is not None, name
            assert tensor.grad.isfinite().all(), name

    def test_it_leaves_the_features_it_was_given_as_they_were(self, case: Case) -> None:
        student, teacher = case.student(), case.teacher()
        before = {side: {tap: feature.clone() for tap, feature in given.items()}
                  for side, given in (("student", student), ("teacher", teacher))}  # fmt: skip
        case.make().train()(student, teacher, labels())
        for side, given in (("student", student), ("teacher", teacher)):
            assert all(torch.equal(feature, before[side][tap]) for tap, feature in given.items())

    def test_it_is_the_same_after_a_round_trip_through_its_state(self, case: Case) -> None:
        first, second = case.make(seed=1), case.make(seed=2)
        first.train()(
            case.student(), case.teacher(), labels()
        )  # moves whatever statistics there are
        second.load_state_dict(first.state_dict())
        terms, again = (
            seeded(method.eval(), case.student(), case.teacher(), labels())
            for method in (first, second)
        )
        assert terms.keys() == again.keys()
        assert all(torch.equal(term, again[name]) for name, term in terms.items())

    def test_its_terms_do_not_depend_on_how_the_batch_is_cut_unless_it_says_that_the_cut_matters(
        self, case: Case
    ) -> None:
        # in eval mode: what a BatchNorm of the method makes of a part is not what it makes of the
        # whole
        method, student, teacher = case.make().eval(), case.student(), case.teacher()
        whole = {
            name: term.item() for name, term in seeded(method, student, teacher, labels()).items()
        }
        pieced = dict.fromkeys(whole, 0.0)
        sums, parts = BatchSums(lambda total: total, num_workers=1), (slice(0, 1), slice(1, 4))
        cuts = [[{tap: feature[part] for tap, feature in given.items()} for given in (student, teacher)]
                for part in parts]  # fmt: skip
        if method.uses_batch_sums:
            for part, cut in zip(parts, cuts, strict=True):
                with torch.no_grad(), sums.collecting():
                    seeded(method, *cut, labels()[part])
            sums.all_collected()
        for part, cut in zip(parts, cuts, strict=True):
            share = len(range(4)[part]) / 4
            with sums.part(share):
                for name, term in seeded(method, *cut, labels()[part]).items():
                    pieced[name] += share * term.item()
        assert (pieced != pytest.approx(whole, rel=1e-5)) == method.depends_on_batch  # float32

    def test_no_gradient_reaches_the_teacher(self, case: Case) -> None:
        teacher = {tap: feature.requires_grad_() for tap, feature in case.teacher().items()}
        loss = total(case.make().train()(case.student(), teacher, labels()))
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        assert all(feature.grad is None for feature in teacher.values())

    @pytest.mark.parametrize("case", sorted({*METHODS} - NEVER_EQUAL), indirect=True)
    def test_a_student_that_is_the_teacher_has_nothing_to_learn(self, case: Case) -> None:
        method = case.make(student=teacher_network(), **EQUAL.get(case.name, {})).eval()
        for module in method.modules():
            if isinstance(connectors := getattr(module, "connectors", None), nn.ModuleDict):
                connectors.update({layer: nn.Identity() for layer in connectors})
        noise = {
            tap: feature + torch.randn_like(feature) for tap, feature in case.teacher().items()
        }
        equal, unlike = (
            seeded(method, side, case.teacher(), labels()) for side in (case.teacher(), noise)
        )
        # float32; and some published forms add a little to a norm, so that equal is not quite equal
        assert all(abs(term.item()) <= 1e-4 * unlike[name].item() for name, term in equal.items())

    @pytest.mark.parametrize("size", [(5, 12), (17, 17)])
    def test_a_student_of_another_height_and_width_is_brought_to_the_teachers(
        self, case: Case, size: tuple[int, int]
    ) -> None:
        student = {
            tap: F.interpolate(feature.detach(), size).requires_grad_()
            for tap, feature in case.student().items()
        }
        loss = total(case.make().train()(student, case.teacher(), labels()))
        assert loss.isfinite()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        assert all(
            feature.grad is not None and feature.grad.isfinite().all()
            for feature in student.values()
        )

    @pytest.mark.parametrize("case", WEIGHTED, indirect=True)
    def test_its_terms_grow_with_its_loss_weight(self, case: Case) -> None:
        light, heavy = (
            seeded(case.make(loss_weight=weight).eval(), case.student(), case.teacher(), labels())
            for weight in (1.0, 3.0)
        )
        assert light.keys() == heavy.keys()
        assert all(
            heavy[name].item() == pytest.approx(3 * light[name].item(), rel=1e-5) for name in light
        )  # float32

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_it_is_finite_at_half_precision(self, case: Case, dtype: torch.dtype) -> None:
        method = case.make().train()
        with torch.autocast("cpu", dtype=dtype):
            student = {
                tap: feature.detach().to(dtype).requires_grad_()
                for tap, feature in case.student().items()
            }
            teacher = {tap: feature.to(dtype) for tap, feature in case.teacher().items()}
            loss = total(method(student, teacher, labels()))
        assert loss.isfinite()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        for tensor in (*student.values(), *method.parameters()):
            assert tensor.grad is None or tensor.grad.isfinite().all()
