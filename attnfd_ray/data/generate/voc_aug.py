"""Makes Pascal VOC's augmented training set, trainaug, from VOC 2012 and the masks of SBD."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.data.files import Bytes, few, read_list, read_mask
from attnfd_ray.data.loading.process_pool import open_pool, pool_size
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError, RunFailed

_HOMES = ("", "dataset", "benchmark_RELEASE/dataset")
_LISTS = "ImageSets/Segmentation"
_MASKS = "SegmentationClassAug"
_NEEDED = "needed is GTcls with an 8-bit Segmentation of classes 0..20: unpack SBD again"
_MAX_CLASS = 20
_PALETTE = [value for colour in voc_colormap() for value in colour]

OnMask = Callable[[int], None]
"""Called with the number of masks done."""

_Source = tuple[str, Path]
"""The id of a mask, and the file it is made from."""


@dataclass(frozen=True)
class Trainaug:
    """What to write in `home`, which is VOC2012.

    `trainaug` are the ids of VOC's train and all of SBD without VOC's val. `aug` are those of them
    without a mask in VOC. Both are sorted. `sources` maps every id in trainaug and val to the file
    of its mask, which is VOC's own where there is one.
    """

    home: Path
    trainaug: Sequence[str]
    aug: Sequence[str]
    sources: Mapping[str, Path]

    def missing_images(self) -> list[str]:
        """Return the ids of trainaug whose image VOC lacks."""
        images = self.home / "JPEGImages"
        return [name for name in self.trainaug if not (images / f"{name}.jpg").is_file()]


def plan_trainaug(
    voc: str | Path,
    sbd: str | Path,
    *,
    any_count: bool = False,
) -> Trainaug:
    """Return what to write from both sets. Writes nothing.

    `voc` is any root of VOC 2012; `sbd` is benchmark_RELEASE, its directory dataset, or the
    directory around it. DataError if one is missing or lacks files, or, without `any_count`, if the
    counts of trainaug and aug are not the published ones.
    """
    train = _open_voc(voc, "train")
    val = _open_voc(voc, "val")
    sbd = _home_of(Path(sbd).expanduser())
    in_sbd = {*_ids(sbd, "train"), *_ids(sbd, "val")}
    sources = {name: sbd / f"cls/{name}.mat" for name in in_sbd}
    sources |= _own_masks(train)
    sources |= _own_masks(val)
    trainaug = sorted(sources.keys() - set(val.ids))
    aug = sorted(in_sbd - set(train.ids) - set(val.ids))
    if not any_count:
        _check_counts(sbd, train.root, len(trainaug), len(aug))
    missing = [name for name in aug if not sources[name].is_file()]
    if missing:
        raise DataError(
            f"{sbd}: {len(missing)} masks cls/*.mat are missing: {few(missing)}; unpack SBD again"
        )
    home = train.paths(0)[0].parents[1]
    return Trainaug(home, trainaug, aug, dict(sorted(sources.items())))


def write_trainaug(plan: Trainaug, on_mask: OnMask = lambda done: None) -> bool:
    """Write SegmentationClassAug, trainaug.txt and aug.txt. Return False if the same exist already.

    Everything is made in a temporary directory first, so that an error changes nothing. Other
    processes read the masks. DataError if an existing file differs, or a mask cannot be read.
    """
    lists = {
        plan.home / _LISTS / "aug.txt": plan.aug,
        plan.home / _LISTS / "trainaug.txt": plan.trainaug,
    }
    new_lists = {path: ids for path, ids in lists.items() if not _has_list(path, ids)}
    masks = plan.home / _MASKS
    has_masks = masks.exists() and not _is_empty_directory(masks)
    if has_masks:
        _check_names(plan, masks)
        _for_each_source(_Comparison(masks), plan, on_mask)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{_MASKS}-", dir=plan.home) as temporary:
            made = Path(temporary)
            for path, ids in new_lists.items():
                text = "".join(f"{name}\n" for name in ids)
                (made / path.name).write_text(text, encoding="utf-8")
            if not has_masks:
                (made / _MASKS).mkdir()
                _for_each_source(_Making(plan.home, made / _MASKS), plan, on_mask)
                (made / _MASKS).rename(masks)
            for path in new_lists:
                (made / path.name).rename(path)
    except OSError as error:
        raise _unwritable(plan.home, error) from None
    return not has_masks or bool(new_lists)


def read_sbd_mask(path: Path) -> Bytes:
    """Return label_HW, classes 0..20, of a .mat file of SBD. DataError if it holds no such mask."""
    from scipy.io import loadmat

    try:
        label_HW = loadmat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
    except KeyError:
        raise DataError(f"{path}: has no GTcls; {_NEEDED}") from None
    except Exception as error:  # noqa: BLE001 - a damaged file leads loadmat to any exception
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); {_NEEDED}") from None
    is_image = getattr(label_HW, "dtype", None) == np.uint8 and label_HW.ndim == 2
    if not is_image or (label_HW > _MAX_CLASS).any():
        raise DataError(f"{path}: is not a mask of SBD; {_NEEDED}")
    return np.ascontiguousarray(label_HW, dtype=np.uint8)


def _open_voc(root: str | Path, split: str) -> VOC:
    """Return a split of VOC 2012. DataError names the command's options instead of settings."""
    try:
        return VOC(root, split).checked()
    except DataError as error:
        problems = []
        for text in error.problems:
            text = text.replace("set data.train_split and data.val_split", "unpack VOC 2012 again")
            problems.append(text.replace("data.root", "--voc"))
        raise DataError(problems) from None


