"""The teacher: a network that answers but never learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from attnfd_ray.models import SegmentationModel, TapRecorder
from attnfd_ray.models.packed_conv import pack_convolutions

TeacherMode = Literal["eval", "batch_statistics", "train"]


class FrozenTeacher(nn.Module):
    """Features of a network that never learns and never moves, whatever mode its parent is put in.

    `teacher(images_NCHW)` returns `{tap: features_NCHW}` without gradient, for the taps last given
    to `set_taps`.
    """

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network: SegmentationModel = network.requires_grad_(False)
        self._recorder: TapRecorder | None = None
        self._mode: TeacherMode = "eval"
        super().train(False)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay as `set_mode` said, whatever mode a part was put in meanwhile."""
        super().train(False)
        return self.set_mode(self._mode)

    def set_mode(self, mode: TeacherMode) -> FrozenTeacher:
        """Run from now on with its own statistics (eval), with the batch's (batch_statistics), or
        also with dropout.

        Whatever the mode, no running statistic moves.
        """
        self._mode = mode
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = mode != "eval"
                module.track_running_stats = (
                    mode == "eval"
                )  # with it, a BatchNorm in training would move
            elif isinstance(module, nn.modules.dropout._DropoutNd):
                module.training = mode == "train"
        return self

    def pack(self) -> FrozenTeacher:
        """Make it faster in fp32 on the CPU it is on; its answers change by rounding only. Comes
        before `set_taps`.
        """
        pack_convolutions(self.network)
        return self

    def set_taps(self, taps: Sequence[str]) -> None:
        """Record these taps from now on, and no others."""
        if self._recorder is not None:
            self._recorder.close()
        self._recorder = TapRecorder(self.network, taps)

    @torch.no_grad()
    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        assert self._recorder is not None, "listen() comes first"
        self.network(images_NCHW)
        features = dict(self._recorder.features)
        self._recorder.clear()
        return features
