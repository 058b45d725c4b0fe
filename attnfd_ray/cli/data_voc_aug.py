"""`attnfd-ray data voc-aug`: generates Pascal VOC's augmented training set."""

from __future__ import annotations

import time
from pathlib import Path

import click

from attnfd_ray.errors import one_line


@click.command("voc-aug")
@click.option(
    "--voc", required=True, metavar="ROOT", type=click.Path(path_type=Path), help="Pascal VOC 2012."
)
@click.option(
    "--sbd",
    required=True,
    metavar="ROOT",
    type=click.Path(path_type=Path),
    help="SBD: the directory benchmark_RELEASE.",
)
@click.option(
    "--any-count",
    is_flag=True,
    help="Accept reduced sets, with other than 10582 images, 9118 of them from SBD.",
)
def voc_aug(voc: Path, sbd: Path, any_count: bool) -> None:
    """Add the training set trainaug to Pascal VOC 2012, with masks of SBD where VOC has none.

    Writes SegmentationClassAug and the lists trainaug.txt and aug.txt beside the files of VOC:
    either all of it or nothing, and never over other files. No image of VOC's val split is in the
    lists. `data: {name: voc, train_split: trainaug}` trains on the set.
    """
    from rich.console import Console
    from rich.progress import Progress

    from attnfd_ray.data.generate.voc_aug import plan_trainaug, write_trainaug

    start_s = time.monotonic()
    plan = plan_trainaug(voc, sbd, any_count=any_count)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("masks", total=len(plan.sources))
        written = write_trainaug(plan, lambda done: bar.update(task, completed=done))
    result = "already there, nothing to do"
    if written:
        result = f"written in {time.monotonic() - start_s:.1f} s"
    home = one_line(str(plan.home))
    click.echo(f"{home}: {len(plan.trainaug)} images of trainaug, {len(plan.aug)} of aug, {result}")
    missing = plan.missing_images()
    if missing:
        from attnfd_ray.data.files import few

        warning = (
            f"{home}: {len(missing)} images of trainaug are missing in JPEGImages: {few(missing)}; "
            "copy them from the directory img of SBD"
        )
        click.echo(one_line(warning), err=True)
