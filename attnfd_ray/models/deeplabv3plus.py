"""DeepLabV3+ as the released AttnFD code has it, without CBAM: backbone, pyramid, decoder.

Source: Chen et al., ECCV 2018. The attention gates of a distillation belong to the method
(`distill`), so a trained student is a plain DeepLabV3+.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models.aspp import ASPP
from attnfd_ray.models.base import SegmentationModel
from attnfd_ray.models.decoder import Decoder
from attnfd_ray.models.layers import initialise, scaled

_HEAD_TAPS = {
    "aspp_pre": "aspp.bn1",
    "aspp": "aspp.relu",
    "decoder_pre": "decoder.last_conv.5",
    "decoder": "decoder.last_conv.6",
    "logits": "decoder.last_conv.8",
}


class DeepLabV3Plus(SegmentationModel):
    """Images of any size to logits at that size; first weights from torch's global generator.

    Taps:

    - stage1 to stage4: before their ReLU (MobileNet's stages are linear).
    - aspp: after ReLU, before dropout; aspp_pre: before that ReLU.
    - decoder: after the ReLU of the second 3x3 convolution; decoder_pre: before it.
    - logits: before the last up-sampling.

    In train mode a batch needs two images or more (see `ASPP`).
    """

    tap_names: ClassVar[tuple[str, ...]] = ("stage1", "stage2", "stage3", "stage4", *_HEAD_TAPS)

    def __init__(self, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__()
        make_backbone = registry.load("backbone", settings.backbone)
        self.num_classes = num_classes
        self.backbone = make_backbone(width=settings.width, output_stride=settings.output_stride)
        pyramid_channels = scaled(256, settings.width)
        self.aspp = ASPP(
            self.backbone.channels, pyramid_channels, output_stride=settings.output_stride
        )
        self.decoder = Decoder(
            pyramid_channels,
            self.backbone.low_channels,
            width=settings.width,
            num_classes=num_classes,
        )
        stages = {name: f"backbone.{tap.path}" for name, tap in self.backbone.stages.items()}
        self.taps = stages | _HEAD_TAPS
        initialise(self)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NCHW at the height and width of the images."""
        low_level, high_level = self.backbone(images_NCHW)
        logits = self.decoder(self.aspp(high_level), low_level)
        return F.interpolate(
            logits, size=images_NCHW.shape[-2:], mode="bilinear", align_corners=True
        )

    def tap_channels(self) -> dict[str, int]:
        """Return the channel count of every tap in `taps`."""
        stages = {name: tap.channels for name, tap in self.backbone.stages.items()}
        pyramid_channels = self.aspp.bn1.num_features
        decoder_channels = self.decoder.channels
        return stages | {
            "aspp_pre": pyramid_channels,
            "aspp": pyramid_channels,
            "decoder_pre": decoder_channels,
            "decoder": decoder_channels,
            "logits": self.num_classes,
        }

    def last_norm(self, tap: str) -> nn.BatchNorm2d | None:
        """Return the last BatchNorm of a stage or of a head's `_pre` tap.

        In a residual stage that is the last BatchNorm of the last block's branch.
        """
        if tap not in (*self.backbone.stages, "aspp_pre", "decoder_pre"):
            return None
        last = None
        for module in self.get_submodule(self.taps[tap]).modules():
            if isinstance(module, nn.BatchNorm2d):
                last = module
        return last
