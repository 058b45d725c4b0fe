"""Copies a results store into benchmarks/evidence, small enough to be committed.

    python -m benchmarks.publish STORE NAME

The copy has one Parquet file per table and the settings of its experiments, without weights and
checkpoints. Rows of superseded attempts are left out, as every reader does.
`attnfd-ray report benchmarks/evidence/NAME` reads it like any store.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from attnfd_ray.store.store import Store
from benchmarks.pages import EVIDENCE


def publish(source: Path, target: Path) -> None:
    """Write the copy to `target`, which is replaced."""
    store = Store.open(source, create=False)
    tables = {"trials": store.trials(), "epochs": store.epochs()}
    shutil.rmtree(target, ignore_errors=True)
    for name, rows in tables.items():
        (target / name).mkdir(parents=True)
        pq.write_table(rows, target / name / "all.parquet", compression="zstd")
    shutil.copy(source / "attnfd_store.json", target)
    (target / "experiments").mkdir()
    for file in sorted((source / "experiments").glob("*.json")):
        shutil.copy(file, target / "experiments")


if __name__ == "__main__":
    source_path, name = sys.argv[1:]
    publish(Path(source_path), EVIDENCE / name)
