"""Decodes the run-length masks of COCO, as lists of numbers and as compressed strings. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_Integers = NDArray[np.int64]

_MOST_DIGITS = 7  # 35 bits: more pixels than any image has


def decode_rle(rle: object, height: int, width: int) -> Mask:
    """Return mask_HW of `{"size": [height, width], "counts": ...}`; ValueError says in words what
    is wrong with it.

    The counts are lengths of runs, of 0 and 1 in turn and first of 0, down the columns from left to
    right.
    """
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise ValueError("a mask that is no RLE; needed are size and counts")
    if rle["size"] != [height, width]:
        raise ValueError(
            f"an RLE of size {str(rle['size'])[:40]}; needed is the image's [{height}, {width}]"
        )
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else _plain(counts, height * width)
    if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError(
            f"an RLE whose runs do not make up the image; needed are {height * width} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _plain(counts: object, num_pixels: int) -> _Integers:
    if not isinstance(counts, list) or not all(
        isinstance(run, int) and 0 <= run <= num_pixels for run in counts
    ):
        raise ValueError(
            f"RLE counts that are no lengths of runs; needed are whole numbers 0..{num_pixels}"
        )
    return np.array(counts, dtype=np.int64)


def _decompress(counts: str) -> _Integers:
    """Return the runs of a compressed string.

    A character less 48 holds five bits of a number, the lowest first; bit 0x20 says that more
    follow, and bit 0x10 of the last is the sign. From the fourth on a number is the difference to
    the run two before.
    """
    codes = (
        np.frombuffer(counts.encode("utf-8", "surrogatepass"), dtype=np.uint8).astype(np.int64) - 48
    )
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & 0x20:
        raise ValueError(
            "RLE counts that are no compressed runs; needed is a whole string of the characters "
            "0..o"
        )
    ends = np.flatnonzero(codes & 0x20 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > _MOST_DIGITS:
        raise ValueError(
            f"RLE counts with a number of {digits.max()} characters; needed are at most "
            f"{_MOST_DIGITS}"
        )
    places = np.arange(len(codes)) - np.repeat(starts, digits)
    numbers = np.add.reduceat((codes & 0x1F) << 5 * places, starts)
    numbers -= np.where(codes[ends] & 0x10, np.int64(1) << 5 * digits, 0)
    runs = numbers.copy()
    runs[1::2], runs[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    return runs
