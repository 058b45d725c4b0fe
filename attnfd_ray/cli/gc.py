"""`attnfd-ray gc`: delete what nobody needs from a results store."""

from __future__ import annotations

import click

from attnfd_ray.errors import one_line


@click.command("gc")
@click.argument("store", envvar="ATTNFD_STORE", default="./results")
@click.option("--dry-run", is_flag=True, help="Only say what could go.")
def gc(store: str, dry_run: bool) -> None:
    """Delete what killed commands left in STORE, and what a search keeps no longer.

    That is: files never written to their end, checkpoints of a search's trials that ended, weights
    of those that do not lead (by its own tune.keep_weights), and what Ray kept for commands that
    are over. Experiments that a command works on are left alone. STORE defaults to $ATTNFD_STORE,
    else ./results.
    """
    from attnfd_ray.runtime.files.gc import collect
    from attnfd_ray.store.store import Store

    results, total = Store.open(store, create=False), 0
    for left in collect(
        results, dry_run=dry_run, say=lambda text: click.echo(one_line(text), err=True)
    ):
        total += left.size
        path = one_line(str(left.path.relative_to(results.root)))
        click.echo(f"{left.size / 2**20:10.2f} MiB  {path}  ({left.why})")
    click.echo(f"{total / 2**20:10.2f} MiB  {'could go' if dry_run else 'deleted'}")
