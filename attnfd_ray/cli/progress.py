"""The callback that shows the progress of a command: a table, text lines or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from attnfd_ray.cli.progress_table import ProgressTable
from attnfd_ray.cli.progress_text import JsonProgress, TextProgress
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.jobs.callback import Callback


@contextmanager
def progress(settings: ExperimentSettings, *, as_json: bool, searching: bool) -> Iterator[Callback]:
    """Yield a callback: JSON lines on demand, a live table on a terminal, text lines elsewhere."""
    console = Console()
    if as_json:
        yield JsonProgress(click.echo)
    elif console.is_terminal:

        def write(text: str) -> None:
            # above the table; as Text, since settings may contain what looks like markup
            console.print(Text(text, style="yellow"), soft_wrap=True)

        table = ProgressTable(settings, searching=searching, write=write)
        # a higher rate makes a slow ssh connection flicker
        with Live(table, console=console, refresh_per_second=2, transient=False):
            yield table
    else:
        yield TextProgress(click.echo, every_epoch=not searching, seed=settings.train.seed)
