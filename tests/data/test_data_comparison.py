"""The picture of images, labels and predictions: its layout, and the choice of images."""

import numpy as np
from PIL import Image

from attnfd_ray.data.checker.comparison import ComparisonRow, most_classes, side_by_side
from attnfd_ray.data.checker.overlays import legend, painted

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 200, 0))
NAMES = ("background", "disc", "ring")


def label(*classes: int) -> np.ndarray:
    return np.array([classes], np.uint8)


def row(*values: int, height: int = 16, width: int = 16) -> ComparisonRow:
    """Return a white image, and for each value a label that is that value everywhere."""
    image = np.full((height, width, 3), 255, np.uint8)
    return ComparisonRow(image, [np.full((height, width), value, np.uint8) for value in values])


def drawn(rows: list[ComparisonRow], titles: list[list[str]], note: str = "") -> np.ndarray:
    return np.array(side_by_side(rows, titles, NAMES, PALETTE, note=note))


def test_every_pixel_has_the_colour_of_its_class_and_what_does_not_count_is_hatched():
    painted_HWC = painted(np.array([[0, 1], [2, 255]], np.uint8), PALETTE)
    assert painted_HWC[0].tolist() == [[0, 0, 0], [200, 0, 0]]
    assert painted_HWC[1, 0].tolist() == [0, 200, 0]
    assert painted_HWC[1, 1].tolist() == [96, 96, 96]


def test_columns_are_beside_each_other_and_rows_below():
    sheet = drawn([row(1, 2), row(2, 1)], [["image"], ["label"], ["baseline", "mIoU 14.50 %"]])
    # margins of 6, a head of two lines of 18, tiles of 256: 16 pixels, sixteen times as large
    centres = [
        [sheet[6 + 36 + 128 + y * 262, 6 + 128 + x * 262].tolist() for x in range(3)]
        for y in range(2)
    ]
    assert centres == [
        [[255, 255, 255], [200, 0, 0], [0, 200, 0]],
        [[255, 255, 255], [0, 200, 0], [200, 0, 0]],
    ]
    key = np.array(legend(NAMES, PALETTE, sheet.shape[1]))
    assert (sheet[6 + 36 + 2 * 262 :][: len(key)] == key).all()


def test_titles_and_note_are_written():
    def ink(titles: list[list[str]], note: str = "") -> tuple[int, int]:
        dark = drawn([row(1)], titles, note).min(axis=2) < 128
        return int(dark[:24].sum()), int(dark[-24:].sum())

    assert ink([["image"], ["label"]])[0] > ink([["image"], [""]])[0] > ink([[""], [""]])[0] == 0
    assert ink([[""], [""]], note="chosen by their labels")[1] > ink([[""], [""]])[1]


def test_a_title_that_is_too_long_is_cut_and_does_not_run_into_the_next_column():
    both = drawn([row(1)], [["image"], ["x" * 500]])
    beside = drawn([row(1)], [["x\n" * 500], [""]])
    assert both.shape == beside.shape
    assert (beside[: 6 + 18, 6 + 256 :] == 255).all()


def test_images_of_other_sizes_and_shapes_are_drawn_in_full():
    sheet = drawn(
        [row(1, height=300, width=400), row(2, height=40, width=30)], [["image"], ["label"]]
    )
    assert (sheet == (200, 0, 0)).all(axis=2).sum() >= 192 * 256
    assert (sheet == (0, 200, 0)).all(axis=2).sum() >= 240 * 180  # 40x30 pixels, six times as large


def test_a_label_of_another_size_than_its_image_is_drawn_in_the_image_s_size():
    wide = ComparisonRow(np.zeros((20, 40, 3), np.uint8), [np.ones((7, 14), np.uint8)])
    sheet = drawn([wide], [["image"], ["label"]])
    red = np.argwhere((sheet == (200, 0, 0)).all(axis=2) & (np.arange(sheet.shape[1]) > 246))
    assert (np.ptp(red[red[:, 0] < 150], axis=0) + 1).tolist() == [120, 240]


def test_names_from_a_file_may_hold_anything():
    names = ("a\nb", "x" * 5000, "[red]")
    picture = side_by_side([row(1)], [["image"], ["label"]], names, PALETTE, note="n" * 5000)
    assert isinstance(picture, Image.Image)
    assert picture.width == 6 + 2 * 262


def test_the_images_with_most_classes_are_taken_and_stay_in_order():
    labels = [label(0), label(0, 1), label(0, 1, 2), label(0, 3), label(255, 0)]
    assert most_classes(labels, 1) == [2]
    assert most_classes(labels, 2) == [2, 3]
    # all classes are shown, so the count starts again with the images left
    assert most_classes(labels, 3) == [1, 2, 3]


def test_no_more_images_are_taken_than_there_are_and_each_once():
    labels = [label(0), label(0), label(255)]
    assert most_classes(labels, 9) == [0, 1, 2]
    assert most_classes(labels, 2) == [0, 1]
    assert most_classes([], 2) == []
