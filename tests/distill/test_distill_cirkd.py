"""CIRKD: its distances on small features, worked out by hand, and the content of its memory."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.distill.cirkd import (
    CIRKD,
    cross_image_distance,
    memory_distance,
    pooled,
    some_pixels,
)
from attnfd_ray.distill.class_queue import ClassQueue
from attnfd_ray.distill.method import Networks

NETWORKS = Networks(student_channels={"decoder": 3}, teacher_channels={"decoder": 4}, num_classes=3)
SMALL = {
    "pixel_queue": 6,
    "region_queue": 4,
    "pixels_per_image": 2,
    "pixel_samples": 9,
    "region_samples": 6,
}


def features(seed: int, channels: int, size: int = 4) -> Tensor:
    return torch.randn((2, channels, size, size), generator=torch.Generator().manual_seed(seed))


def labels(*classes: int) -> Tensor:
    """Two 16 x 16 label maps of four quarters each."""
    return torch.tensor(classes).view(2, 2, 2).repeat_interleave(8, 1).repeat_interleave(8, 2)


LABELS = labels(0, 0, 2, 255, 0, 2, 2, 255)  # class 1 never comes


def make(**changes: Any) -> CIRKD:
    torch.manual_seed(0)
    return CIRKD(CIRKD.Settings(**({"memory": True} | SMALL | changes)), NETWORKS)


def step(method: CIRKD, seed: int, given: Tensor = LABELS) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    terms: dict[str, Tensor] = method(
        {"decoder": features(seed, 3)}, {"decoder": features(seed + 50, 4)}, given
    )
    return terms


def softmax(*logits: float) -> list[float]:
    return [exp(value) / sum(map(exp, logits)) for value in logits]


def divergence(teacher: list[float], student: list[float]) -> float:
    return sum(t * log(t / s) for t, s in zip(teacher, student, strict=True))


def images_of(*rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """Make images of height 1, a pixel's channels at a time."""
    return torch.tensor(rows, dtype=torch.float64).transpose(1, 2)[:, :, None]


def test_the_distance_across_images_is_the_one_worked_out_by_hand() -> None:
    student = images_of(((2, 0), (0, 3)), ((1, 0), (1, 0)))
    teacher = images_of(((1, 0), (0, 1)), ((0, 4), (5, 0)))
    near, far, same = (
        softmax(2, 0),
        softmax(0, 2),
        softmax(2, 2),
    )  # cosines of 1 and 0 at temperature 1/2
    # image 1 seen from image 1: like the teacher. Image 2 from the pixels of image 1, then of image
    # 2:
    across = divergence(far, same) + divergence(near, [0.5, 0.5])
    within = divergence(near, same) + divergence(far, same)
    # and image 1 from the pixels of image 2: student (1, 0), (1, 0), teacher (0, 1), (1, 0)
    back = divergence(far, near) + 0
    expected = (0 + across / 2 + within / 2 + back / 2) / 4
    assert cross_image_distance(student, teacher, temperature=0.5).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_scaling_the_student_changes_nothing_and_equals_have_no_distance() -> None:
    student, teacher = features(0, 3).double(), features(1, 4).double()
    distance = cross_image_distance(student, teacher, temperature=0.1).item()
    assert cross_image_distance(7 * student, teacher, temperature=0.1).item() == pytest.approx(
        distance, rel=1e-12
    )
    assert cross_image_distance(student, student, temperature=0.1) == 0
    assert distance > 0


def test_the_distance_with_respect_to_a_memory_is_the_one_worked_out_by_hand() -> None:
    student, teacher = images_of(((1, 0), (0, 1), (1, 1))), images_of(((0, 2), (0, 1), (1, 0)))
    entries = torch.tensor([[1.0, 0], [0.6, 0.8], [9, 9]], dtype=torch.float64)
    known, labelled = torch.tensor([True, True, False]), torch.tensor([[[True, True, False]]])
    # at temperature 1/2: student's first pixel (2, 1.2), second (0, 1.6); teacher's (0, 1.6) twice
    expected = (divergence(softmax(0, 1.6), softmax(2, 1.2)) + 0) / 2
    distance = memory_distance(
        student, teacher, entries, known, labelled_NHW=labelled, temperature=0.5
    )
    assert distance.item() == pytest.approx(expected, abs=1e-12)


def test_ignored_pixels_have_no_part_in_the_memory() -> None:
    method = make()
    whole = step(method, 1)
    assert method.memories["decoder"].get_submodule("pixels").get_buffer("pushed").tolist() == [
        4,
        0,
        4,
    ]
    method = make()
    torch.manual_seed(1)
    student, teacher = features(1, 3), features(51, 4)
    hidden = (LABELS[:, ::4, ::4] == 255)[:, None]
    # the same but for the teacher's features of ignored pixels
    other = method({"decoder": student}, {"decoder": torch.where(hidden, 3.0, teacher)}, LABELS)
    for part in ("pixels", "regions"):
        assert torch.equal(whole[f"cirkd/decoder/{part}"], other[f"cirkd/decoder/{part}"])
    assert not torch.equal(whole["cirkd/decoder"], other["cirkd/decoder"])


