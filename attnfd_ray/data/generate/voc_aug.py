"""Makes Pascal VOC's augmented training set, trainaug, of VOC 2012 and the masks of SBD."""

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
from attnfd_ray.data.loading.process_pool import crew, crew_size
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError, RunFailed

_HOMES = ("", "dataset", "benchmark_RELEASE/dataset")
_LISTS = "ImageSets/Segmentation"
_MASKS = "SegmentationClassAug"
_NEEDED = "needed is GTcls with an 8-bit Segmentation of classes 0..20: unpack SBD again"
_PALETTE = [value for colour in voc_colormap() for value in colour]

OnMask = Callable[[int], None]
_Source = tuple[str, Path]
"""The id of a mask and the file it is made of."""


@dataclass(frozen=True)
class Trainaug:
    """What there is to make in `home`, which is VOC2012.

    `trainaug` are the ids of VOC's train and all of SBD without VOC's val, `aug` those of them that
    VOC has no mask for; both are sorted. `sources` has the file of every mask by id, VOC's own
    where there is one: trainaug's and val's.
    """

    home: Path
    trainaug: Sequence[str]
    aug: Sequence[str]
    sources: Mapping[str, Path]

    def missing_images(self) -> list[str]:
        """Return the ids of trainaug whose image VOC lacks."""
        return [
            name for name in self.trainaug if not (self.home / f"JPEGImages/{name}.jpg").is_file()
        ]


def plan_trainaug(voc: str | Path, sbd: str | Path, *, any_count: bool = False) -> Trainaug:
    """Return what there is to make of both sets; writes nothing.

    `voc` is any root of VOC 2012, `sbd` is benchmark_RELEASE, its directory dataset, or what holds
    it. DataError if one is not there or lacks files, or, unless `any_count`, if trainaug and aug
    have other than the published counts.
    """
    train, val = _voc(voc, "train"), _voc(voc, "val")
    sbd = _home_of(Path(sbd).expanduser())
    in_sbd = {*_ids(sbd, "train"), *_ids(sbd, "val")}
    sources = {i: sbd / f"cls/{i}.mat" for i in in_sbd}
    sources |= {
        split.ids[index]: split.paths(index)[1]
        for split in (train, val)
        for index in range(len(split))
    }
    trainaug = sorted(sources.keys() - set(val.ids))
    aug = sorted(in_sbd - set(train.ids) - set(val.ids))
    needed = VOC.published["trainaug"], VOC.published["aug"]
    if (len(trainaug), len(aug)) != needed and not any_count:
        raise DataError(
            f"{sbd}: with {train.root} this makes {len(trainaug)} images of trainaug and "
            f"{len(aug)} of aug; needed are "
            f"{needed[0]} and {needed[1]}: complete both sets, or take cut ones with --any-count"
        )
    missing = [name for name in aug if not sources[name].is_file()]
    if missing:
        raise DataError(
            f"{sbd}: {len(missing)} masks cls/*.mat are missing: {few(missing)}; unpack SBD again"
        )
    return Trainaug(train.paths(0)[0].parents[1], trainaug, aug, dict(sorted(sources.items())))


def write_trainaug(plan: Trainaug, on_mask: OnMask = lambda done: None) -> bool:
    """Write SegmentationClassAug, trainaug.txt and aug.txt; return False if they are there already,
    the very same.

    All is made aside first, so that nothing is changed if anything goes wrong. `on_mask` hears how
    many masks are done. Masks are read by other processes. DataError if one of them is there and
    differs, or a mask cannot be read.
    """
    lists = {
        plan.home / _LISTS / "aug.txt": plan.aug,
        plan.home / _LISTS / "trainaug.txt": plan.trainaug,
    }
    new_lists = {path: ids for path, ids in lists.items() if not _is_there(path, ids)}
    masks = plan.home / _MASKS
    has_masks = masks.exists() and not (masks.is_dir() and not any(masks.iterdir()))
    if has_masks:
        _check_names(plan, masks)
        _each(_Comparison(masks), plan, on_mask)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{_MASKS}-", dir=plan.home) as aside:
            made = Path(aside)
            for path, ids in new_lists.items():
                (made / path.name).write_text(
                    "".join(f"{name}\n" for name in ids), encoding="utf-8"
                )
            if not has_masks:
                (made / _MASKS).mkdir()
                _each(_Making(plan.home, made / _MASKS), plan, on_mask)
                (made / _MASKS).rename(masks)
            for path in new_lists:
                (made / path.name).rename(path)
    except OSError as error:
        raise _unwritable(plan.home, error) from None
    return not has_masks or bool(new_lists)


