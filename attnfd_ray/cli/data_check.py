"""`attnfd-ray data check FILE` and `data show FILE`: checks or shows an experiment's dataset."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnfd_ray.cli.files import check_png, write_file
from attnfd_ray.cli.options import file_argument, set_option
from attnfd_ray.errors import DataError, one_line

if TYPE_CHECKING:
    from rich.table import Table

    from attnfd_ray.data.checker.report import DataReport

_set_option = set_option("data.val_split=test")


@click.command()
@file_argument
@_set_option
@click.option(
    "--full",
    is_flag=True,
    help="Read every file, and compare the images; by default, a few files of each split.",
)
@click.option(
    "--html",
    "page",
    metavar="PAGE",
    type=click.Path(path_type=Path),
    help="Also write the report as a web page to PAGE.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object, in which shares are fractions 0..1.",
)
def check(file: Path, sets: tuple[str, ...], full: bool, page: Path | None, as_json: bool) -> None:
    """Check the dataset of the experiment in FILE, and print its content and problems.

    Errors are printed to stderr, one line each, and the exit code is then 2. Warnings and notes do
    not change the exit code.
    """
    from attnfd_ray.cli.data_page import page_html
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.data.checker.check import check_splits

    data = load_experiment(file, sets=sets).data
    with _progress() as on_read:
        report, splits = check_splits(data, full=full, on_read=on_read)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
    else:
        _print(report)
    if page:
        try:
            write_file(page, page_html(report, splits).encode())
        except DataError as error:
            raise DataError([*report.errors, *error.problems]) from None
        click.echo(f"{one_line(str(page))}: written", err=True)
    if report.errors:
        raise DataError(report.errors)


@click.command()
@file_argument
@_set_option
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
    """Draw the first training views of epoch 1, with masks, as the network in FILE gets them.

    Ignored pixels are hatched in grey.
    """
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.data.checker.contact_sheet import contact_sheet

    check_png(out)
    sheet, shown = contact_sheet(load_experiment(file, sets=sets), count=count)
    write_file(out, sheet)
    click.echo(f"{one_line(str(out))}: {shown} views")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (files read, all files), shown as a bar on a terminal only."""
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
    if report.splits:
        for table in (_splits_table(report), _classes_table(report)):
            console.print()
            console.print(table)
    console.print()
    for kind, lines in (("warning", report.warnings), ("note", report.notes)):
        for line in lines:
            console.print(Text(f"{kind}: {line}"))
    console.print(Text(f"data_hash: {report.data_hash or 'none while files are missing'}"))


def _splits_table(report: DataReport) -> Table:
    table = _table("Split", "Images", "Expected", "Read", "Classes seen", "Ignored %")
    for split in report.splits:
        name = split.role
        if split.split != split.role:
            name += f" ({split.split})"
        expected = "-"
        if split.num_published is not None:
            expected = str(split.num_published)
        _add_row(
            table,
            name,
            split.num_images,
            expected,
            split.num_read,
            f"{split.num_classes_seen} of {len(split.classes)}",
            _percent(split.ignored_share),
        )
    return table


def _classes_table(report: DataReport) -> Table:
    heads = [head for split in report.splits for head in (f"{split.role} %", "images")]
    table = _table("Class", *heads)
    for number, name in enumerate(report.class_names):
        cells: list[Any] = []
        for split in report.splits:
            share = split.classes[number]
            cells += [_percent(share.pixel_share), share.num_images]
        _add_row(table, name, *cells)
    return table


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _table(first: str, *numbers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add_row(table: Table, *cells: Any) -> None:
    from rich.text import Text  # a plain string such as [road] would be read as markup

    table.add_row(*(Text(one_line(str(cell))) for cell in cells))
