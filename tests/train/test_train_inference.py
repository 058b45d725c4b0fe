"""Class scores of an image from windows, scales and mirror images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.train.inference import class_scores, stride


def data(**changes: Any) -> DataSettings:
    return DataSettings(**{"name": "toyscenes", "root": "unused", "crop": (8, 12), **changes})


class Seen(nn.Module):
    """Returns its input as scores, and records it."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Tensor] = []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.images.append(images_NCHW)
        return images_NCHW


def image(height: int, width: int) -> Tensor:
    return torch.randn((2, 3, height, width), generator=torch.Generator().manual_seed(0))


def test_one_view_is_the_network_s_own_answer() -> None:
    seen, images = Seen(), image(20, 30)
    assert class_scores(seen, images, data(), size=(20, 30)) is images
    assert len(seen.images) == 1


@pytest.mark.parametrize(
    ("height", "width"), [(8, 12), (9, 12), (20, 31), (5, 40), (3, 3), (16, 24)]
)
@pytest.mark.parametrize("steps", [None, (8, 12), (3, 5), (1, 12)])
def test_windows_are_as_large_as_the_crop_and_cover_every_pixel(
    height: int, width: int, steps: tuple[int, int] | None
) -> None:
    seen, images = Seen(), image(height, width)
    scores = class_scores(
        seen, images, data(evaluation="sliding", eval_stride=steps), size=(height, width)
    )
    # the scores of a pixel are the same in each window; float32 sums of up to 32 of them
    torch.testing.assert_close(scores, images, rtol=1e-5, atol=1e-6)
    assert {tuple(window.shape[-2:]) for window in seen.images} == {(8, 12)}


def test_windows_that_overlap_count_alike() -> None:
    class FirstThenSecond(nn.Module):
        calls = 0.0

        def forward(self, images_NCHW: Tensor) -> Tensor:
            self.calls += 1
            return torch.full_like(images_NCHW, self.calls)

    scores = class_scores(
        FirstThenSecond(),
        image(8, 18),
        data(evaluation="sliding", eval_stride=(8, 6)),
        size=(8, 18),
    )
    assert scores[0, 0, 0].tolist() == [1.0] * 6 + [1.5] * 6 + [2.0] * 6


def test_the_stride_is_two_thirds_of_the_window_unless_told() -> None:
    assert stride(data(crop=(513, 769))) == (342, 513)
    assert stride(data(eval_stride=(4, 5), evaluation="sliding")) == (4, 5)


def test_a_mirrored_answer_is_mirrored_back() -> None:
    class Left(nn.Module):
        """Predicts class 1 in the left half of its input, with high confidence, and 0 elsewhere."""

        def forward(self, images_NCHW: Tensor) -> Tensor:
            logits = torch.zeros(1, 2, *images_NCHW.shape[-2:])
            logits[:, 1, :, : images_NCHW.shape[-1] // 2] = 2.0
            return logits

    scores = class_scores(Left(), image(4, 6)[:1], data(eval_flip=True), size=(4, 6))
    p = torch.tensor(2.0).sigmoid().item()
    torch.testing.assert_close(
        scores[0, 1, 0], torch.full((6,), p + 0.5)
    )  # both halves are the left one once


def test_scales_add_probabilities_at_the_size_of_the_label() -> None:
    class BySize(nn.Module):
        def forward(self, images_NCHW: Tensor) -> Tensor:
            height, width = images_NCHW.shape[-2:]
            return torch.tensor([0.0, float(height)]).view(1, 2, 1, 1).expand(1, 2, height, width)

    scores = class_scores(
        BySize(), image(10, 20)[:1], data(eval_scales=[0.5, 1.0, 1.5]), size=(7, 9)
    )
    assert scores.shape == (1, 2, 7, 9)
    expected = sum(torch.tensor([0.0, height]).softmax(0) for height in (5.0, 10.0, 15.0))
    torch.testing.assert_close(scores[0, :, 3, 3], expected)


def test_probabilities_are_added_in_full_precision_under_autocast() -> None:
    network = nn.Conv2d(3, 5, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(image(4, 6)).dtype is torch.bfloat16
        assert (
            class_scores(network, image(4, 6), data(eval_flip=True), size=(4, 6)).dtype
            is torch.float32
        )
