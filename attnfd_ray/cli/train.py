"""`attnfd-ray train FILE`: trains the student once."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.options import experiment_options, read_settings, wait_options
from attnfd_ray.run_files import BEST_WEIGHTS


@click.command("train")
@experiment_options
@wait_options
def train(
    file: Path,
    sets: tuple[str, ...],
    show: bool,
    fresh: bool,
    as_json: bool,
    verbose: bool,
    wait_timeout: float,
    expect_nodes: int,
) -> None:
    """Train the student of FILE once, with the settings of the file.

    The same command resumes. On a cluster: `ray job submit --working-dir . -- attnfd-ray train
    FILE`.
    """
    settings = read_settings(file, sets, show=show, as_json=as_json)
    if settings is None:
        return
    from attnfd_ray.cli.progress import progress
    from attnfd_ray.runtime.cluster import environment

    environment.prepare()
    from attnfd_ray.runtime.cluster.preflight import WaitPolicy
    from attnfd_ray.runtime.commands import train as run
    from attnfd_ray.store import layout

    with progress(settings, as_json=as_json, searching=False) as callback:
        result = run(
            settings,
            callback,
            fresh=fresh,
            verbose=verbose,
            wait_policy=WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes),
        )
    if not as_json:
        click.echo(f"weights: {layout.run_directory(result.store, result.id) / BEST_WEIGHTS}")
        click.echo(f"report:  attnfd-ray report {result.store} --experiment {settings.experiment}")
