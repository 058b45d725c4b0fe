"""From a results store back to networks: baseline, best config and teacher with the weights of
their best epochs.

A store may come from someone else. So weights are read from inside it only, and code that it names
is imported only if the user allows it. No ray.
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

_Section = TypeVar("_Section", bound=StrictModel)


class StoredNetwork(NamedTuple):
    """A network in eval mode; `miou` is its score on the whole val split, None where the store does
    not say.
    """

    name: str
    method: str | None
    miou: float | None
    model: SegmentationModel


class NotAvailable(Exception):
    """Why one of the networks cannot be had, in words; the others may still be."""


class StoredNetworks:
    """The networks that a report names, by `NAMES`.

    StoreError where none of them has a row, or where a row names code of someone's own and
    `own_code` is off.
    """

    def __init__(self, store: Store, protocol: ProtocolReport, *, own_code: bool) -> None:
        self._store, self._own_code = store, own_code
        lines = zip(NAMES, (protocol.baseline, protocol.best, protocol.teacher), strict=True)
        self._lines = {name: line for name, line in lines if line}
        found = {name: store.trial(line.trial_id) for name, line in self._lines.items()}
        self.rows: dict[str, Mapping[str, Any]] = {name: row for name, row in found.items() if row}
        if not self.rows:
            raise StoreError(f"{store.name}: no network was trained to its end and scored yet")
        self._configs = {name: self._config(row) for name, row in self.rows.items()}

    @property
    def _first(self) -> str:
        """The network whose settings say what was done: the best config where there is one."""
        return next(name for name in ("best config", *NAMES) if name in self.rows)

    @property
    def row(self) -> Mapping[str, Any]:
        """The trial that `section` is of."""
        return self.rows[self._first]

    def section(self, name: str, kind: type[_Section]) -> _Section:
        """Return a section of the settings that the networks were trained with. Raises
        StoreError.
        """
        try:
            return kind.model_validate(self._configs[self._first].get(name))
        except ValueError as error:  # pydantic's
            text = " ".join(str(error).split())[:200]
            raise StoreError(
                f"{self._store.name}: the settings of trial {self.row['trial_id']} cannot be "
                f"used: {text}"
            ) from None

    def load(
        self, name: str, *, num_classes: int, teacher_file: Path | None = None
    ) -> StoredNetwork:
        """Return a network; `teacher_file` is the teacher where it was not trained in the store.

        Raises NotAvailable, and CheckpointError for a file that does not fit.
        """
        if name not in self.rows:
            if name == "teacher":
                return self._teacher_of_file(teacher_file, num_classes)
            raise NotAvailable("no trial of it had its full budget yet")
        line, file = self._lines[name], self._weights(self.rows[name])
        header = read_header(file, own_parts=self._own_code)
        if header is None:
            raise CheckpointError(f"{file}: is no file of weights that attnfd-ray wrote")
        method = line.method if name == "best config" else None
        return StoredNetwork(
            name, method, line.best_val_miou, _loaded(header.settings, file, num_classes)
        )

    def _teacher_of_file(self, file: Path | None, num_classes: int) -> StoredNetwork:
        teacher_hash = self.row["teacher_hash"]
        if not teacher_hash:
            raise NotAvailable("the trials have none")
        if file is None:
            raise NotAvailable("its file is not part of the store; give it with --teacher FILE")
        if (found := model_hash(file)[: len(teacher_hash)]) != teacher_hash:
            raise CheckpointError(
                f"{file}: is not the teacher of trial {self.row['trial_id']} (hash {found}, there "
                f"{teacher_hash})"
            )
        settings = self.section("teacher", TeacherSettings)
        return StoredNetwork("teacher", None, None, _loaded(settings, file, num_classes))

    def _weights(self, row: Mapping[str, Any]) -> Path:
        """Return the file of a trial's best epoch, which is inside the store."""
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
        """Return a trial's settings as they stand in the store. Raises StoreError."""
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
                f"{self._store.name}: trial {row['trial_id']} names code of someone's own "
                f"({', '.join(named)[:200]}), "
                "which is not imported on a store's word; give --own-code if you trust it"
            )
        return config


def _loaded(settings: ModelSettings, file: Path, num_classes: int) -> SegmentationModel:
    model = build_model(settings.model_copy(update={"pretrained": "none"}), num_classes=num_classes)
    load_weights(model, file, num_classes=num_classes)
    return model.eval()
