"""`attnfd-ray tune FILE`: searches the settings of the experiment."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.options import experiment_options, read_settings, wait_options


@click.command("tune")
@experiment_options
@wait_options
@click.option(
    "--warm-start",
    metavar="SOURCE",
    help="Start with the trials of an earlier search. SOURCE is an experiment of the same store, "
    "the directory of another store, or STORE:EXPERIMENT.",
)
@click.option(
    "--tune-baseline",
    type=click.IntRange(min=0),
    metavar="N",
    help="Give the student alone N trials of its own, over learning rate, weight decay and the "
    "other settings that it shares with the search, so that the gain is over a tuned student. "
    "Short for --set tune.baseline_trials=N.",
)
@click.option(
    "--retry",
    type=click.Choice(["failed"]),
    help="Also resume the trials that failed, from their last epoch; but not those whose settings "
    "made the loss diverge or memory run out.",
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
    """Search the settings of FILE, over the space in its `search:` section.

    The first trial is the student without a teacher, the second is the file as written, and those
    of --tune-baseline follow. The same command resumes; finished trials are not repeated.
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

    with progress(settings, as_json=as_json, searching=True) as callback:
        result = run(
            settings,
            callback,
            fresh=fresh,
            warm_start=warm_start,
            retry_failed=retry == "failed",
            verbose=verbose,
            wait_policy=WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes),
        )
    if not as_json:
        click.echo(f"report: attnfd-ray report {result.store} --experiment {settings.experiment}")
