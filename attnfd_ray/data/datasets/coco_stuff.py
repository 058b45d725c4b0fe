"""COCO-Stuff-164k: 80 kinds of things and 91 of stuff, every pixel of COCO 2017 labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.datasets.coco import find_directory
from attnfd_ray.data.palette import Colour, voc_colormap

# The published labels are 1..182; the value in a mask is one less. These 11 things were dropped
# before the release.
_UNUSED_VALUES = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

_THINGS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
_STUFF = """
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet,
ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower,
fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves,
light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow,
plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug,
salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete,
wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind,
window-other, wood
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _label_map() -> dict[int, int]:
    used_values = [value for value in range(182) if value not in _UNUSED_VALUES]
    return {value: label for label, value in enumerate(used_values)} | {255: IGNORED}


class COCOStuff(SegmentationDataset):
    """COCO-Stuff-164k: the masks of `stuffthingmaps_trainval2017.zip`, and images as COCO has them.

    Masks are in `annotations` or `stuffthingmaps`. The splits are train and val: the directories
    `{split}2017` of images and of masks. Published masks have 171 of the values 0..181, which
    become classes 0..170, and 255 where no label was given.
    """

    class_names: tuple[str, ...] = _names(_THINGS) + _names(_STUFF)
    palette: tuple[Colour, ...] = voc_colormap(171)
    label_map: Mapping[int, int] | None = _label_map()
    published: Mapping[str, int] = {"train": 118_287, "val": 5000}
    unread: Sequence[str] = ("annotations/*.json", "annotations/panoptic_*")

    def list_samples(self) -> Sequence[Sample]:
        """Return the images of the split, each with the mask of the same name.

        DataError if there are no such directories.
        """
        split = f"{self.split}2017"
        images = find_directory(self.root, split, f"images/{split}")
        masks = find_directory(self.root, f"annotations/{split}", f"stuffthingmaps/{split}")
        ids = sorted(path.stem for path in (self.root / images).glob("*.jpg"))
        return [
            Sample(sample_id, f"{images}/{sample_id}.jpg", f"{masks}/{sample_id}.png")
            for sample_id in ids
        ]
