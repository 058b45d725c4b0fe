"""The contract of distillation methods, as tests that run on any method."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from attnfd_ray.testing.method_case import (
    Features,
    MethodCase,
    backward,
    in_two_parts,
    labels,
    seeded,
    student_network,
    teacher_network,
)

RESERVED_NAMES = {"cross_entropy", "distillation"}


class MethodContract:
    """Checks that a class keeps the contract of `attnfd_ray.distill.method.Method`.

    Derive a test class and set its attributes:

    - `method`: the name in settings, a registered one or `package.module:Class`.
    - `settings`: settings without a default, and others to test with.
    - `term_names`: first words of the names of its terms; by default, any word.
    - `settings_for_equal`: settings under which equal features have distance 0, connectors aside.
      None for a method without such settings.

        class TestMyLoss(MethodContract):
            method = "mypackage.losses:MyLoss"
            settings = {"layers": ["stage4"]}
    """

    method: str
    settings: ClassVar[Mapping[str, Any]] = {}
    term_names: ClassVar[Collection[str] | None] = None
    settings_for_equal: ClassVar[Mapping[str, Any] | None] = {}

    @property
    def case(self) -> MethodCase:
        """The method between two small networks."""
        return MethodCase(name=self.method, given=self.settings)

    def test_its_settings_survive_a_round_trip_and_carry_its_name(self) -> None:
        """What the store keeps gives the same settings again."""
        settings = self.case.settings()
        assert settings.name == self.method
        stored = settings.model_dump(mode="json")
        again = self.case.kind.Settings.model_validate(stored)
        assert again == settings, "settings change when they are written and read"

    def test_it_reads_taps_that_networks_have_each_once(self) -> None:
        """DeepLabV3+ has the taps of its default settings."""
        taps = self.case.taps
        unknown = set(taps) - set(student_network().taps)
        assert not unknown, f"DeepLabV3+ has no taps {unknown}"
        assert len(set(taps)) == len(taps), f"a tap is there twice in {taps}"
        if self.case.kind.needs_teacher:
            assert taps, "a method that needs a teacher reads at least one tap"

    def test_its_terms_are_named_finite_scalars(self) -> None:
        """Loss terms can be added up, stored and plotted."""
        case = self.case
        method = case.make().train()
        terms = method(case.student(), case.teacher(), labels())
        assert bool(terms) == case.kind.needs_teacher
        assert not terms.keys() & RESERVED_NAMES, f"{RESERVED_NAMES} are names of other terms"
        for name, term in terms.items():
            assert term.shape == (), f"{name} has shape {list(term.shape)}; needs a scalar"
            assert term.isfinite(), f"{name} is {term.item()}"
            if self.term_names is not None:
                assert name.split("/")[0] in self.term_names

    def test_every_parameter_that_learns_gets_a_gradient_and_so_does_the_student(self) -> None:
        """Several workers cannot average gradients that never come."""
        case = self.case
        method = case.make().train()
        student = case.student()
        backward(method(student, case.teacher(), labels()))
        for name, tensor in [*method.named_parameters(), *student.items()]:
            if tensor.requires_grad:
                assert tensor.grad is not None, f"{name} gets no gradient"
                assert tensor.grad.isfinite().all(), f"{name} gets a gradient that is not finite"

    def test_it_leaves_the_features_that_it_is_given_as_they_are(self) -> None:
        """Another method of a `sum` reads the same tensors."""
        case = self.case
        student = case.student()
        teacher = case.teacher()
        student_before = _copied(student)
        teacher_before = _copied(teacher)
        case.make().train()(student, teacher, labels())
        assert _equal(student, student_before), "the student's features were changed in place"
        assert _equal(teacher, teacher_before), "the teacher's features were changed in place"

    def test_it_is_the_same_after_a_round_trip_through_its_state(self) -> None:
        """A resumed run has the method of the stopped one."""
        case = self.case
        student = case.student()
        teacher = case.teacher()
        first = case.make(seed=1)
        second = case.make(seed=2)
        first.train()(student, teacher, labels())  # changes running statistics
        second.load_state_dict(first.state_dict())
        terms = seeded(first.eval(), student, teacher, labels())
        again = seeded(second.eval(), student, teacher, labels())
        assert terms.keys() == again.keys()
        assert _equal(terms, again), "state_dict() does not hold all of the method's state"

    def test_its_terms_change_with_the_cut_of_a_batch_only_if_it_says_so(self) -> None:
        """`depends_on_batch` is True exactly where cutting a batch changes the loss.

        In eval mode, since BatchNorm of a part differs from BatchNorm of the whole.
        """
        case = self.case
        method = case.make().eval()
        student = case.student()
        teacher = case.teacher()
        whole = seeded(method, student, teacher, labels())
        pieced = in_two_parts(method, student, teacher, labels())
        is_same = all(_is_close(pieced[name], term.item()) for name, term in whole.items())
        assert is_same != method.depends_on_batch, (
            f"depends_on_batch is {method.depends_on_batch}, but cut in two parts the terms are "
            f"{pieced}, and {whole} for the whole batch"
        )

    def test_no_gradient_reaches_the_teacher(self) -> None:
        """The teacher never learns."""
        case = self.case
        method = case.make().train()
        teacher = case.teacher()
        for feature in teacher.values():
            feature.requires_grad_()
        backward(method(case.student(), teacher, labels()))
        for tap, feature in teacher.items():
            assert feature.grad is None, f"detach() the teacher's feature at {tap}"

    def test_a_student_that_equals_the_teacher_has_nothing_to_learn(self) -> None:
        """Equal features have no distance, apart from rounding."""
        if self.settings_for_equal is None:
            return
        case = self.case
        method = case.make(student=teacher_network(), **self.settings_for_equal)
        method.eval()
        _remove_connectors(method)
        teacher = case.teacher()
        noisy = {tap: feature + torch.randn_like(feature) for tap, feature in teacher.items()}
        equal = seeded(method, teacher, teacher, labels())
        different = seeded(method, noisy, teacher, labels())
        for name, term in equal.items():
            # float32; and some published forms add a little to a norm, so the distance is not 0
            limit = 1e-4 * different[name].item()
            assert abs(term.item()) <= limit, f"{name} is {term.item()} for equal features"

    def test_a_student_of_another_height_and_width_is_resized_to_the_teachers(self) -> None:
        """Networks with different strides can be compared."""
        case = self.case
        for size in ((5, 12), (17, 17)):
            method = case.make().train()
            student = {
                tap: F.interpolate(feature.detach(), size).requires_grad_()
                for tap, feature in case.student().items()
            }
            loss = backward(method(student, case.teacher(), labels()))
            assert loss.isfinite()
            for tap, feature in student.items():
                assert feature.grad is not None, f"the feature at {tap} gets no gradient"
                assert feature.grad.isfinite().all()

    def test_its_terms_are_proportional_to_its_loss_weight(self) -> None:
        """Only for methods that have the setting `loss_weight`."""
        case = self.case
        if "loss_weight" not in case.kind.Settings.model_fields:
            return
        student = case.student()
        teacher = case.teacher()
        light = case.make(loss_weight=1.0).eval()
        heavy = case.make(loss_weight=3.0).eval()
        light_terms = seeded(light, student, teacher, labels())
        heavy_terms = seeded(heavy, student, teacher, labels())
        assert light_terms.keys() == heavy_terms.keys()
        for name, term in light_terms.items():
            expected = 3 * term.item()
            found = heavy_terms[name].item()
            assert _is_close(found, expected), (
                f"{name} is {found} at loss_weight 3; needs 3 times that at 1, {expected}"
            )

    def test_it_is_finite_in_half_precision(self) -> None:
        """Squares and exponentials of half-precision features need `.float()` before them."""
        case = self.case
        for dtype in (torch.bfloat16, torch.float16):
            method = case.make().train()
            student = _converted(case.student(), dtype)
            teacher = _converted(case.teacher(), dtype)
            for feature in student.values():
                feature.requires_grad_()
            with torch.autocast("cpu", dtype=dtype):
                terms = method(student, teacher, labels())
            assert backward(terms).isfinite(), f"the terms are {terms} in {dtype}"
            for tensor in (*student.values(), *method.parameters()):
                assert tensor.grad is None or tensor.grad.isfinite().all(), f"in {dtype}"


def _is_close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-12)  # float32


def _converted(features: Features, dtype: torch.dtype) -> Features:
    return {tap: feature.detach().to(dtype) for tap, feature in features.items()}


def _copied(tensors: Features) -> Features:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _equal(tensors: Features, others: Features) -> bool:
    return all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def _remove_connectors(method: nn.Module) -> None:
    """Replace connectors, where modules have the attribute of that name, by identities."""
    for module in method.modules():
        connectors = getattr(module, "connectors", None)
        if isinstance(connectors, nn.ModuleDict):
            connectors.update({layer: nn.Identity() for layer in connectors})
