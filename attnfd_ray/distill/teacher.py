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
    """Features of a network that never learns, whatever mode its parent is put in.

    `teacher(images_NCHW)` returns `{tap: features_NCHW}` without gradient, for the taps of the last
    `set_taps`. No parameter requires a gradient, and no buffer ever changes.

    >>> from attnfd_ray.config.schema import ModelSettings
    >>> from attnfd_ray.models import build_model
    >>> network = build_model(ModelSettings(backbone="resnet18", width=0.125), num_classes=4)
    >>> teacher = FrozenTeacher(network)
    >>> teacher.set_taps(["stage4", "logits"])
    >>> features = nn.Sequential(teacher).train()(torch.zeros(2, 3, 64, 64))
    >>> {tap: tuple(feature.shape) for tap, feature in features.items()}
    {'stage4': (2, 64, 4, 4), 'logits': (2, 4, 16, 16)}
    >>> features["stage4"].requires_grad, teacher.training
    (False, False)
    """

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network: SegmentationModel = network.requires_grad_(False)
        self._recorder: TapRecorder | None = None
        self._mode: TeacherMode = "eval"
        super().train(False)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Keep the mode of the last `set_mode`, also where a part was put in another one."""
        super().train(False)
        return self.set_mode(self._mode)

    def set_mode(self, mode: TeacherMode) -> FrozenTeacher:
        """Choose how the network runs from now on; return the teacher itself.

        - `eval`: BatchNorm uses its own statistics, dropout is off.
        - `batch_statistics`: BatchNorm uses the batch's statistics, dropout is off.
        - `train`: BatchNorm uses the batch's statistics, dropout is on.

        No running statistic changes in any mode.
        """
        self._mode = mode
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = mode != "eval"
                # a BatchNorm in training that tracks statistics would change them
                module.track_running_stats = mode == "eval"
            elif isinstance(module, nn.modules.dropout._DropoutNd):
                module.training = mode == "train"
        return self

    def pack(self) -> FrozenTeacher:
        """Make it faster in fp32 on the CPU it is on; return the teacher itself.

        Its answers change by rounding only. Call it before `set_taps`.
        """
        pack_convolutions(self.network)
        return self

    def set_taps(self, taps: Sequence[str]) -> None:
        """Record these taps from now on, and no others. Raises ConfigError for an unknown tap."""
        if self._recorder is not None:
            self._recorder.close()
        self._recorder = TapRecorder(self.network, taps)

    @torch.no_grad()
    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        assert self._recorder is not None, "set_taps() comes first"
        self.network(images_NCHW)
        features = dict(self._recorder.features)
        self._recorder.clear()
        return features
