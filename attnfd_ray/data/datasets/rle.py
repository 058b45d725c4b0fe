"""Decodes the run-length masks of COCO: lists of numbers and compressed strings. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_Integers = NDArray[np.int64]

_MAX_DIGITS = 7  # 35 bits: more pixels than any image has
_MORE_FOLLOW = 0x20
_SIGN = 0x10
_DIGIT = 0x1F


def decode_rle(rle: object, height: int, width: int) -> Mask:
    """Return mask_HW of `{"size": [height, width], "counts": ...}`.

    The counts are lengths of runs, in turn of 0 and of 1, starting with 0. Runs go down the columns
    from left to right. ValueError describes what is wrong with the RLE.
    """
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise ValueError("a mask that is not an RLE; needed are size and counts")
    if rle["size"] != [height, width]:
        raise ValueError(
            f"an RLE of size {str(rle['size'])[:40]}; needed is the image's [{height}, {width}]"
        )
    num_pixels = height * width
    runs = _runs(rle["counts"], num_pixels)
    is_outside = (runs < 0) | (runs > num_pixels)
    if is_outside.any() or runs.sum() != num_pixels:
        raise ValueError(
            f"an RLE whose runs do not add up to the image; needed are {num_pixels} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _runs(counts: object, num_pixels: int) -> _Integers:
    if isinstance(counts, str):
        return _decompress(counts)
    if not isinstance(counts, list) or not all(_is_run(run, num_pixels) for run in counts):
        raise ValueError(
            f"RLE counts that are not lengths of runs; needed are whole numbers 0..{num_pixels}"
        )
    return np.array(counts, dtype=np.int64)


def _is_run(run: object, num_pixels: int) -> bool:
    return isinstance(run, int) and 0 <= run <= num_pixels


def _decompress(counts: str) -> _Integers:
    """Return the runs of a compressed string.

    A character minus 48 holds five bits of a number, the lowest bits first. Bit 0x20 means that
    more characters follow; bit 0x10 of the last character is the sign. From the fourth number on, a
    number is the difference to the run two before.
    """
    encoded = np.frombuffer(counts.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    codes = encoded.astype(np.int64) - 48
    is_wrong = (codes < 0) | (codes > 63)
    if not len(codes) or is_wrong.any() or codes[-1] & _MORE_FOLLOW:
        raise ValueError(
            "RLE counts that are not a compressed string; needed are all of its characters 0..o"
        )
    ends = np.flatnonzero(codes & _MORE_FOLLOW == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    num_digits = ends - starts + 1
    if num_digits.max() > _MAX_DIGITS:
        raise ValueError(
            f"RLE counts with a number of {num_digits.max()} characters; needed are at most "
            f"{_MAX_DIGITS}"
        )
    digit_index = np.arange(len(codes)) - np.repeat(starts, num_digits)
    digits = (codes & _DIGIT) << 5 * digit_index
    numbers = np.add.reduceat(digits, starts)
    complements = np.int64(1) << 5 * num_digits
    numbers -= np.where(codes[ends] & _SIGN, complements, 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs
