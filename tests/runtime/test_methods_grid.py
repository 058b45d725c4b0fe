"""The search space that compares all methods: each trains on real Ray, and one table has all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine
from PIL import Image

from attnfd_ray import registry
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.store.store import Store

SPACE = Path(__file__).parents[2] / "search_spaces/methods_camvid.yaml"
TINY = (
    "data.crop=[32, 32]",
    "teacher={backbone: resnet18, width: 0.125, train: {epochs: 1}}",
    "student={backbone: resnet18, width: 0.125}",
    "train.epochs=1",
    "train.batch_size=4",
)
SEEDS = 3


def write_camvid(root: Path) -> Path:
    """Write CamVid with images of noise: 4 to train, 2 to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for folder, shape, values in ((split, (32, 32, 3), 256), (f"{split}annot", (32, 32), 12)):
            (root / folder).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, values, shape, np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{split}{number}.png")
    return root


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_grid_of_methods_trains_every_one_and_reports_them_in_one_table(
    attnfd_ray: CommandLine, tmp_path: Path
) -> None:
    environment = {
        "CAMVID_ROOT": str(write_camvid(tmp_path / "camvid")),
        "ATTNFD_STORE": str(tmp_path / "store"),
    }
    done = attnfd_ray(
        "tune", SPACE, *(part for change in TINY for part in ("--set", change)), **environment
    )
    assert (done.returncode, done.stderr) == (0, "")

    shown = summarise(Store.open(environment["ATTNFD_STORE"], create=False)).shown
    assert shown is not None
    assert not shown.failures
    (protocol,) = shown.protocols
    lines = {line.method: line for line in protocol.configs if line.best_val_miou.num == SEEDS}
    # `sum` adds up other methods
    assert set(lines) == set(registry.TABLES["method"]) - {"sum"}
    assert all(line.best_val_miou.half_width is not None for line in lines.values())

    report = attnfd_ray("report", environment["ATTNFD_STORE"])
    assert report.returncode == 0
    table = report.stdout.partition("Over seeds of complete trials")[2].partition("Ranking")[0]
    rows = [line.split() for line in table.splitlines()]
    assert all(any(row[:1] == [method] and "±" in row for row in rows) for method in lines)
    # both the search's baseline and the grid's `none` are the student alone
    assert [row[:3] for row in rows if "(baseline)" in row] == [["none", "(baseline)", str(SEEDS)]]