def test_where_nothing_is_labelled_the_memory_stays_empty_and_teaches_nothing() -> None:
    method = make()
    terms = step(method, 1, torch.full_like(LABELS, 255))
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert terms["cirkd/decoder/pixels"] == terms["cirkd/decoder/regions"] == 0
    assert all(
        parameter.grad is not None and (parameter.grad == 0).all()
        for parameter in method.parameters()
    )
    assert not any(
        buffer.any()
        for name, buffer in method.named_buffers()
        if name.endswith((".entries", ".pushed"))
    )


def test_the_memory_holds_unit_pixels_of_a_class_and_the_mean_of_each_image() -> None:
    method = make(pixels_per_image=100, pixel_queue=100)
    step(method, 1)
    memory = method.memories["decoder"]
    units = F.normalize(features(51, 4), dim=1)
    own = LABELS[:, ::4, ::4] == 2
    pixels = units.movedim(1, -1)[own]
    kept = memory.get_submodule("pixels").get_buffer("entries")[2, : len(pixels)]
    assert {tuple(row) for row in kept.tolist()} == {tuple(row) for row in pixels.tolist()}
    means = torch.stack([units[image][:, own[image]].mean(dim=1) for image in range(2)])
    torch.testing.assert_close(
        memory.get_submodule("regions").get_buffer("entries")[2, :2], F.normalize(means, dim=1)
    )  # float32


def test_the_memory_takes_in_nothing_when_it_is_only_asked() -> None:
    method = make().eval()
    step(method, 1)
    assert not any(
        buffer.any() for name, buffer in method.named_buffers() if name.endswith(".pushed")
    )


def test_a_memory_of_a_checkpoint_goes_on_as_if_never_stopped() -> None:
    straight, stopped = make(), make()
    for seed in (1, 2, 3):
        step(straight, seed)
        step(stopped, seed)
    resumed = make()
    resumed.load_state_dict(stopped.state_dict())
    for seed in (4, 5):
        ours, theirs = step(straight, seed), step(resumed, seed)
        assert all(torch.equal(term, theirs[name]) for name, term in ours.items())
    state = resumed.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in straight.state_dict().items())
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in make().state_dict().items()
    }


def test_a_step_draws_as_many_of_each_class_as_the_paper_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: list[int] = []
    draw = ClassQueue.draw

    def counted(queue: ClassQueue, count: int) -> tuple[Tensor, Tensor]:
        counts.append(count)
        return draw(queue, count)

    monkeypatch.setattr(ClassQueue, "draw", counted)
    step(make(pixel_samples=4096, region_samples=1024), 1)
    assert counts == [4096 // 3 + 1, 1024 // 3 + 1]


def test_some_pixels_of_a_class_are_drawn_without_repetition_the_same_after_reseeding() -> None:
    values = torch.arange(32.0).view(2, 1, 4, 4)
    given = torch.tensor([[0, 0, 1, 255]]).repeat(4, 1).repeat(2, 1, 1)
    torch.manual_seed(3)
    entries, present = some_pixels(values, given, num_classes=3, most=5)
    assert (entries.shape, present.sum(dim=0).tolist()) == ((10, 3, 1), [10, 8, 0])
    taken = entries[:, 0, 0][present[:, 0]].tolist()
    assert len(set(taken)) == 10
    assert all(value % 4 < 2 for value in taken)
    torch.manual_seed(3)
    assert torch.equal(some_pixels(values, given, num_classes=3, most=5)[0], entries)
    assert not torch.equal(some_pixels(values, given, num_classes=3, most=5)[0], entries)


def test_terms_carry_their_weights() -> None:
    light, heavy = (
        step(make(), 1),
        step(make(loss_weight=2, pixel_weight=0.3, region_weight=0.5), 1),
    )
    assert list(light) == ["cirkd/decoder", "cirkd/decoder/pixels", "cirkd/decoder/regions"]
    for name, factor in zip(light, (2, 2 * 3, 2 * 5), strict=True):
        assert heavy[name].item() == pytest.approx(factor * light[name].item(), rel=1e-5)  # float32


def test_everything_of_the_memory_that_learns_gets_a_gradient_and_the_teacher_none() -> None:
    method, teacher = make(), features(1, 4).requires_grad_()
    student = F.interpolate(features(0, 3), (3, 5)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method({"decoder": student}, {"decoder": teacher}, LABELS)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert teacher.grad is None
    assert student.grad is not None
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_without_a_memory_nothing_beside_the_student_learns_or_is_stored() -> None:
    method = make(memory=False)
    assert method.state_dict() == {}
    assert list(step(method, 1)) == ["cirkd/decoder"]


@pytest.mark.parametrize(
    ("size", "expected"), [((4, 4), (4, 4)), ((9, 3), (4, 3)), ((8, 12), (4, 4))]
)
def test_large_features_are_averaged_to_the_largest_size(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    given = torch.randn(1, 2, *size)
    assert pooled(given, 4).shape[-2:] == expected
    # parts are equal where a side divides evenly, and then the mean stays
    if size == (8, 12):
        assert pooled(given, 4).mean().item() == pytest.approx(
            given.mean().item(), abs=1e-6
        )  # float32


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0},
        {"max_size": 0},
        {"pixel_queue": 0},
        {"pixel_weight": -1},
        {"loss_weight": -1},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CIRKD.Settings(**changes)
