"""`attnfd-ray confirm FILE`: whether the leaders of a search also win with fresh seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from attnfd_ray.cli.options import file_argument, progress_options, set_option, wait_options


@click.command("confirm")
@file_argument
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many leaders to run again.",
)
@click.option(
    "--seeds",
    type=click.IntRange(2, 1000),
    default=5,
    show_default=True,
    help="How many fresh seeds for each.",
)
@set_option("store=./results")
@progress_options
@wait_options
def confirm(
    file: Path,
    top: int,
    seeds: int,
    sets: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    wait_timeout: float,
    expect_nodes: int,
) -> None:
    """Run the leaders of FILE's latest search, and its baseline, again with fresh seeds.

    The best trial of a search may owe its score to a lucky seed, so no seed of the search is used
    here. Leaders are the configs with the highest val_miou, also if the search had several metrics.
    The same command resumes; more --top or --seeds add runs to those that are there. Decide on the
    number beforehand: adding seeds until something wins is luck again.
    """
    from rich.console import Console

    from attnfd_ray.analysis.summary import summarise
    from attnfd_ray.cli.progress import progress
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.report.text import show_confirmation
    from attnfd_ray.runtime.cluster import environment
    from attnfd_ray.store.store import Store

    settings = load_experiment(file, sets=sets)
    environment.prepare()
    from attnfd_ray.runtime.cluster.preflight import WaitPolicy
    from attnfd_ray.runtime.confirm import confirm as run

    wait_policy = WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes)
    with progress(settings, as_json=as_json, searching=True) as callback:
        result = run(
            settings, callback, top=top, seeds=seeds, verbose=verbose, wait_policy=wait_policy
        )
    shown = summarise(Store.open(result.store, create=False), experiment=settings.experiment).shown
    if shown is None:
        return
    for confirmation in shown.confirmations:
        if confirmation.search_id != result.id:
            continue
        if as_json:
            click.echo(json.dumps({"event": "confirmed"} | dataclasses.asdict(confirmation)))
        else:
            show_confirmation(confirmation, Console())
