"""The store: rows in, each a part of its own; resolved tables out. One directory, any number of
writers.
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
from attnfd_ray.store import latest, marker, parts
from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.schema import EPOCHS, TRIALS

# A part may go while it is read, merged into another by `compact`; then the directory is listed
# again, after a while.
_READ_AGAIN_S = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Store:
    """A results directory. What was appended stays, whatever dies next; what is read is each epoch
    and trial once.

    `root` is absolute, since workers run in directories of their own; `name` is the path as the
    user wrote it.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self._epochs, self._trials = root / "epochs", root / "trials"

    @classmethod
    def open(cls, path: str | Path, *, create: bool) -> Store:
        """Open a store; with `create`, make it where there is none and check that it can be
        written.

        Raises StoreError: no such directory, another kind of directory, no permission, or a newer
        schema.
        """
        if "://" in str(path):
            raise StoreError(f"{path}: a store is a directory; mount the bucket and give its path")
        root = Path(path).expanduser()
        if create:
            marker.create(root, ["epochs", "trials"])
        else:
            marker.check(root)
        return cls(root.absolute(), str(path))

    def append_epoch(self, row: EpochRow) -> None:
        """Add one epoch; it is on the disk when this returns. Raises StoreError."""
        table = pa.Table.from_pylist([row.to_dict()], schema=EPOCHS)
        parts.write(
            self._epochs,
            table,
            trial_id=row.trial_id,
            attempt=row.attempt,
            what=f"e{row.epoch:05d}",
        )

    def append_trial(self, row: TrialRow) -> None:
        """Add how a trial stands; it is on the disk when this returns. Raises StoreError."""
        row = dataclasses.replace(row, checkpoint=row.checkpoint and self.relative(row.checkpoint))
        table = pa.Table.from_pylist([row.to_dict()], schema=TRIALS)
        parts.write(self._trials, table, trial_id=row.trial_id, attempt=row.attempt, what=row.state)

    def relative(self, path: str | Path) -> str:
        """Return a path as rows carry it: relative to the store if inside it, so that the store can
        be moved.

        A relative path is taken to be so already.
        """
        full, root = (self.root / path).resolve(), self.root.resolve()
        return full.relative_to(root).as_posix() if full.is_relative_to(root) else str(full)

    def epochs(
        self, trial_id: str | None = None, *, columns: Collection[str] | None = None
    ) -> pa.Table:
        """Return one row per (trial_id, epoch), of one trial or of all; `columns` fewer than all
        read faster.
        """
        schema = _narrowed(EPOCHS, columns, needed={*latest.EPOCH_KEY, *latest.EPOCH_RANK})
        table = latest.latest_epochs(self._rows(self._epochs, schema, trial_id))
        return table.select(list(columns)) if columns else table

    def trials(self, *, columns: Collection[str] | None = None) -> pa.Table:
        """Return one row per trial: how it stands."""
        schema = _narrowed(TRIALS, columns, needed={*latest.TRIAL_KEY, *latest.TRIAL_RANK, "state"})
        table = latest.latest_trials(self._rows(self._trials, schema, None))
        return table.select(list(columns)) if columns else table

    def trial(self, trial_id: str) -> dict[str, Any] | None:
        """Return how one trial stands, or None for one that is not known."""
        rows: list[dict[str, Any]] = latest.latest_trials(
            self._rows(self._trials, TRIALS, trial_id)
        ).to_pylist()
        return rows[0] if rows else None

    def last_attempt(self, trial_id: str) -> int:
        """Return the highest attempt that has left a row, 0 if there is none."""
        attempts = [
            pc.max(
                self._rows(directory, _narrowed(schema, ["trial_id", "attempt"]), trial_id)[
                    "attempt"
                ]
            ).as_py()
            for directory, schema in ((self._trials, TRIALS), (self._epochs, EPOCHS))
        ]
        return max(attempt or 0 for attempt in attempts)

    def compact(self, trial_id: str | None = None) -> int:
        """Merge the epochs of a trial, or of every trial that ended, into one part each; return how
        many parts went.

        A crash in between leaves rows twice, which reading resolves and the next `compact` mends.
        """
        if trial_id is not None:
            return self._merge(trial_id)
        trials = self.trials(columns=["trial_id", "state"])
        return sum(
            self._merge(trial["trial_id"])
            for trial in trials.to_pylist()
            if trial["state"] != "RUNNING"
        )

    def _merge(self, trial_id: str) -> int:
        parts.check_trial_id(trial_id)
        old = [part for part in parts.find(self._epochs) if parts.trial_of(part) == trial_id]
        if len(old) < 2:
            return 0
        try:
            # columns of a newer attnfd-ray are carried along, not dropped
            rows = pa.concat_tables(parts.read(old), promote_options="permissive").combine_chunks()
        except FileNotFoundError:
            return 0  # another process is compacting the same trial
        rows = latest.latest_epochs(rows)
        parts.write(
            self._epochs,
            rows,
            trial_id=trial_id,
            attempt=pc.max(rows["attempt"]).as_py(),
            what="all",
        )
        for part in old:
            part.unlink(missing_ok=True)
        return len(old) - 1

    def _rows(self, directory: Path, schema: pa.Schema, trial_id: str | None) -> pa.Table:
        """Return every row there is, unresolved."""
        for pause_s in _READ_AGAIN_S:
            time.sleep(pause_s)
            found = [
                part
                for part in parts.find(directory)
                if not trial_id or parts.trial_of(part) in (trial_id, None)
            ]
            try:
                rows = parts.join(parts.read(found, schema.names), schema)
            except FileNotFoundError:
                continue
            return rows.filter(pc.equal(rows["trial_id"], trial_id)) if trial_id else rows
        raise StoreError(
            f"{directory}: parts keep vanishing while they are read; try again when compacting is "
            "done"
        )


def _narrowed(
    schema: pa.Schema, columns: Collection[str] | None, needed: Collection[str] = ()
) -> pa.Schema:
    """Return the schema of `columns` and `needed` alone."""
    return pa.schema(
        [field for field in schema if columns is None or field.name in {*columns, *needed}]
    )
