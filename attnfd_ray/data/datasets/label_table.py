"""Turns the values of a mask into class ids. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.files import Bytes, few
from attnfd_ray.errors import DataError

_UNKNOWN = 254
"""The label of a value that is not in the table. No dataset has that many classes."""


class LabelTable:
    """The label of each of the 256 values of a mask: a class id, IGNORED, or unknown.

    Without a `label_map` the values are class ids and IGNORED.
    """

    def __init__(
        self,
        label_map: Mapping[int, int] | None,
        num_classes: int,
    ) -> None:
        assert num_classes <= _UNKNOWN, "labels are bytes"
        self._has_map = label_map is not None
        self._num_classes = num_classes
        if label_map is None:
            label_map = {label: label for label in (*range(num_classes), IGNORED)}
        self._known = sorted(label_map)
        self.labels = np.full(256, _UNKNOWN, dtype=np.uint8)
        for value, label in label_map.items():
            self.labels[value] = label

    def apply(self, values_HW: Bytes, *, path: Path, remedy: str) -> Bytes:
        """Return label_HW of the mask in `path`.

        DataError names the values that are not in the table and ends with `remedy`.
        """
        label_HW: Bytes = self.labels[values_HW]
        if (label_HW == _UNKNOWN).any():
            unknown = np.unique(values_HW[label_HW == _UNKNOWN]).tolist()
            raise DataError(
                f"{path}: mask values {few(unknown)} are no class; needed are "
                f"{self._known_text()}: {remedy}"
            )
        return label_HW

    def _known_text(self) -> str:
        if not self._has_map:
            return f"0..{self._num_classes - 1} or {IGNORED}"
        first = self._known[0]
        last = self._known[-1]
        if len(self._known) == last - first + 1:
            return f"{first}..{last}"
        return few(self._known, 40)
