"""Copies a results store into benchmarks/evidence, small enough to be kept with the code.

    python -m benchmarks.publish STORE NAME

The copy has one Parquet file a table and the settings of its experiments, no weights and no
checkpoints. Rows of an attempt that a later one superseded are left out, as every reader does.
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
    """Write the copy to `target`, in place of what is there."""
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
    publish(Path(sys.argv[1]), EVIDENCE / sys.argv[2])
