"""`attnfd-ray picture`: images, labels, and what baseline, best config and teacher predict, side by
side.
"""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.errors import one_line


@click.command("picture")
@click.argument("store", envvar="ATTNFD_STORE", default="./results")
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
    help="Draw this experiment; without it, the one that wrote last.",
)
@click.option(
    "--images",
    type=click.IntRange(1, 50),
    default=4,
    show_default=True,
    help="How many images of val.",
)
@click.option(
    "--teacher",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The teacher's weights, where it was not trained in STORE.",
)
@click.option(
    "--data-root",
    metavar="DIR",
    help="Where the dataset is, if no longer where the trials found it.",
)
@click.option(
    "--own-code",
    is_flag=True,
    help="Import a dataset or network of someone's own (module:Class) that STORE names.",
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
    """Draw what the networks in STORE predict: a row for each image, and columns for image, label,
    baseline, best config and teacher.

    The images are chosen by their labels alone: those that hold most classes. STORE defaults to
    $ATTNFD_STORE, else ./results.
    """
    from attnfd_ray.cli.data_page import write
    from attnfd_ray.store.store import Store

    if out.suffix.lower() != ".png":
        raise click.BadParameter(
            f"{one_line(str(out))}: needs a name that ends in .png", param_hint="--out"
        )
    from attnfd_ray.runtime.picture import draw

    drawn = draw(
        Store.open(store, create=False),
        experiment=experiment,
        num_images=images,
        teacher_file=teacher,
        data_root=data_root,
        own_code=own_code,
    )
    write(out, drawn.png)
    for line in drawn.missing:
        click.echo(f"not drawn: {one_line(line)}", err=True)
    click.echo(f"{one_line(str(out))}: {drawn.num_images} images; {', '.join(drawn.shown)}")
