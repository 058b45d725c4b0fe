"""`attnfd-ray check FILE`: whether an experiment can go on this machine or cluster, with the
arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.options import patience_options


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a setting: --set train.epochs=3",
)
@patience_options
def check(file: Path, sets: tuple[str, ...], wait_timeout: float, expect_nodes: int) -> None:
    """Tell whether the experiment in FILE can go, and what it will take.

    Looks at the data, both networks, the cluster, and on every node at the store, the data, the
    teacher, the files that networks start from and the versions of what computes. Exit code 0 says
    go; else each obstacle is a line on stderr, and the code is 2. Before they start, train, tune
    and confirm look at the same.
    """
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.runtime.cluster import environment

    settings = load_experiment(file, sets=sets)
    environment.prepare()
    from attnfd_ray.runtime.cluster.preflight import WaitPolicy
    from attnfd_ray.runtime.commands import check as run

    for line in run(
        settings,
        WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes),
        lambda text: click.echo(text, err=True),
    ):
        click.echo(line)
