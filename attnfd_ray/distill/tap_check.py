"""The taps that a method compares, on both networks: that they are there, and what there is if one
is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnfd_ray import registry
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel, TapShape, locate, tap_shapes


def check_taps(networks: Mapping[str, SegmentationModel], taps: Sequence[str]) -> None:
    """Raise ConfigError if a network lacks a tap; `networks` are by what they are called, `student`
    and `teacher`.

    It says which, and then lists the taps of every network: name, channels and stride, a line each.
    """
    for side, network in networks.items():
        for tap in taps:
            try:
                locate(network, tap)
            except ConfigError:
                near = registry.nearest(tap, network.taps)
                first = f"the {side} has no tap '{tap}'{near or ';'} there are modules' paths (encoder.layer2) and:"
                raise ConfigError([first, *_table(networks)]) from None


def channels_of(network: SegmentationModel, taps: Sequence[str]) -> dict[str, int]:
    """Return the channels of every tap that the network names, and of those of `taps` that are
    modules' paths.
    """
    named = network.tap_channels()
    paths = [tap for tap in taps if tap not in named]
    return named | {
        tap: shape.channels for tap, shape in (tap_shapes(network, paths) if paths else {}).items()
    }


def _table(networks: Mapping[str, SegmentationModel]) -> list[str]:
    shapes = [tap_shapes(network, network.taps) for network in networks.values()]
    names = list(dict.fromkeys(name for side in shapes for name in side))
    head = ["tap", *(f"{side}: channels, stride" for side in networks)]
    rows = [head, *([name, *(_cell(side.get(name)) for side in shapes)] for name in names)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _cell(shape: TapShape | None) -> str:
    return f"{shape.channels}, {shape.stride}" if shape else "-"
