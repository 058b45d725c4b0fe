"""Writes the README's pictures, docs/report.svg and docs/demo.png, from the demonstration's store.

    make demo && python -m benchmarks.pictures ./demo

Nothing is trained here.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from attnfd_ray.analysis.summary import summarise
from attnfd_ray.atomic import write_atomic
from attnfd_ray.report.text import show
from attnfd_ray.runtime.picture import draw
from attnfd_ray.store.store import Store

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 80  # columns
IMAGES = 4


def report_svg(store: Store) -> str:
    """Return the output of `attnfd-ray report` as a picture of a terminal."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    show(summarise(store), console)
    return console.export_svg(title=f"attnfd-ray report {store.name}")


def main(store_path: str, docs: Path = DOCS) -> None:
    """Write both files, each one atomically."""
    store = Store.open(store_path, create=False)
    drawn = draw(store, num_images=IMAGES)
    assert not drawn.missing, drawn.missing
    write_atomic(docs / "demo.png", drawn.png)
    write_atomic(docs / "report.svg", report_svg(store).encode())


if __name__ == "__main__":
    main(sys.argv[1])
