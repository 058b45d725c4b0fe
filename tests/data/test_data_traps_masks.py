"""Traps of transforms on masks: in each test naive code is run and fails, and ours does not.

What transforms.v2 does to a mask depends on its type, so most failures are silent.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.datasets import VOCSegmentation, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.loading.loader import TrainLoader
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.data.loading.transforms import eval_transform, train_transform

Settings = Callable[..., DataSettings]
IDS = [0, 7, 19, 255]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample(height: int = 24, width: int = 36) -> tuple[Tensor, Tensor]:
    """Return a random image and a mask of blocks of IDS, 3 pixels wide.

    The first column of blocks is different, which shows a flip.
    """
    coarse = rng().choice(IDS[1:], (height // 3, width // 3))
    coarse[:, 0] = 0
    label = np.kron(coarse, np.ones((3, 3), int)).astype(np.uint8)
    return torch.from_numpy(rng().integers(0, 100, (3, height, width), np.uint8)), torch.from_numpy(
        label
    )


def as_pillow(image_CHW: Tensor, label_HW: Tensor) -> tuple[Image.Image, Image.Image]:
    return Image.fromarray(image_CHW.permute(1, 2, 0).numpy()), Image.fromarray(label_HW.numpy())


def wrapped(image_CHW: Tensor, label_HW: Tensor) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    return tv_tensors.Image(image_CHW), tv_tensors.Mask(label_HW)


def bogus(label: Any) -> set[int]:
    return set(np.unique(np.asarray(label)).tolist()) - set(IDS)


# ---- rule 1: the type of a mask


def test_a_pillow_mask_is_resized_as_an_image(make: Settings) -> None:
    def naive(image: Image.Image, mask: Image.Image) -> Image.Image:
        return v2.Resize((17, 25))(image, mask)[1]

    image, label = sample()
    assert len(bogus(naive(*as_pillow(image, label)))) > 50
    with_palette = as_pillow(image, label)[1]
    with_palette.putpalette([*range(256)] * 3)
    assert not bogus(
        naive(as_pillow(image, label)[0], with_palette)
    )  # which hides the error on VOC
    for seen in (
        eval_transform(image, label, make(crop=(17, 25), evaluation="resized"))[1],
        train_transform(image, label, make(crop=(17, 25), scale=(0.7, 0.7)), rng())[1],
    ):
        assert set(seen.unique().tolist()) == set(IDS)


@pytest.mark.parametrize(
    "transform", [v2.RandomHorizontalFlip(p=1.0), v2.Resize((12, 18)), v2.CenterCrop((8, 8))]
)
def test_a_plain_tensor_beside_an_image_is_not_transformed(
    make: Settings, transform: nn.Module
) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> tuple[Tensor, Tensor]:
        seen: tuple[Tensor, Tensor] = transform(tv_tensors.Image(image_CHW), label_HW)
        return seen

    image, label = sample()
    seen, seen_label = naive(image, label)
    assert not torch.equal(seen, image)
    assert seen_label is label

    seen, seen_label = train_transform(image, label, make(crop=(24, 36), flip=1.0), rng())
    assert torch.equal(seen.long(), image.flip(-1).long())
    assert torch.equal(seen_label.long(), label.flip(-1).long())


# ---- rules 2 and 6: padding


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomCrop((48, 48), pad_if_needed=True),
        v2.Compose(
            [
                v2.ScaleJitter((24, 24), scale_range=(0.5, 0.5)),
                v2.RandomCrop((48, 48), pad_if_needed=True),
            ]
        ),
        v2.RandomZoomOut(p=1.0, side_range=(2.0, 2.0)),
        v2.RandomRotation((45, 45)),
    ],
)
def test_padding_is_a_class_without_an_explicit_fill(make: Settings, transform: nn.Module) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> Tensor:
        label: Tensor = transform(*wrapped(image_CHW, label_HW))[1]
        return label

    image, label = (
        torch.full((3, 24, 24), 9, dtype=torch.uint8),
        torch.full((24, 24), 7, dtype=torch.uint8),
    )
    found = naive(image, label)
    assert set(found.unique().tolist()) == {
        0,
        7,
    }  # 0 is the first class, which would be learnt there
    _, found = train_transform(image, label, make(crop=(48, 48), scale=(0.5, 0.5)), rng())
    assert int((found == 7).sum()) == 12 * 12
    assert set(found.unique().tolist()) == {7, 255}


# ---- rule 4: the values of a mask


def test_a_mask_is_neither_scaled_nor_left_as_bytes(toy: Path, settings: Settings) -> None:
    def naive_fractions(mask: Image.Image) -> Tensor:
        return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])(mask).long()

    def naive_bytes(image_CHW: Tensor, label_HW: Tensor) -> Tensor:
        label: Tensor = v2.ToDtype(torch.float32, scale=True)(*wrapped(image_CHW, label_HW))[1]
        return label

    image, label = sample()
    assert set(naive_fractions(as_pillow(image, label)[1]).unique().tolist()) == {
        0,
        1,
    }  # 1 was the ignored value
    label_HW = naive_bytes(image, label)
    assert label_HW.dtype == torch.uint8
    with pytest.raises(RuntimeError, match="Byte"):
        nnf.cross_entropy(torch.zeros(1, 20, 24, 36), label_HW[None], ignore_index=255)

    _, labels = one_batch(settings(toy, "toyscenes", crop=(64, 64)))
    assert len(labels.unique()) > 4
    assert bool(nnf.cross_entropy(torch.zeros(4, 12, 64, 64), labels, ignore_index=255).isfinite())


@pytest.mark.parametrize(
    "transform", [v2.ColorJitter(brightness=(2.0, 2.0)), v2.GaussianBlur(5, sigma=2.0)]
)
def test_colours_and_blur_are_for_images(make: Settings, transform: nn.Module) -> None:
    def naive(image: Image.Image, mask: Image.Image) -> Image.Image:
        seen: Image.Image = transform(image, mask)[1]
        return seen

    image, label = sample()
    assert bogus(naive(*as_pillow(image, label)))
    seen, seen_label = train_transform(image, label, make(crop=(24, 36), blur=1.0), rng())
    assert not torch.equal(seen.long(), image.long())
    assert torch.equal(seen_label.long(), label.long())


def test_what_shows_nothing_has_no_label(make: Settings) -> None:
    def naive(image_CHW: Tensor, label_HW: Tensor) -> tuple[Tensor, Tensor]:
        transform = v2.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value=222)
        with pytest.warns(UserWarning, match="RandomErasing"):
            seen: tuple[Tensor, Tensor] = transform(*wrapped(image_CHW, label_HW))
        return seen

    image, label = sample()  # all below 100, so that erased and padded pixels can be recognised
    label[label == 255] = 7
    erased, kept = naive(image, label)
    assert bool((erased == 222).any())
    assert torch.equal(kept, label)
    seen, seen_label = train_transform(image, label, make(crop=(40, 40)), rng())
    shows_nothing = (seen[0].long() >= 100).logical_or(seen_label.long() == 255)
    assert int(shows_nothing.sum()) == 40 * 40 - 24 * 36
    assert set(seen_label[shows_nothing].unique().tolist()) == {255}


# ---- rule 5: batches


def one_batch(data: DataSettings) -> tuple[Tensor, Tensor]:
    with ReaderPool([open_dataset(data, split="train")]) as readers:
        loader = TrainLoader(
            readers.datasets[0], data, readers=readers, global_batch_size=4, seed=0
        )
        return next(iter(loader.epoch(1)))


def test_a_batch_loses_the_type_of_masks(toy: Path, settings: Settings) -> None:
    def naive(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        images, masks = default_collate([wrapped(*pair) for pair in pairs])
        assert type(masks) is Tensor
        return (masks, *v2.RandomHorizontalFlip(p=1.0)(images, masks))

    pairs = [sample(), sample()]
    before, images, labels = naive(pairs)
    assert torch.equal(images[0], pairs[0][0].flip(-1))
    assert labels is before

    plain = settings(toy, "toyscenes", crop=(64, 64), scale=(1.0, 1.0), flip=0.0)
    straight, mirrored = one_batch(plain), one_batch(plain.model_copy(update={"flip": 1.0}))
    for field, flipped in zip(straight, mirrored, strict=True):
        assert torch.equal(flipped, field.flip(-1))


def test_labels_come_without_a_channel(toy: Path, settings: Settings) -> None:
    def naive(root: Path) -> Tensor:
        theirs = wrap_dataset_for_transforms_v2(VOCSegmentation(str(root), image_set="train"))
        labels: Tensor = default_collate([theirs[index][1] for index in range(4)])
        return labels.long()

    logits = torch.zeros(4, 12, 64, 64)
    assert naive(toy).shape == (4, 1, 64, 64)
    with pytest.raises(RuntimeError, match="only batches of spatial targets supported"):
        nnf.cross_entropy(logits, naive(toy), ignore_index=255)
    _, labels = one_batch(settings(toy, "toyscenes", crop=(64, 64)))
    assert labels.shape == (4, 64, 64)
    assert bool(nnf.cross_entropy(logits, labels, ignore_index=255).isfinite())
