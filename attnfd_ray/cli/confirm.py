"""`attnfd-ray confirm FILE`: whether the leaders of a search hold over fresh seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from attnfd_ray.cli.options import patience_options


@click.command("confirm")
@click.argument("file", type=click.Path(path_type=Path))
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
    help="Over how many fresh seeds.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a setting: --set store=./results",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line for everything that happens.")
@click.option("-v", "--verbose", is_flag=True, help="Print what Ray and the workers say too.")
@patience_options
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
    """Run the leaders of FILE's latest search, and its baseline, again over fresh seeds, and say
    what holds.

    A search crowns lucky seeds, so none that it used counts here. Leaders are those with the
    highest val_miou, also where the search had several metrics. The same command again goes on
    where it stopped; more --top or --seeds add to what is there. Decide them beforehand: adding
    seeds until something wins is luck again.
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

    patience = WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes)
    with progress(settings, as_json=as_json, searching=True) as listener:
        result = run(settings, listener, top=top, seeds=seeds, verbose=verbose, patience=patience)
    shown = summarise(Store.open(result.store, create=False), experiment=settings.experiment).shown
    for confirmation in shown.confirmations if shown else ():
        if confirmation.search_id != result.id:
            continue
        if as_json:
            click.echo(json.dumps({"event": "confirmed"} | dataclasses.asdict(confirmation)))
        else:
            show_confirmation(confirmation, Console())
