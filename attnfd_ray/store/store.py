"""The store: appends rows, each as a new part, and reads tables in which each row counts once.

A store is one directory, with any number of writers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from attnfd_ray.errors import StoreError
from attnfd_ray.store import latest, layout, marker, parts
from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.schema import EPOCHS, TRIALS

# pauses before each try to read: a part may vanish meanwhile, merged into another by `compact`
_PAUSES_S = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Store:
    """A results directory. Appended rows survive a crash; reading gives each epoch and trial once.

    `root` is absolute, since workers run in directories of their own; `name` is the path as the
    user wrote it.

    >>> import tempfile
    >>> from attnfd_ray.store.rows import TrialRow
    >>> from attnfd_ray.terms import TrialState
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = Store.open(directory, create=True)
    ...     store.append_trial(
    ...         TrialRow(
    ...             experiment="camvid",
    ...             trial_id="t1",
    ...             seed=1,
    ...             method="attnfd",
    ...             role="trial",
    ...             state=TrialState.COMPLETE,
    ...             best_val_miou=0.61,
    ...         )
    ...     )
    ...     store.trials(columns=["trial_id", "state", "best_val_miou"]).to_pylist()
    [{'trial_id': 't1', 'state': 'COMPLETE', 'best_val_miou': 0.61}]
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self._epochs = root / layout.EPOCHS
        self._trials = root / layout.TRIALS

    @classmethod
    def open(cls, path: str | Path, *, create: bool) -> Store:
        """Open a store; with `create`, make it if needed and check that it can be written.

        Raises StoreError: no such directory, another kind of directory, no permission, or a newer
        schema.
        """
        if "://" in str(path):
            raise StoreError(f"{path}: a store is a directory; mount the bucket and give its path")
        root = Path(path).expanduser()
        if create:
            marker.create(root, [layout.EPOCHS, layout.TRIALS])
        else:
            marker.check(root)
        return cls(root.absolute(), str(path))

    def append_epoch(self, row: EpochRow) -> None:
        """Add a finished epoch; it is on disk when this returns. Raises StoreError."""
        table = pa.Table.from_pylist([row.to_dict()], schema=EPOCHS)
        what = f"e{row.epoch:05d}"
        parts.write(self._epochs, table, trial_id=row.trial_id, attempt=row.attempt, what=what)

    def append_trial(self, row: TrialRow) -> None:
        """Add the state of a trial; it is on disk when this returns. Raises StoreError."""
        if row.checkpoint:
            row = dataclasses.replace(row, checkpoint=self.relative(row.checkpoint))
        table = pa.Table.from_pylist([row.to_dict()], schema=TRIALS)
        parts.write(self._trials, table, trial_id=row.trial_id, attempt=row.attempt, what=row.state)

    def relative(self, path: str | Path) -> str:
        """Return a path as rows hold it: relative to the store if inside it, else absolute.

        So a store can be moved. A relative `path` is taken to be relative to the store.
        """
        root = self.root.resolve()
        full = (self.root / path).resolve()
        if full.is_relative_to(root):
            return full.relative_to(root).as_posix()
        return str(full)

    def epochs(
        self, trial_id: str | None = None, *, columns: Collection[str] | None = None
    ) -> pa.Table:
        """Return one row per (trial_id, epoch), of one trial or of all.

        Reading only some `columns` is faster. Raises StoreError for a part that cannot be read.
        """
        schema = _narrowed(EPOCHS, columns, needed={*latest.EPOCH_KEY, *latest.EPOCH_RANK})
        table = latest.latest_epochs(self._rows(self._epochs, schema, trial_id))
        return _selected(table, columns)

    def trials(self, *, columns: Collection[str] | None = None) -> pa.Table:
        """Return one row per trial, with its latest state.

        Raises StoreError for a part that cannot be read.
        """
        schema = _narrowed(TRIALS, columns, needed={*latest.TRIAL_KEY, *latest.TRIAL_RANK, "state"})
        table = latest.latest_trials(self._rows(self._trials, schema, None))
        return _selected(table, columns)

    def trial(self, trial_id: str) -> dict[str, Any] | None:
        """Return the row of one trial, with its latest state; None for an unknown trial."""
        table = latest.latest_trials(self._rows(self._trials, TRIALS, trial_id))
        rows: list[dict[str, Any]] = table.to_pylist()
        if not rows:
            return None
        return rows[0]

    def last_attempt(self, trial_id: str) -> int:
        """Return the highest attempt that has a row, 0 if there is none."""
        highest = 0
        for directory, schema in ((self._trials, TRIALS), (self._epochs, EPOCHS)):
            narrow = _narrowed(schema, ["trial_id", "attempt"])
            rows = self._rows(directory, narrow, trial_id)
            highest = max(highest, pc.max(rows["attempt"]).as_py() or 0)
        return highest

    def compact(self, trial_id: str | None = None) -> int:
        """Merge the epochs of a trial, or of each ended trial, into one part each.

        Return how many parts fewer there are. A crash in between leaves rows twice; reading
        resolves them, and the next `compact` removes them.
        """
        if trial_id is not None:
            return self._merge(trial_id)
        merged = 0
        for trial in self.trials(columns=["trial_id", "state"]).to_pylist():
            if trial["state"] != "RUNNING":
                merged += self._merge(trial["trial_id"])
        return merged

    def _merge(self, trial_id: str) -> int:
        parts.check_trial_id(trial_id)
        old = [part for part in parts.find(self._epochs) if parts.trial_of(part) == trial_id]
        if len(old) < 2:
            return 0
        try:
            # columns of a newer attnfd-ray are kept
            rows = pa.concat_tables(parts.read(old), promote_options="permissive").combine_chunks()
        except FileNotFoundError:
            return 0  # another process is compacting the same trial
        rows = latest.latest_epochs(rows)
        attempt = pc.max(rows["attempt"]).as_py()
        parts.write(self._epochs, rows, trial_id=trial_id, attempt=attempt, what="all")
        for part in old:
            part.unlink(missing_ok=True)
        return len(old) - 1

    def _rows(self, directory: Path, schema: pa.Schema, trial_id: str | None) -> pa.Table:
        """Return all rows of a table, or of one trial in it, superseded ones included."""
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            found = parts.find(directory)
            if trial_id:
                # a part that was renamed may hold any trial
                found = [part for part in found if parts.trial_of(part) in (trial_id, None)]
            try:
                rows = parts.join(parts.read(found, schema.names), schema)
            except FileNotFoundError:
                continue
            if trial_id:
                rows = rows.filter(pc.equal(rows["trial_id"], trial_id))
            return rows
        raise StoreError(
            f"{directory}: parts keep vanishing while they are read; try again when compacting is "
            "done"
        )


def _narrowed(
    schema: pa.Schema, columns: Collection[str] | None, needed: Collection[str] = ()
) -> pa.Schema:
    """Return the schema with only `columns` (None: all) and `needed`."""
    if columns is None:
        return schema
    names = {*columns, *needed}
    return pa.schema([field for field in schema if field.name in names])


def _selected(table: pa.Table, columns: Collection[str] | None) -> pa.Table:
    if not columns:
        return table
    return table.select(list(columns))
