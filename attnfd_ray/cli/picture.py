"""`attnfd-ray picture`: draws the predictions of the networks in a store beside the labels."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.cli.files import check_png, write_file
from attnfd_ray.cli.options import store_argument
from attnfd_ray.errors import one_line


@click.command("picture")
@store_argument
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="PICTURE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The PNG to write.",
)
@click.option(
    "--experiment",
    metavar="NAME",
    help="Draw this experiment; by default, the one that wrote last.",
)
@click.option(
    "--images",
    type=click.IntRange(1, 50),
    default=4,
    show_default=True,
    help="How many images of the val split.",
)
@click.option(
    "--teacher",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The teacher's weights, if it was not trained in STORE.",
)
@click.option(
    "--data-root",
    metavar="DIR",
    help="The directory of the dataset, if it was moved since.",
)
@click.option(
    "--own-code",
    is_flag=True,
    help="Import a user's own dataset or network (module:Class) that STORE names.",
)
def picture(
    store: str,
    out: Path,
    experiment: str | None,
    images: int,
    teacher: Path | None,
    data_root: str | None,
    own_code: bool,
) -> None:
    """Draw the predictions of the networks in STORE.

    Each row has an image, its label, and the predictions of baseline, best config and teacher. The
    images are chosen by their labels alone: those with the most classes. STORE defaults to
    $ATTNFD_STORE, else ./results.
    """
    from attnfd_ray.store.store import Store

    check_png(out)
    from attnfd_ray.runtime.picture import draw

    drawn = draw(
        Store.open(store, create=False),
        experiment=experiment,
        num_images=images,
        teacher_file=teacher,
        data_root=data_root,
        own_code=own_code,
    )
    write_file(out, drawn.png)
    for line in drawn.missing:
        click.echo(f"not drawn: {one_line(line)}", err=True)
    click.echo(f"{one_line(str(out))}: {drawn.num_images} images; {', '.join(drawn.shown)}")
