"""`attnfd-ray gc`: deletes files of a results store that are no longer needed."""

from __future__ import annotations

import click

from attnfd_ray.cli.options import store_argument
from attnfd_ray.errors import one_line


@click.command("gc")
@store_argument
@click.option("--dry-run", is_flag=True, help="Only print what could be deleted.")
def gc(store: str, dry_run: bool) -> None:
    """Delete files in STORE that killed commands have left or that a search no longer needs.

    These are: files that were never written to their end, checkpoints of a search's ended trials,
    weights of trials that do not lead (by the search's own tune.keep_weights), and Ray's files of
    commands that have ended. Experiments that a command is working on are skipped. STORE defaults
    to $ATTNFD_STORE, else ./results.
    """
    from attnfd_ray.runtime.files.gc import collect
    from attnfd_ray.store.store import Store

    def log(text: str) -> None:
        click.echo(one_line(text), err=True)

    results = Store.open(store, create=False)
    total = 0
    for leftover in collect(results, dry_run=dry_run, log=log):
        total += leftover.size
        path = one_line(str(leftover.path.relative_to(results.root)))
        click.echo(f"{leftover.size / 2**20:10.2f} MiB  {path}  ({leftover.reason})")
    verb = "deleted"
    if dry_run:
        verb = "could be deleted"
    click.echo(f"{total / 2**20:10.2f} MiB  {verb}")
