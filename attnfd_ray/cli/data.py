"""`attnfd-ray data`: generates a dataset, checks one, or shows one."""

from __future__ import annotations

import time
from pathlib import Path

import click

from attnfd_ray.cli.data_check import check, show
from attnfd_ray.cli.data_voc_aug import voc_aug


@click.group("data")
def data() -> None:
    """Generate a dataset, check one, or show one."""


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
    help="Side of an image in pixels.",
)
@click.option(
    "--train",
    type=click.IntRange(1, 99_999),
    default=400,
    show_default=True,
    help="Number of training images.",
)
@click.option(
    "--val",
    type=click.IntRange(1, 99_999),
    default=100,
    show_default=True,
    help="Number of validation images.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Another seed gives other images.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Fraction of training objects that are labelled as a similar class.",
)
@click.option(
    "--patterns",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Fraction of objects with the pattern of their class, which makes them easier to "
    "recognise.",
)
@click.option(
    "--objects",
    type=click.IntRange(1, 50),
    nargs=2,
    default=(3, 6),
    show_default=True,
    help="Range of the number of objects in an image.",
)
@click.option(
    "--radius",
    type=click.IntRange(5, 40),
    nargs=2,
    default=(10, 21),
    show_default=True,
    help="Range of the radius of objects, in % of the image side.",
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
    """Write the synthetic dataset toyscenes to ROOT: 12 classes, in the layout of Pascal VOC."""
    from attnfd_ray.data.generate.toyscenes import write_toyscenes

    start_s = time.monotonic()
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
    result = "already there, nothing to do"
    if written:
        result = f"written in {time.monotonic() - start_s:.1f} s"
    click.echo(f"{root}: {train} train and {val} val images of {size}x{size} pixels, {result}")
