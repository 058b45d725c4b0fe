"""`attnfd-ray report`: prints the results in a store."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.options import store_argument


@click.command("report")
@store_argument
@click.option(
    "--experiment",
    metavar="NAME",
    help="Show this experiment; by default, the one that wrote last.",
)
@click.option(
    "--best-config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the best trial's settings as a YAML file for `attnfd-ray train`.",
)
@click.option("--trial", metavar="TRIAL", help="With --best-config: this trial's settings instead.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document, in which mIoU is a fraction 0..1.",
)
def report(
    store: str, experiment: str | None, best_config: Path | None, trial: str | None, as_json: bool
) -> None:
    """Print the results in STORE: teacher, baseline, best config, front, ranking, failures, cost.

    STORE defaults to $ATTNFD_STORE, else ./results.
    """
    if trial and not best_config:
        raise click.UsageError("--trial says whose settings --best-config FILE writes: give both")
    from rich.console import Console

    from attnfd_ray.analysis.records import to_json
    from attnfd_ray.analysis.summary import summarise
    from attnfd_ray.report.best_config import write_best_config
    from attnfd_ray.report.text import show
    from attnfd_ray.store.store import Store

    results = Store.open(store, create=False)
    summary = summarise(results, experiment=experiment)
    if as_json:
        click.echo(to_json(summary))
    else:
        show(summary, Console())
    if best_config:
        trial_id = write_best_config(results, summary, best_config, trial_id=trial)
        click.echo(f"{best_config}: the settings of trial {trial_id}", err=True)