def _own_masks(split: VOC) -> dict[str, Path]:
    """Return id -> mask file of a split of VOC."""
    return {name: split.paths(index)[1] for index, name in enumerate(split.ids)}


def _check_counts(
    sbd: Path,
    voc: Path,
    num_trainaug: int,
    num_aug: int,
) -> None:
    published_trainaug = VOC.published["trainaug"]
    published_aug = VOC.published["aug"]
    if num_trainaug != published_trainaug or num_aug != published_aug:
        raise DataError(
            f"{sbd}: with {voc} this makes {num_trainaug} images of trainaug and {num_aug} of aug; "
            f"needed are {published_trainaug} and {published_aug}: complete both sets, or take "
            "cut ones with --any-count"
        )


def _home_of(root: Path) -> Path:
    """Return the directory with cls and the lists of SBD."""
    for home in _HOMES:
        if all((root / home / name).exists() for name in ("cls", "train.txt", "val.txt")):
            return root / home
    raise DataError(
        f"{root}: no SBD here; needed are cls, train.txt and val.txt in it or in "
        f"{' or '.join(_HOMES[1:])}: give the directory that holds benchmark_RELEASE"
    )


def _ids(sbd: Path, split: str) -> list[str]:
    path = sbd / f"{split}.txt"
    ids = read_list(path, root=sbd)
    wrong = [name for name in ids if PurePosixPath(name).name != name]
    if wrong:
        raise DataError(
            f"{path}: {few(wrong)} are not ids; needed is the name of a file in cls without .mat "
            "on each line"
        )
    return ids


def _has_list(path: Path, ids: Sequence[str]) -> bool:
    """Return whether a list exists. DataError if it has other ids."""
    if not path.exists():
        return False
    if sorted(read_list(path, root=path.parent)) != ids:
        raise DataError(
            f"{path}: exists and lists other images; needed is none, or one with the same images: "
            "move it away"
        )
    return True


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _for_each_source(
    task: Callable[[_Source], None],
    plan: Trainaug,
    on_mask: OnMask,
) -> None:
    """Run a task on every source in other processes: a damaged file can crash loadmat.

    DataError names a file that ends its process.
    """
    sources = list(plan.sources.items())
    num_done = 0
    try:
        with open_pool(task, max(1, pool_size(len(sources)))) as pool:
            for _ in pool.map(sources):
                num_done += 1
                on_mask(num_done)
        return
    except RunFailed:
        # One of several files ended a process, or memory was short. Read one by one, the file is
        # known, if it was a file.
        pass
    with open_pool(task, 1) as pool:
        for source in sources[num_done:]:
            num_done += 1
            try:
                list(pool.map([source]))
            except RunFailed:
                _, path = source
                raise DataError(
                    f"{path}: cannot be read (the process that read it died); {_NEEDED}"
                ) from None
            on_mask(num_done)


@dataclass(frozen=True)
class _Making:
    """Writes the mask of a source to a directory, which is in `home`."""

    home: Path
    directory: Path

    def __call__(self, source: _Source) -> None:
        name, path = source
        target = self.directory / f"{name}.png"
        try:
            if path.suffix == ".png":
                shutil.copyfile(path, target)
            else:
                mask = Image.fromarray(read_sbd_mask(path))
                mask.putpalette(_PALETTE)
                mask.save(target)
        except OSError as error:
            raise _unwritable(self.home, error) from None


@dataclass(frozen=True)
class _Comparison:
    """Raises DataError unless the mask of a source in a directory equals it in all pixels."""

    directory: Path

    def __call__(self, source: _Source) -> None:
        name, path = source
        target = self.directory / f"{name}.png"
        read = read_mask if path.suffix == ".png" else read_sbd_mask
        if not np.array_equal(read_mask(target), read(path)):
            raise DataError(
                f"{target}: exists and differs from {path}; needed is none, or the same mask: "
                f"move {_MASKS} away"
            )


def _check_names(plan: Trainaug, directory: Path) -> None:
    """Raise DataError unless the directory has a mask of every source."""
    missing = [name for name in plan.sources if not (directory / f"{name}.png").is_file()]
    if missing:
        raise DataError(
            f"{directory}: exists and lacks {len(missing)} of {len(plan.sources)} masks: "
            f"{few(missing)}; needed is none, or a complete directory: move it away"
        )


def _unwritable(home: Path, error: OSError) -> DataError:
    return DataError(
        f"{home}: cannot be written ({error}); check who may write there, and the free space"
    )
