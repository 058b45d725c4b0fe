"""How a running command shows itself: a live table on a terminal, a line a trial elsewhere, JSON
lines on demand.
"""

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
    """Yield the listener that suits where the output goes."""
    console = Console()
    if as_json:
        yield JsonProgress(click.echo)
    elif console.is_terminal:

        def write(text: str) -> None:
            # above the table, which is drawn below it again; Text, since settings are no markup
            console.print(Text(text, style="yellow"), soft_wrap=True)

        board = ProgressTable(settings, searching=searching, write=write)
        # twice a second is enough to be alive; a table that redraws itself all the time is noise
        # over ssh
        with Live(board, console=console, refresh_per_second=2, transient=False):
            yield board
    else:
        yield TextProgress(click.echo, every_epoch=not searching, seed=settings.train.seed)
