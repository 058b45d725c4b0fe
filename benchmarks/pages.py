"""Writes the tables of the evidence pages from the stores beside them.

    python -m benchmarks.pages            # rewrite every table
    python -m benchmarks.pages --check    # exit with 1 where a page differs from its store

In a page, a table is between `<!-- table: KIND STORE EXPERIMENT -->` and `<!-- end -->`. STORE is
relative to benchmarks/evidence. KIND `report` is the output of `attnfd-ray report STORE
--experiment EXPERIMENT`. KIND `methods` has one line per config over its seeds, with the strength
of the distillation gradient. KIND `runs` has one line per run and teacher of the whole store;
EXPERIMENT is `all`.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.text import show
from attnfd_ray.store.store import Store
from benchmarks.methods import methods_table
from benchmarks.runs import runs_table

HERE = Path(__file__).parent
EVIDENCE = HERE / "evidence"
_WIDTH = 110  # columns of a printed report
_TABLE = re.compile(r"(<!-- table: (\w+) (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """Return a page with every table written anew from its store."""
    return _TABLE.sub(
        lambda found: found[1] + _table(found[2], found[3], found[4]) + found[5], page
    )


def pages() -> list[Path]:
    """Return the pages with tables."""
    return [
        path
        for path in sorted(HERE.rglob("*.md"))
        if _TABLE.search(path.read_text(encoding="utf-8"))
    ]


def _table(kind: str, name: str, experiment: str) -> str:
    # printed commands name the store as a reader types it, in the project's directory
    store = Store(Store.open(EVIDENCE / name, create=False).root, f"benchmarks/evidence/{name}")
    if kind == "methods":
        return "\n".join(methods_table(store, experiment)) + "\n"
    if kind == "runs":
        return "\n".join(runs_table(store)) + "\n"
    assert kind == "report", f"a table is of kind methods, runs or report, not {kind}"
    text = io.StringIO()
    console = Console(file=text, width=_WIDTH, color_system=None)
    show(summarise(store, experiment=experiment), console)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def main() -> int:
    """Rewrite the pages that differ from their stores, or with --check only name them."""
    is_check = "--check" in sys.argv
    num_stale = 0
    for path in pages():
        page = path.read_text(encoding="utf-8")
        anew = written(page)
        if anew == page:
            continue
        num_stale += 1
        if is_check:
            print(f"{path.relative_to(HERE)}: differs from its store")
        else:
            path.write_text(anew, encoding="utf-8")
            print(f"{path.relative_to(HERE)}: rewritten")
    return int(is_check and num_stale > 0)


if __name__ == "__main__":
    sys.exit(main())
