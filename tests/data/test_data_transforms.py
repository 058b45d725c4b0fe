"""Image and mask stay aligned, masks stay masks, and the generator is the only randomness."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.loading.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    eval_transform,
    normalised,
    train_transform,
)

Settings = Callable[..., DataSettings]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a blocky image and its mask; the red channel gives the label: label = red / 20."""
    coarse = rng(seed).integers(0, 12, (-(-height // 8), -(-width // 8)))
    label = np.kron(coarse, np.ones((8, 8), np.int64))[:height, :width].astype(np.uint8)
    return torch.from_numpy(np.stack([label * 20] * 3)), torch.from_numpy(label)


def red(image_3HW: torch.Tensor) -> torch.Tensor:
    return image_3HW[0].float()


def test_a_view_is_bytes_and_as_large_as_the_crop(make: Settings) -> None:
    image, label = train_transform(
        *sample(50, 70), make(crop=(24, 40), scale=(0.5, 2.0), blur=0.5), rng()
    )
    assert (image.dtype, label.dtype) == (torch.uint8, torch.uint8)
    assert (image.shape, label.shape) == ((3, 24, 40), (24, 40))
    assert image.is_contiguous()
    assert label.is_contiguous()


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_are_transformed_alike(make: Settings, seed: int) -> None:
    data = make(crop=(40, 40), scale=(0.6, 2.0), flip=0.5, pad_label=255)
    image, label = train_transform(*sample(56, 64, seed), data, rng(seed))
    inside = label != 255
    right = (red(image) / 20).round().long() == label
    # Pixels on the border of two blocks are mixed. Blocks are at least 5 pixels wide at the
    # smallest scale.
    assert right[inside].float().mean() > 0.55
    wrong_way = (red(image).flip(-1) / 20).round().long() == label
    assert right[inside].float().mean() > wrong_way[inside].float().mean() + 0.2


@pytest.mark.parametrize("seed", range(6))
def test_no_resize_makes_a_class_that_was_not_there(make: Settings, seed: int) -> None:
    label = torch.zeros((37, 53), dtype=torch.uint8)
    label[:, 20:] = 200
    label[10:20] = 255
    data = make(crop=(48, 48), scale=(0.3, 3.0), input_scale=0.7, pad_label=255)
    _, seen = train_transform(torch.zeros((3, 37, 53), dtype=torch.uint8), label, data, rng(seed))
    assert set(seen.unique().tolist()) <= {0, 200, 255}


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(8, 8, 0.5), (37, 53, 0.61), (19, 31, 1.7), (16, 16, 3.0)]
)
def test_masks_are_resized_as_pillow_does_nearest(
    make: Settings, height: int, width: int, factor: float
) -> None:
    label = torch.from_numpy(rng().integers(0, 255, (height, width), np.uint8))
    size = (round(height * factor), round(width * factor))
    data = make(crop=size, scale=(factor, factor))
    _, seen = train_transform(
        torch.zeros((3, height, width), dtype=torch.uint8), label, data, rng()
    )
    pillow = Image.fromarray(label.numpy()).resize(size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(seen.numpy(), np.asarray(pillow))


def test_images_are_shrunk_as_pillow_does_with_antialias(make: Settings) -> None:
    image = torch.from_numpy(rng().integers(0, 256, (3, 40, 60), np.uint8))
    seen, _ = eval_transform(image, torch.zeros((40, 60), dtype=torch.uint8), make(input_scale=0.3))
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
        (18, 12), Image.Resampling.BILINEAR
    )
    # both round to whole grey levels, at different steps
    np.testing.assert_allclose(red(seen).numpy(), np.asarray(pillow)[..., 0], atol=1.01)


@pytest.mark.parametrize("pad_label", [255, 0, 7])
def test_padding_is_right_and_below_and_next_to_the_mean(make: Settings, pad_label: int) -> None:
    image, label = (
        torch.full((3, 10, 20), 9, dtype=torch.uint8),
        torch.full((10, 20), 3, dtype=torch.uint8),
    )
    padded, labels = train_transform(image, label, make(crop=(16, 32), pad_label=pad_label), rng())
    outside = torch.ones((16, 32), dtype=torch.bool)
    outside[:10, :20] = False
    assert bool((labels[outside] == pad_label).all())
    assert (
        float(normalised(padded)[:, outside].abs().max()) < 0.5 / 255 / 0.224
    )  # half a grey level of the mean
    assert bool((labels[~outside] == 3).all())
    assert torch.equal(padded[:, :10, :20], image)


def test_padding_is_ignored_by_default(make: Settings) -> None:
    _, label = train_transform(*sample(10, 10), make(crop=(32, 32)), rng())
    assert int((label == 255).sum()) == 32 * 32 - 10 * 10
    loss = torch.nn.functional.cross_entropy(
        torch.zeros(1, 12, 32, 32), label[None].long(), ignore_index=255, reduction="sum"
    )
    assert loss.item() == pytest.approx(100 * np.log(12), rel=1e-5)


def test_a_blur_does_not_carry_padding_into_the_image(make: Settings) -> None:
    image, label = (
        torch.full((3, 10, 20), 200, dtype=torch.uint8),
        torch.zeros((10, 20), dtype=torch.uint8),
    )
    seen, _ = train_transform(image, label, make(crop=(16, 32), blur=1.0), rng())
    assert torch.equal(seen[:, :10, :20], image)


def test_a_blur_smooths_the_image_and_leaves_the_mask(make: Settings) -> None:
    image = torch.from_numpy(rng().integers(0, 256, (3, 32, 32), np.uint8))
    label = torch.from_numpy(rng().integers(0, 12, (32, 32), np.uint8))
    roughness = []
    for seed in range(20):
        seen, seen_label = train_transform(image, label, make(crop=(32, 32), blur=1.0), rng(seed))
        assert torch.equal(seen_label, label)
        roughness.append(
            float(seen.float().diff().abs().mean() / image.float().diff().abs().mean())
        )
    assert min(roughness) < 0.4  # sigma near 1
    assert max(roughness) > 0.9  # sigma near 0


@pytest.mark.parametrize("size", [(40, 31), (3, 50), (1, 7)])
def test_a_blur_is_torchvisions_to_a_grey_level(make: Settings, size: tuple[int, int]) -> None:
    image, label = (
        torch.from_numpy(rng().integers(0, 256, (3, *size), np.uint8)),
        torch.zeros(size, dtype=torch.uint8),
    )
    for seed in range(20):
        seen, _ = train_transform(image, label, make(crop=size, blur=1.0), rng(seed))
        drawn = rng(seed)
        drawn.uniform(1.0, 1.0), drawn.integers(1), drawn.integers(1), drawn.random()
        sigma = 1 - drawn.random()
        reach = min(math.ceil(3 * sigma), *(side - 1 for side in size))
        theirs = gaussian_blur(image, [2 * reach + 1] * 2, [sigma, sigma])
        assert (
            int((seen.int() - theirs.int()).abs().max()) <= 1
        )  # two passes of float32 may round differently


@pytest.mark.parametrize("crop", [(1, 1), (1, 9), (3, 2)])
def test_the_smallest_crops_can_be_blurred(make: Settings, crop: tuple[int, int]) -> None:
    image, _ = train_transform(*sample(20, 20), make(crop=crop, blur=1.0, scale=(0.01, 2.0)), rng())
    assert image.shape == (3, *crop)


def test_a_flip_mirrors_both(make: Settings) -> None:
    data = make(crop=(24, 40))
    image, label = train_transform(*sample(24, 40), data, rng())
    mirrored, mirrored_label = train_transform(
        *sample(24, 40), data.model_copy(update={"flip": 1.0}), rng()
    )
    assert torch.equal(mirrored, image.flip(-1))
    assert torch.equal(mirrored_label, label.flip(-1))


@pytest.mark.parametrize(("base", "expected"), [(None, (30, 45)), (40, (60, 90))])
def test_the_scale_is_of_the_image_or_of_its_short_side(
    make: Settings, base: int | None, expected: tuple[int, int]
) -> None:
    data = make(crop=(100, 100), scale=(1.5, 1.5), scale_base=base)
    _, label = train_transform(*sample(20, 30), data, rng())
    inside = (label != 255).nonzero().max(0).values + 1
    assert tuple(inside.tolist()) == expected


def test_scales_and_positions_cover_their_ranges(make: Settings) -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(100, 100).contiguous()
    image = torch.stack([ramp] * 3)
    data = make(crop=(10, 10))
    lefts = [int(train_transform(image, ramp, data, rng(seed))[1][0, 0]) for seed in range(300)]
    assert min(lefts) <= 3
    assert max(lefts) >= 87
    assert max(lefts) <= 90
    data = make(crop=(200, 200), scale=(0.5, 2.0))
    sizes = [
        int((train_transform(image, ramp, data, rng(seed))[1][0] != 255).sum())
        for seed in range(100)
    ]
    assert 50 <= min(sizes) <= 56
    assert 194 <= max(sizes) <= 200


def test_the_same_generator_gives_the_same_view_and_global_ones_are_unused(
    make: Settings,
) -> None:
    data = make(crop=(24, 24), scale=(0.5, 2.0), flip=0.5, blur=0.5)
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second, other = (train_transform(*sample(40, 40), data, rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()


def test_scoring_shrinks_the_image_and_never_the_mask(make: Settings) -> None:
    image, label = sample(45, 61)
    seen, labels = eval_transform(image, label, make(input_scale=0.5))
    assert (seen.dtype, labels.dtype) == (torch.uint8, torch.uint8)
    assert seen.shape == (3, 22, 30)
    assert torch.equal(labels, label)
    assert torch.equal(eval_transform(image, label, make())[0], image)


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((45, 61), (90, 90), (90, 122)),
        ((61, 45), (30, 40), (40, 30)),
        ((20, 20), (20, 40), (20, 20)),
    ],
)
def test_resized_scoring_gives_image_and_mask_the_short_side_of_the_crop(
    make: Settings, size: tuple[int, int], crop: tuple[int, int], expected: tuple[int, int]
) -> None:
    image, label = sample(*size)
    seen, labels = eval_transform(image, label, make(crop=crop, evaluation="resized"))
    assert (seen.dtype, labels.dtype) == (torch.uint8, torch.uint8)
    assert (tuple(seen.shape), tuple(labels.shape)) == ((3, *expected), expected)
    assert set(labels.unique().tolist()) <= set(
        label.unique().tolist()
    )  # no class that is not in the mask


def test_resized_scoring_to_twice_the_size_doubles_every_pixel_of_the_mask(make: Settings) -> None:
    image, label = sample(45, 61)
    _, labels = eval_transform(image, label, make(crop=(90, 90), evaluation="resized"))
    assert torch.equal(labels, label.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_training_sees_the_resolution_that_is_scored(make: Settings) -> None:
    image, label = sample(40, 60)
    data = make(crop=(20, 30), input_scale=0.5)
    torch.testing.assert_close(
        train_transform(image, label, data, rng())[0], eval_transform(image, label, data)[0]
    )


def test_normalising_is_imagenets() -> None:
    image = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1)[:, None]
    expected = [
        [(value - mean) / std for value in (0, 1)]
        for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    torch.testing.assert_close(normalised(image)[:, 0], torch.tensor(expected))
