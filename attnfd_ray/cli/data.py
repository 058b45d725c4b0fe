"""`attnfd-ray data`: make a dataset, check one, look at one."""

from __future__ import annotations

import time
from pathlib import Path

import click

from attnfd_ray.cli.data_check import check, show
from attnfd_ray.cli.data_voc_aug import voc_aug


@click.group("data")
def data() -> None:
    """Make a dataset, check one, look at one."""


data.add_command(check)
data.add_command(show)
data.add_command(voc_aug)


@data.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=64,
    show_default=True,
    help="Side of an image, pixels.",
)
@click.option(
    "--train",
    type=click.IntRange(1, 99_999),
    default=400,
    show_default=True,
    help="Images to learn from.",
)
@click.option(
    "--val", type=click.IntRange(1, 99_999), default=100, show_default=True, help="Images to score."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Another seed, another set.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of train objects labelled as the class they are easily taken for.",
)
@click.option(
    "--patterns",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of objects that wear the pattern typical of their class, which makes them easier "
    "to tell.",
)
@click.option(
    "--objects",
    type=click.IntRange(1, 50),
    nargs=2,
    default=(3, 6),
    show_default=True,
    help="Objects in an image.",
)
@click.option(
    "--radius",
    type=click.IntRange(5, 40),
    nargs=2,
    default=(10, 21),
    show_default=True,
    help="Of objects, % of a side.",
)
def toyscenes(
    root: Path,
    size: int,
    train: int,
    val: int,
    seed: int,
    noise: float,
    patterns: float,
    objects: tuple[int, int],
    radius: tuple[int, int],
) -> None:
    """Write the made-up set toyscenes to ROOT: 12 classes, laid out as Pascal VOC."""
    from attnfd_ray.data.generate.toyscenes import write_toyscenes

    start = time.monotonic()
    written = write_toyscenes(
        root,
        size=size,
        train=train,
        val=val,
        seed=seed,
        noise=noise,
        patterns=patterns,
        objects=objects,
        radius=radius,
    )
    did = (
        f"written in {time.monotonic() - start:.1f} s"
        if written
        else "already there, nothing to do"
    )
    click.echo(f"{root}: {train} train and {val} val images of {size}x{size} pixels, {did}")