def read_sbd_mask(path: Path) -> Bytes:
    """Return label_HW, classes 0..20, of a file of SBD's cls; DataError if there is no such mask in
    it.
    """
    from scipy.io import loadmat

    try:
        label_HW = loadmat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
    except KeyError:
        raise DataError(f"{path}: has no GTcls; {_NEEDED}") from None
    except Exception as error:  # noqa: BLE001 - a damaged file takes loadmat anywhere, to a division by zero too
        raise DataError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); {_NEEDED}"
        ) from None
    if getattr(label_HW, "dtype", None) != np.uint8 or label_HW.ndim != 2 or (label_HW > 20).any():
        raise DataError(f"{path}: is no mask of SBD; {_NEEDED}")
    return np.ascontiguousarray(label_HW, dtype=np.uint8)


def _voc(root: str | Path, split: str) -> VOC:
    """Return a split of VOC 2012; DataError in terms of the command, which has no settings of a
    dataset.
    """
    try:
        return VOC(root, split).checked()
    except DataError as error:
        lists = ("set data.train_split and data.val_split", "unpack VOC 2012 again")
        raise DataError(
            [text.replace(*lists).replace("data.root", "--voc") for text in error.problems]
        ) from None


def _home_of(root: Path) -> Path:
    """Return where cls and the lists of SBD are."""
    for home in _HOMES:
        if all((root / home / name).exists() for name in ("cls", "train.txt", "val.txt")):
            return root / home
    raise DataError(
        f"{root}: no SBD here; needed are cls, train.txt and val.txt in it or in "
        f"{' or '.join(_HOMES[1:])}: "
        "give the directory that holds benchmark_RELEASE"
    )


def _ids(sbd: Path, split: str) -> list[str]:
    path = sbd / f"{split}.txt"
    ids = read_list(path, root=sbd)
    wrong = [name for name in ids if PurePosixPath(name).name != name]
    if wrong:
        raise DataError(
            f"{path}: {few(wrong)} are no ids; needed is the name of a file in cls without .mat "
            "on each line"
        )
    return ids


def _is_there(path: Path, ids: Sequence[str]) -> bool:
    """Return whether a list is there; DataError if it has other ids."""
    if not path.exists():
        return False
    if sorted(read_list(path, root=path.parent)) != ids:
        raise DataError(
            f"{path}: is there and lists other images; needed is none, or the same ones: move it "
            "away"
        )
    return True


def _each(job: Callable[[_Source], None], plan: Trainaug, on_mask: OnMask) -> None:
    """Do the job on every source in other processes, since loadmat may take the one that reads a
    damaged file down.

    DataError names such a file.
    """
    sources, done = list(plan.sources.items()), 0
    try:
        with crew(job, max(1, crew_size(len(sources)))) as processes:
            for done, _ in enumerate(processes.map(sources), start=1):
                on_mask(done)
        return
    except RunFailed:
        # that of several files at once; one by one it is known which, if any: memory may have been
        # short
        pass
    with crew(job, 1) as processes:
        for number, source in enumerate(sources[done:], start=done + 1):
            try:
                list(processes.map([source]))
            except RunFailed:
                raise DataError(
                    f"{source[1]}: cannot be read (the process that tried died); {_NEEDED}"
                ) from None
            on_mask(number)


@dataclass(frozen=True)
class _Making:
    """Makes the mask of a source in a directory, which is in `home`."""

    home: Path
    directory: Path

    def __call__(self, source: _Source) -> None:
        name, path = source
        try:
            if path.suffix == ".png":
                shutil.copyfile(path, self.directory / f"{name}.png")
            else:
                mask = Image.fromarray(read_sbd_mask(path))
                mask.putpalette(_PALETTE)
                mask.save(self.directory / f"{name}.png")
        except OSError as error:
            raise _unwritable(self.home, error) from None


@dataclass(frozen=True)
class _Comparison:
    """Raises DataError unless a directory has the mask of a source, with the same values in all
    pixels.
    """

    directory: Path

    def __call__(self, source: _Source) -> None:
        name, path = source
        label_HW = read_mask(path) if path.suffix == ".png" else read_sbd_mask(path)
        if not np.array_equal(read_mask(self.directory / f"{name}.png"), label_HW):
            raise DataError(
                f"{self.directory / f'{name}.png'}: is there and is not {path}; needed is none, "
                "or the same mask: move "
                f"{_MASKS} away"
            )


def _check_names(plan: Trainaug, directory: Path) -> None:
    """Raise DataError unless the directory has a mask of every source."""
    missing = [name for name in plan.sources if not (directory / f"{name}.png").is_file()]
    if missing:
        raise DataError(
            f"{directory}: is there and lacks {len(missing)} of {len(plan.sources)} masks: "
            f"{few(missing)}; needed is "
            "none, or a whole one: move it away"
        )


def _unwritable(home: Path, error: OSError) -> DataError:
    return DataError(
        f"{home}: cannot be written ({error}); check who may write there, and for space"
    )
