"""`attnfd-ray tune FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.options import experiment_options, patience_options, read_settings


@click.command("tune")
@experiment_options
@patience_options
@click.option(
    "--warm-start",
    metavar="SOURCE",
    help="Begin with what an earlier search has found: SOURCE is an experiment of the same store, "
    "the directory of another store, or STORE:EXPERIMENT.",
)
@click.option(
    "--tune-baseline",
    type=click.IntRange(min=0),
    metavar="N",
    help="Give the student alone N trials of its own over learning rate, weight decay and what "
    "else it shares with the "
    "search, so that the gain is over a tuned student: short for --set tune.baseline_trials=N.",
)
@click.option(
    "--retry",
    type=click.Choice(["failed"]),
    help="Also run again, from their last epoch, the trials that failed; not those whose settings "
    "made the loss "
    "diverge or memory run out.",
)
def tune(
    file: Path,
    sets: tuple[str, ...],
    show: bool,
    fresh: bool,
    as_json: bool,
    verbose: bool,
    wait_timeout: float,
    expect_nodes: int,
    warm_start: str | None,
    tune_baseline: int | None,
    retry: str | None,
) -> None:
    """Search the settings of FILE as its `search:` section says.

    The first trial is the student without a teacher, the second the file as written; then come
    those of
    --tune-baseline. The same command again goes on where it stopped, without repeating what is finished.
    """
    if tune_baseline is not None:
        sets = (*sets, f"tune.baseline_trials={tune_baseline}")
    settings = read_settings(file, sets, show=show, as_json=as_json)
    if settings is None:
        return
    from attnfd_ray.cli.progress import progress
    from attnfd_ray.runtime.cluster import environment

    environment.prepare()
    from attnfd_ray.runtime.cluster.preflight import WaitPolicy
    from attnfd_ray.runtime.commands import tune as run

    with progress(settings, as_json=as_json, searching=True) as listener:
        result = run(
            settings,
            listener,
            fresh=fresh,
            warm_start=warm_start,
            retry_failed=retry == "failed",
            verbose=verbose,
            patience=WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes),
        )
    if not as_json:
        click.echo(f"report: attnfd-ray report {result.store} --experiment {settings.experiment}")
