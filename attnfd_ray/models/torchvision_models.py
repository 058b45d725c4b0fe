"""torchvision's segmentation networks: `arch: torchvision/deeplabv3_resnet50` and so on.

torchvision's models are imported late. Tensors keep torchvision's names, so its checkpoints fit,
except for the auxiliary head, which is never built.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.base import Architecture, SegmentationModel
from attnfd_ray.models.imagenet import of_torchvision
from attnfd_ray.models.tensors import Tensors

STAGES = ("stage1", "stage2", "stage3", "stage4")
# paths of the taps of a head; the pyramid and the decoder are after their ReLU and before dropout
HEADS = {
    "deeplabv3": {
        "aspp": "classifier.0.project.2",
        "decoder": "classifier.3",
        "logits": "classifier.4",
    },
    "fcn": {"decoder": "classifier.2", "logits": "classifier.4"},
    # its decoder is a gated feature that no module returns; this is the feature before the gate
    "lraspp": {"decoder": "classifier.cbr", "logits": "classifier"},
}


def architecture(name: str) -> Architecture:
    """Return the architecture of torchvision's network `name`. Raises ConfigError if unknown."""
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models.segmentation)
    if name not in known:
        words = [f"torchvision/{each}" for each in known]
        raise ConfigError(
            f"unknown arch 'torchvision/{name}'{registry.suggestion(f'torchvision/{name}', words)}"
        )
    backbone = name.partition("_")[2]
    output_stride = 16
    if backbone.startswith("resnet"):
        output_stride = 8
    return Architecture(
        make=partial(TorchvisionModel, name),
        imagenet=lambda settings: of_torchvision(settings.backbone),
        choices={
            "backbone": (backbone,),
            "width": (1.0,),
            "output_stride": (output_stride,),
        },
    )


class TorchvisionModel(SegmentationModel):
    """A network of torchvision with torchvision's initial weights, from torch's global generator.

    Taps: stage1..stage4, a ResNet's after their ReLU; aspp, decoder and logits as in `HEADS`.
    """

    classifier: nn.Module

    def __init__(self, name: str, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__()
        import torchvision

        network: Any = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False
        )
        head, _, backbone = name.partition("_")
        self.backbone = network.backbone
        self.classifier = network.classifier
        self._reads_all_features = head == "lraspp"
        if backbone.startswith("resnet"):
            ends = ["layer1", "layer2", "layer3", "layer4"]
        else:
            ends = _last_blocks(self.backbone)
        stages = {stage: f"backbone.{end}" for stage, end in zip(STAGES, ends, strict=True)}
        self.taps = stages | HEADS[head]

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NCHW at the height and width of the images."""
        features: Any = self.backbone(images_NCHW)
        if not self._reads_all_features:
            features = features["out"]
        logits: Tensor = self.classifier(features)
        return F.interpolate(
            logits, size=images_NCHW.shape[-2:], mode="bilinear", align_corners=False
        )

    def from_classifier(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the tensors of torchvision's classifier under the backbone's names.

        `fc` and `classifier` are left out.
        """
        return {
            name.removeprefix("features."): tensor
            for name, tensor in tensors.items()
            if not name.startswith(("fc.", "classifier."))
        }


def _last_blocks(features: nn.Module) -> list[str]:
    """Return the name of the last block of each of MobileNetV3's stages from stride 4 on.

    The closing convolution belongs to the last stage.
    """
    names = [name for name, _ in features.named_children()]
    starts = [
        index for index, block in enumerate(features.children()) if getattr(block, "_is_cn", False)
    ]
    stops = [*starts[1:], len(names)]
    return [names[stop - 1] for stop in stops]
