"""Building blocks of a printed report: titles, text and tables, at any width. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def new_table(
    texts: Sequence[str], numbers: Sequence[str], more_texts: Sequence[str] = ()
) -> Table:
    """Return an empty table with these column headers: columns of text, numbers, and text again.

    Numbers are aligned to the right and are not wrapped.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    for name in more_texts:
        table.add_column(name, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text: brackets as in [stage4] are not markup."""
    table.add_row(*(Text(cell) for cell in cells))


def print_title(console: Console, text: str) -> None:
    """Print the title of a section, after an empty line."""
    console.print()
    print_text(console, text, style="bold")


def print_text(console: Console, text: str, *, style: str = "", indent: int = 0) -> None:
    """Print wrapped text, indented by a number of columns."""
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent), expand=False))


def print_table(console: Console, table: Table) -> None:
    """Print a table, indented by two columns."""
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
