"""Loads networks from a results store: baseline, best config and teacher, at their best epochs.

A store may come from someone else. So weights are read only from inside it, and code that it names
is imported only if the user allows that. No ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from attnfd_ray.analysis.records import ProtocolReport
from attnfd_ray.config.schema import ModelSettings, StrictModel, TeacherSettings
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models import SegmentationModel, build_model, load_weights, model_hash, read_header
from attnfd_ray.store.store import Store

NAMES = ("baseline", "best config", "teacher")
_MAX_TEXT = 200  # characters of a store's content in an error line

_Section = TypeVar("_Section", bound=StrictModel)


class StoredNetwork(NamedTuple):
    """A network in eval mode, with its score on the whole val split, None if not in the store."""

    name: str
    method: str | None
    miou: float | None
    model: SegmentationModel


class NotAvailable(Exception):
    """Why one of the networks cannot be loaded; the others may be."""


class StoredNetworks:
    """The networks that a report names, by `NAMES`.

    Raises StoreError if no trial of them is in the store, or if one names a user's own code and
    `own_code` is False.
    """

    def __init__(self, store: Store, protocol: ProtocolReport, *, own_code: bool) -> None:
        self._store = store
        self._own_code = own_code
        lines = zip(NAMES, (protocol.baseline, protocol.best, protocol.teacher), strict=True)
        self._lines = {name: line for name, line in lines if line}
        self.rows: dict[str, Mapping[str, Any]] = {}
        for name, line in self._lines.items():
            row = store.trial(line.trial_id)
            if row:
                self.rows[name] = row
        if not self.rows:
            raise StoreError(f"{store.name}: no network was trained to its end and scored yet")
        self._configs = {name: self._config(row) for name, row in self.rows.items()}

    @property
    def _main(self) -> str:
        """The network whose settings count: the best config, if there is one."""
        return next(name for name in ("best config", *NAMES) if name in self.rows)

    @property
    def row(self) -> Mapping[str, Any]:
        """The row of the trial whose settings `section` returns."""
        return self.rows[self._main]

    def section(self, name: str, kind: type[_Section]) -> _Section:
        """Return a section of the settings that the networks were trained with.

        Raises StoreError if it cannot be used.
        """
        try:
            return kind.model_validate(self._configs[self._main].get(name))
        except ValueError as error:  # of pydantic
            text = " ".join(str(error).split())[:_MAX_TEXT]
            raise StoreError(
                f"{self._store.name}: the settings of trial {self.row['trial_id']} cannot be "
                f"used: {text}"
            ) from None

    def load(
        self, name: str, *, num_classes: int, teacher_file: Path | None = None
    ) -> StoredNetwork:
        """Return a network; `teacher_file` is the teacher if it was not trained in the store.

        Raises NotAvailable, and CheckpointError for a file that does not fit.
        """
        if name not in self.rows:
            if name == "teacher":
                return self._teacher_of_file(teacher_file, num_classes)
            raise NotAvailable("no trial of it has had its full budget yet")
        line = self._lines[name]
        file = self._weights(self.rows[name])
        header = read_header(file, own_parts=self._own_code)
        if header is None:
            raise CheckpointError(f"{file}: not a file of weights that attnfd-ray wrote")
        method = None
        if name == "best config":
            method = line.method
        model = _loaded(header.settings, file, num_classes)
        return StoredNetwork(name, method, line.best_val_miou, model)

    def _teacher_of_file(self, file: Path | None, num_classes: int) -> StoredNetwork:
        """Return the teacher of a file. Raises CheckpointError if it is not that of the trials."""
        expected = self.row["teacher_hash"]
        if not expected:
            raise NotAvailable("the trials have none")
        if file is None:
            raise NotAvailable("its file is not part of the store; give it with --teacher FILE")
        found = model_hash(file)[: len(expected)]
        if found != expected:
            raise CheckpointError(
                f"{file}: is not the teacher of trial {self.row['trial_id']} (hash {found}, of the "
                f"trial {expected})"
            )
        settings = self.section("teacher", TeacherSettings)
        return StoredNetwork("teacher", None, None, _loaded(settings, file, num_classes))

    def _weights(self, row: Mapping[str, Any]) -> Path:
        """Return the weights of a trial's best epoch. Raises NotAvailable outside the store."""
        root = self._store.root.resolve()
        if not row["checkpoint"]:
            raise NotAvailable(f"trial {row['trial_id']} has no weights")
        file: Path = (root / row["checkpoint"]).resolve()
        if not file.is_relative_to(root):
            raise NotAvailable(
                f"the weights of trial {row['trial_id']} are outside the store and are not read"
            )
        if not file.is_file():
            raise NotAvailable(
                f"the weights of trial {row['trial_id']} were not kept (see tune.keep_weights)"
            )
        return file

    def _config(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's settings from the store. Raises StoreError."""
        try:
            config: dict[str, Any] = json.loads(row["config_json"] or "{}")
            sections = [config.get(name) or {} for name in ("data", "student", "teacher")]
            values = [
                section.get(key) for section in sections for key in ("name", "arch", "backbone")
            ]
        except (ValueError, AttributeError):
            raise StoreError(
                f"{self._store.name}: the settings of trial {row['trial_id']} cannot be read"
            ) from None
        named = sorted({value for value in values if isinstance(value, str) and ":" in value})
        if named and not self._own_code:
            raise StoreError(
                f"{self._store.name}: trial {row['trial_id']} names a user's own code "
                f"({', '.join(named)[:_MAX_TEXT]}), which is not imported from a store by default; "
                "give --own-code if you trust it"
            )
        return config


def _loaded(settings: ModelSettings, file: Path, num_classes: int) -> SegmentationModel:
    model = build_model(settings.model_copy(update={"pretrained": "none"}), num_classes=num_classes)
    load_weights(model, file, num_classes=num_classes)
    return model.eval()
