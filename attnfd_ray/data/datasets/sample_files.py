"""The image and mask files of a split: which exist, how large they are, when they changed.

Opens no file. No torch.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from attnfd_ray.data.files import few

_MISSING = "are missing"
_EMPTY = "are empty"
_NOT_REGULAR = "are not regular files"
_REMEDIES = {
    _MISSING: "add them or take them off the list",
    _EMPTY: "copy them again",
    _NOT_REGULAR: "put image files in their place",
}
_OTHER_REMEDY = "check who may read them and where links lead"


class Sample(NamedTuple):
    """One image and its mask: the id, and both files relative to the dataset's root."""

    id: str
    image: str
    label: str


class FileStat(NamedTuple):
    """The size of a file and the time of its last change."""

    num_bytes: int
    changed_ns: int


class SampleFiles:
    """The files of one split's samples. The file system is asked once, at the first question."""

    def __init__(
        self,
        root: Path,
        split: str,
        samples: Sequence[Sample],
    ) -> None:
        self._root = root
        self._split = split
        self._samples = samples

    @cached_property
    def stats(self) -> dict[str, FileStat | str]:
        """Each image and mask inside the root by name: its FileStat, or why it cannot be read."""
        inside = (sample for sample in self._samples if not any(map(leaves_root, sample)))
        return {
            name: _stat_or_problem(self._root / name)
            for sample in inside
            for name in (sample.image, sample.label)
        }

    def readable(self) -> list[int]:
        """Return the indices of the samples whose two files can be read."""
        return [index for index, sample in enumerate(self._samples) if self._is_readable(sample)]

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the id of a sample or the size of a file.

        They do not depend on the root.
        """
        digest = hashlib.sha256()
        for sample in self._samples:
            image, label = self._size(sample.image), self._size(sample.label)
            digest.update(f"{sample.id}\t{image}\t{label}\n".encode())
        return digest.hexdigest()[:16]

    def problems(self) -> list[str]:
        """Return what is wrong with the list and with its files, one line each."""
        if not self._samples:
            return [f"{self._where} lists no image; needed is at least one"]
        return [*self._outside_root(), *self._repeated_ids(), *self._unreadable()]

    @property
    def _where(self) -> str:
        return f"{self._root}: split '{self._split}'"

    def _is_readable(self, sample: Sample) -> bool:
        states = (self.stats.get(sample.image), self.stats.get(sample.label))
        return all(isinstance(state, FileStat) for state in states)

    def _size(self, name: str) -> int | str:
        state = self.stats[name]
        if isinstance(state, FileStat):
            return state.num_bytes
        return state

    def _outside_root(self) -> list[str]:
        ids = [sample.id for sample in self._samples if any(map(leaves_root, sample))]
        if not ids:
            return []
        line = (
            f"{self._where} lists files outside the dataset: {few(ids)}; needed are names inside "
            "data.root"
        )
        return [line]

    def _repeated_ids(self) -> list[str]:
        counts = Counter(sample.id for sample in self._samples)
        ids = [sample_id for sample_id, count in counts.items() if count > 1]
        if not ids:
            return []
        return [f"{self._where} lists {len(ids)} ids more than once: {few(ids)}; list each id once"]

    def _unreadable(self) -> list[str]:
        """Return one line for each reason why files cannot be read."""
        names_by_reason = defaultdict[str, list[str]](list)
        for name, state in self.stats.items():
            if isinstance(state, str):
                names_by_reason[state].append(name)
        return [
            f"{self._root}: {len(names)} of the {len(self.stats)} files of split '{self._split}' "
            f"{reason}: {few(names)}; {_REMEDIES.get(reason, _OTHER_REMEDY)}"
            for reason, names in names_by_reason.items()
        ]


def leaves_root(name: str) -> bool:
    """Return whether a relative file name would lead out of the dataset's root."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _stat_or_problem(path: Path) -> FileStat | str:
    try:
        found = path.stat()
    except (FileNotFoundError, ValueError):  # ValueError: no file can have such a name
        return _MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
        return _NOT_REGULAR
    if not found.st_size:
        return _EMPTY
    return FileStat(found.st_size, found.st_mtime_ns)
