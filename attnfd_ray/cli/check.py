"""`attnfd-ray check FILE`: whether an experiment can start on this machine or cluster."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.options import file_argument, set_option, wait_options


@click.command("check")
@file_argument
@set_option()
@wait_options
def check(file: Path, sets: tuple[str, ...], wait_timeout: float, expect_nodes: int) -> None:
    """Check whether the experiment in FILE can start, and print what it will take.

    Checks the data, both networks, the capacity of the cluster, and on every node: the store, the
    data, the teacher, the files that networks start from, and the versions of the software. Exit
    code 0 means go. Otherwise each obstacle is a line on stderr, and the exit code is 2. The
    commands train, tune and confirm make the same checks before they start.
    """
    from attnfd_ray.config.loader import load_experiment
    from attnfd_ray.runtime.cluster import environment

    settings = load_experiment(file, sets=sets)
    environment.prepare()
    from attnfd_ray.runtime.cluster.preflight import WaitPolicy
    from attnfd_ray.runtime.commands import check as run

    wait_policy = WaitPolicy(wait_s=wait_timeout, nodes=expect_nodes)
    for line in run(settings, wait_policy, lambda text: click.echo(text, err=True)):
        click.echo(line)
