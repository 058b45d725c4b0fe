"""Traps of resizing masks: in each test naive code is run and fails, and ours does not.

"Nearest" has two meanings: torch's `nearest` rounds down, half a pixel off from a bilinear image
and from Pillow.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as nnf
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from attnfd_ray.config.schema import DataSettings, TrainSettings
from attnfd_ray.data.loading.transforms import eval_transform, train_transform
from attnfd_ray.distill.labels import labels_at
from attnfd_ray.train.evaluate import evaluate

Settings = Callable[..., DataSettings]
ROUNDING_PX = 1 / 6  # half a grey level; neighbouring pixels of `ramp` differ by three


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wrapped(image_CHW: Tensor, label_HW: Tensor) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    return tv_tensors.Image(image_CHW), tv_tensors.Mask(label_HW)


def test_the_nearest_pixels_are_those_of_pillow_and_not_the_floor(make: Settings) -> None:
    def naive(label_HW: Tensor, size: list[int], mode: InterpolationMode) -> Tensor:
        return F.resize(tv_tensors.Mask(label_HW), size, interpolation=mode)

    label = torch.arange(8, dtype=torch.uint8).expand(8, 8).contiguous()
    image = torch.stack([label] * 3)
    pillow = np.asarray(Image.fromarray(label.numpy()).resize((4, 4), Image.Resampling.NEAREST))
    for mode in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        assert naive(label, [4, 4], mode)[0].tolist() == [0, 2, 4, 6]
    assert pillow[0].tolist() == [1, 3, 5, 7]
    for seen in (
        eval_transform(image, label, make(crop=(4, 4), evaluation="resized"))[1],
        train_transform(image, label, make(crop=(4, 4), scale=(0.5, 0.5)), rng())[1],
        train_transform(image, label, make(crop=(4, 4), input_scale=0.5), rng())[1],
    ):
        assert seen[0].tolist() == [1, 3, 5, 7]


def ramp(side: int) -> tuple[Tensor, Tensor]:
    """Return a mask whose values are the column numbers, and an image of 3 times as much."""
    label = torch.arange(side, dtype=torch.uint8).expand(side, side).contiguous()
    return torch.stack([label * 3] * 3), label


def shift_px(image_CHW: Tensor, label_HW: Tensor) -> Tensor:
    """Return how far the image is shifted right of its mask, in pixels of the unresized mask.

    The border and the padding are left out.
    """
    distance_HW = image_CHW[0].float() / 3 - label_HW.float()
    return distance_HW[3:-3, 3:-3][label_HW[3:-3, 3:-3] != 255]


@pytest.mark.parametrize("side", [16, 20, 27])
def test_a_resized_mask_stays_under_its_image(make: Settings, side: int) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> tuple[Tensor, Tensor]:
        seen: tuple[Tensor, Tensor] = v2.Resize((side, side))(*wrapped(image_CHW, label_HW))
        return seen

    image, label = ramp(80)
    # A pixel of the small image covers 80 / side pixels of the large one; the floor takes the
    # leftmost of them instead of the middle.
    assert float(shift_px(*naive(image, label)).mean()) > (80 / side - 1) / 2 - ROUNDING_PX > 0.8
    ours = shift_px(*eval_transform(image, label, make(crop=(side, side), evaluation="resized")))
    assert len(ours) == (side - 6) ** 2
    assert float(ours.abs().max()) <= 0.5 + ROUNDING_PX


@pytest.mark.parametrize("seed", range(6))
def test_a_random_view_stays_within_half_a_pixel_of_its_mask(make: Settings, seed: int) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        transform = v2.RandomResizedCrop((32, 32), scale=(0.9, 1.0), ratio=(1.0, 1.0))
        seen: tuple[Tensor, Tensor] = transform(*wrapped(image_CHW, label_HW))
        return seen

    image, label = ramp(80)
    assert float(shift_px(*naive(image, label)).mean()) > 0.5
    ours = shift_px(
        *train_transform(image, label, make(crop=(32, 32), scale=(0.4, 2.0)), rng(seed))
    )
    assert len(ours) > 200
    assert float(ours.abs().max()) <= 0.5 + ROUNDING_PX
    assert abs(float(ours.mean())) <= 0.5


@pytest.mark.parametrize("mode", [InterpolationMode.BILINEAR, InterpolationMode.NEAREST_EXACT])
def test_one_interpolation_mode_is_wrong_for_image_or_mask(
    make: Settings, mode: InterpolationMode
) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> tuple[Tensor, Tensor]:
        seen: tuple[Tensor, Tensor] = v2.Resize((4, 4), interpolation=mode)(
            *wrapped(image_CHW, label_HW)
        )
        return seen

    stripes = torch.tensor([0, 200], dtype=torch.uint8).repeat(4).expand(3, 8, 8).contiguous()
    label = torch.arange(8, dtype=torch.uint8).expand(8, 8).contiguous()
    image, mask = naive(stripes, label)
    smooth, exact = bool((image[..., 1:3] == 100).all()), mask[0].tolist() == [1, 3, 5, 7]
    assert (smooth, exact) == (
        (True, False) if mode is InterpolationMode.BILINEAR else (False, True)
    )
    image, mask = eval_transform(stripes, label, make(crop=(4, 4), evaluation="resized"))
    assert (image[..., 1:3] * 1.0 - 100).abs().max() <= 1
    assert mask[0].tolist() == [1, 3, 5, 7]


def test_a_resized_crop_of_a_mask_takes_the_floor_in_any_mode(make: Settings) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> Tensor:
        exact = InterpolationMode.NEAREST_EXACT
        transform = v2.RandomResizedCrop(
            (3, 3), scale=(1.0, 1.0), ratio=(1.0, 1.0), interpolation=exact
        )
        label: Tensor = transform(*wrapped(image_CHW, label_HW))[1]
        return label

    image, label = ramp(9)
    assert naive(image, label)[0].tolist() == [0, 3, 6]
    assert train_transform(image, label, make(crop=(3, 3), scale=(1 / 3, 1 / 3)), rng())[1][
        0
    ].tolist() == [1, 4, 7]


def test_labels_at_the_size_of_features_are_those_in_the_middle() -> None:
    def naive(labels_NHW: Tensor, size: tuple[int, int]) -> Tensor:
        return nnf.interpolate(labels_NHW[:, None].float(), size=size, mode="nearest")[:, 0].long()

    labels = torch.arange(9).expand(2, 9, 9)
    assert naive(labels, (3, 3))[0, 0].tolist() == [0, 3, 6]
    assert labels_at(labels, torch.zeros(2, 5, 3, 3))[0, 0].tolist() == [1, 4, 7]
    # A crop of 513 and the features of a decoder: the largest distance from the middle of what a
    # feature covers.
    labels, middles = (
        torch.arange(513).expand(1, 513, 513),
        (torch.arange(129) + 0.5) * 513 / 129 - 0.5,
    )
    assert float((naive(labels, (129, 129))[0, 0] - middles).abs().max()) > 1.4
    assert (
        float((labels_at(labels, torch.zeros(1, 5, 129, 129))[0, 0] - middles).abs().max()) <= 0.5
    )


def test_labels_shrunk_to_the_logits_lose_thin_objects(make: Settings) -> None:
    class Nothing(nn.Module):
        """Predicts class 0 everywhere, at a quarter of the image's size."""

        def forward(self, images_NCHW: Tensor) -> Tensor:
            height, width = images_NCHW.shape[-2:]
            return torch.tensor([1.0, 0.0])[None, :, None, None].expand(
                len(images_NCHW), 2, height // 4, width // 4
            )

    def naive(network: nn.Module, image_NCHW: Tensor, labels_NHW: Tensor) -> float:
        said_NHW = network(image_NCHW).argmax(dim=1)
        shrunk = nnf.interpolate(
            labels_NHW[:, None].float(), size=said_NHW.shape[-2:], mode="nearest-exact"
        )[:, 0]
        return float((said_NHW == shrunk).float().mean())

    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, :, 7] = 1  # a pole
    batch = torch.zeros(1, 3, 32, 32), labels
    assert naive(Nothing(), *batch) == 1.0
    ours = evaluate(
        Nothing(),
        [batch],
        num_classes=2,
        device=torch.device("cpu"),
        data=make(crop=(32, 32)),
        train=TrainSettings(epochs=1, batch_size=1),
    )
    assert ours.class_iou == [31 / 32, 0.0]
