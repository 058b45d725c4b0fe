"""`attnfd-ray data check FILE` and `attnfd-ray data show FILE`: what an experiment's images and
masks are like.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnfd_ray.errors import DataError, one_line

if TYPE_CHECKING:
    from rich.table import Table

    from attnfd_ray.data.checker.records import DataReport

_file = click.argument("file", type=click.Path(path_type=Path))
_set = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a setting: --set data.val_split=test",
)


@click.command()
@_file
@_set
@click.option(
    "--full",
    is_flag=True,
    help="Read every file, and compare the images; else a few of each split.",
)
@click.option(
    "--html",
    "page",
    metavar="PAGE",
    type=click.Path(path_type=Path),
    help="Also write it as a page to PAGE.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object; shares are fractions 0..1 there.",
)
def check(file: Path, sets: tuple[str, ...], full: bool, page: Path | None, as_json: bool) -> None:
    """Tell what the dataset of the experiment in FILE holds, and all that is wrong with it.

    Errors are a line each on stderr and end with exit code 2; warnings and notes do not.
    """
    from attnfd_ray.cli.data_page import write_page
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.data.checker.check import look_at

    data = load_experiment(file, sets=sets).data
    with _progress() as on_read:
        report, splits = look_at(data, full=full, on_read=on_read)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
    else:
        _print(report)
    if page:
        try:
            write_page(page, report, splits)
        except DataError as error:
            raise DataError([*report.errors, *error.problems]) from None
        click.echo(f"{one_line(str(page))}: written", err=True)
    if report.errors:
        raise DataError(report.errors)


@click.command()
@_file
@_set
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="SHEET",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The PNG to write.",
)
@click.option(
    "--count", type=click.IntRange(1, 400), default=16, show_default=True, help="How many views."
)
def show(file: Path, sets: tuple[str, ...], out: Path, count: int) -> None:
    """Draw what the network of the experiment in FILE will see: the first training views of epoch
    1, with their masks.

    Pixels that do not count are hatched in grey.
    """
    from attnfd_ray.cli.data_page import write
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.data.checker.contact_sheet import contact_sheet

    if out.suffix.lower() != ".png":
        raise click.BadParameter(
            f"{one_line(str(out))}: needs a name that ends in .png", param_hint="--out"
        )
    sheet, shown = contact_sheet(load_experiment(file, sets=sets), count=count)
    write(out, sheet)
    click.echo(f"{one_line(str(out))}: {shown} views")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield what hears how many files are read: a bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(report: DataReport) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(f"{report.dataset}: {one_line(report.root)}"), soft_wrap=True)
    for table in (_splits(report), _classes(report)) if report.splits else ():
        console.print()
        console.print(table)
    console.print()
    for kind, lines in (("warning", report.warnings), ("note", report.notes)):
        for line in lines:
            console.print(Text(f"{kind}: {line}"))
    console.print(Text(f"data_hash: {report.data_hash or 'none while files are missing'}"))


def _splits(report: DataReport) -> Table:
    table = _table("Split", "Images", "Expected", "Read", "Classes seen", "Ignored %")
    for split in report.splits:
        name = split.role if split.role == split.split else f"{split.role} ({split.split})"
        expected = "-" if split.num_published is None else str(split.num_published)
        seen = f"{split.num_classes_seen} of {len(split.classes)}"
        _row(
            table,
            name,
            split.num_images,
            expected,
            split.num_read,
            seen,
            f"{split.ignored_share:.2%}"[:-1],
        )
    return table


def _classes(report: DataReport) -> Table:
    heads = [head for split in report.splits for head in (f"{split.role} %", "images")]
    table = _table("Class", *heads)
    for number, name in enumerate(report.class_names):
        shares = [split.classes[number] for split in report.splits]
        cells = [
            cell for share in shares for cell in (f"{share.pixel_share:.2%}"[:-1], share.num_images)
        ]
        _row(table, name, *cells)
    return table


def _table(first: str, *numbers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(table: Table, *cells: Any) -> None:
    from rich.text import Text  # since a name such as [road] would pass for markup

    table.add_row(*(Text(one_line(str(cell))) for cell in cells))
