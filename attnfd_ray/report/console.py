"""The pieces of a printed report: titles, text and tables, at any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def new_table(*columns: Sequence[str]) -> Table:
    """Return an empty table: the second group of columns holds numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for group, names in enumerate(columns):
        for name in names:
            number = group == 1
            table.add_column(
                name, justify="right" if number else "left", no_wrap=number, overflow="fold"
            )
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row; a value such as [stage4] is no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def print_title(console: Console, text: str) -> None:
    """Print the title of a section, after an empty line."""
    console.print()
    print_text(console, text, style="bold")


def print_text(console: Console, text: str, *, style: str = "", indent: int = 0) -> None:
    """Print text, wrapped, so many columns from the left."""
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent), expand=False))


def print_table(console: Console, table: Table) -> None:
    """Print a table two columns from the left."""
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
