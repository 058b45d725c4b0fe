"""Whether both networks have the taps that a method compares, and how many channels those have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnfd_ray import registry
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel, TapShape, locate, tap_shapes


def check_taps(networks: Mapping[str, SegmentationModel], taps: Sequence[str]) -> None:
    """Raise ConfigError if a network lacks a tap. The keys of `networks` are student and teacher.

    The error names the first missing tap. It then lists the taps of every network: name, channels
    and stride, a line each.
    """
    for side, network in networks.items():
        for tap in taps:
            try:
                locate(network, tap)
            except ConfigError:
                near = registry.nearest(tap, network.taps) or ";"
                first = (
                    f"the {side} has no tap '{tap}'{near} there are modules' paths "
                    "(encoder.layer2) and:"
                )
                raise ConfigError([first, *_table(networks)]) from None


def channels_of(network: SegmentationModel, taps: Sequence[str]) -> dict[str, int]:
    """Return the channels of every named tap of the network, and of `taps` that are paths."""
    channels = network.tap_channels()
    paths = [tap for tap in taps if tap not in channels]
    if not paths:
        return dict(channels)
    shapes = tap_shapes(network, paths)
    return channels | {tap: shape.channels for tap, shape in shapes.items()}


def _table(networks: Mapping[str, SegmentationModel]) -> list[str]:
    """Return the lines of a table: a row for each tap, a column for each network."""
    shapes = [tap_shapes(network, network.taps) for network in networks.values()]
    names = dict.fromkeys(name for side in shapes for name in side)
    rows = [["tap", *(f"{side}: channels, stride" for side in networks)]]
    for name in names:
        rows.append([name, *(_cell(side.get(name)) for side in shapes)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_aligned(row, widths) for row in rows]


def _cell(shape: TapShape | None) -> str:
    if shape is None:
        return "-"
    return f"{shape.channels}, {shape.stride}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()
