"""Networks of segmentation_models.pytorch (smp): `arch: smp/Unet` and so on.

They take any of its encoders. smp is imported late. Tensors keep its names (encoder, decoder,
segmentation_head), so its state dicts fit.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.base import Architecture, SegmentationModel
from attnfd_ray.models.smp_encoders import own_names, source
from attnfd_ray.models.tensors import Tensors

# Paths of the taps of a head where they are not `decoder` and the head's first convolution. A tap
# is before dropout where that is possible.
HEADS = {
    "DeepLabV3": {"aspp": "decoder.aspp.project.2"},
    "DeepLabV3Plus": {"aspp": "decoder.aspp.0.project.2"},
    "PSPNet": {"decoder": "decoder.conv"},
    "DPT": {"decoder": "segmentation_head.head.2", "logits": "segmentation_head.head.4"},
}


def architecture(name: str) -> Architecture:
    """Return the architecture of smp's class `name`.

    Raises ConfigError if smp has no such class or is not installed.
    """
    smp = _library(name)
    known = [kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()]
    if name not in known:
        words = [f"smp/{each}" for each in known]
        raise ConfigError(f"unknown arch 'smp/{name}'{registry.suggestion(f'smp/{name}', words)}")
    kind = getattr(smp, name)
    return Architecture(
        make=partial(SmpModel, kind),
        imagenet=lambda settings: source(settings.backbone),
        choices={
            "backbone": _encoders(smp, kind),
            "width": (1.0,),
            "output_stride": _strides(kind),
        },
    )


class SmpModel(SegmentationModel):
    """A network of segmentation_models.pytorch with its default options.

    Taps: stage1 (stride 4) to stage4 as the encoder returns them, after their last activation.
    PSPNet's encoder ends with stage2. aspp where there is one, decoder before the classifier,
    logits before the last up-sampling.

    Images whose sides are no multiple of the encoder's stride are padded with zeros, right and
    below. Crops for distillation should be a multiple, so that the features of both networks cover
    the same area.
    """

    backbone_path = "encoder"

    def __init__(self, kind: Any, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__()
        network = _made(kind, settings, num_classes)
        self.encoder: nn.Module = network.encoder
        self.decoder: nn.Module = network.decoder
        self.segmentation_head: nn.Module = network.segmentation_head
        self.taps = _taps(kind)
        self._encoder_name = settings.backbone
        if kind.__name__ == "PAN":  # halves its deepest feature three times
            self.probe_pixels = 8 * settings.output_stride
        try:
            _freeze_unused(self)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{settings.arch} cannot run on {settings.backbone}: {_first_line(error)}"
            ) from None

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NCHW at the height and width of the images."""
        height, width = images_NCHW.shape[-2:]
        stride = int(self.encoder.output_stride)  # type: ignore[arg-type]
        padded_NCHW = F.pad(images_NCHW, (0, -width % stride, 0, -height % stride))
        features = self.encoder(padded_NCHW)
        if not isinstance(features, tuple):  # DPT's encoder returns its prefix tokens too
            features = (features,)
        logits: Tensor = self.segmentation_head(self.decoder(*features))
        return logits[..., :height, :width]

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the encoder's parameters."""
        return self.encoder.parameters()

    def from_classifier(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return a classifier's tensors, from smp, timm or a package, under the encoder's names."""
        return own_names(self.encoder, self._encoder_name, tensors)


def _library(name: str) -> Any:
    try:
        import segmentation_models_pytorch
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"arch 'smp/{name}' needs the package '{error.name}', not installed: pip install "
            "attnfd-ray[smp]"
        ) from None
    return segmentation_models_pytorch


def _default(kind: Any, argument: str) -> Any:
    return inspect.signature(kind).parameters[argument].default


def _encoders(smp: Any, kind: Any) -> Collection[str]:
    """Return the encoders a class can have, the default first: smp's own, and timm's as `tu-NAME`.

    DPT takes only the latter.
    """
    import timm

    of_timm = [f"tu-{name}" for name in (*timm.list_models(), *timm.list_pretrained())]
    if kind is smp.DPT:
        return dict.fromkeys([_default(kind, "encoder_name"), *of_timm])
    return dict.fromkeys(["resnet18", *smp.encoders.get_encoder_names(), *of_timm])


def _strides(kind: Any) -> Collection[int]:
    """Return the output strides a class can have, the default first."""
    argument = inspect.signature(kind).parameters.get("encoder_output_stride")
    if argument is None:
        return (2 ** _default(kind, "encoder_depth"),)
    default = ModelSettings().output_stride
    return sorted(get_args(argument.annotation), key=lambda stride: stride != default)


def _taps(kind: Any) -> dict[str, str]:
    """Return name -> path for a class.

    An encoder returns the image and a feature of stride 2 before stage1. DPT's does not.
    """
    depth = _default(kind, "encoder_depth")
    paths = [f"encoder[{index}]" for index in range(2, depth + 1)]
    if kind.__name__ == "DPT":
        paths = [f"encoder[0][{index}]" for index in range(depth)]
    taps = {f"stage{number}": path for number, path in enumerate(paths, 1)}
    heads = {"decoder": "decoder", "logits": "segmentation_head.0"} | HEADS.get(kind.__name__, {})
    for name in ("aspp", "decoder", "logits"):
        if name in heads:
            taps[name] = heads[name]
    return taps


def _made(kind: Any, settings: ModelSettings, num_classes: int) -> Any:
    """Return smp's own network, without weights. Raises ConfigError where smp cannot make it."""
    options: dict[str, Any] = {}
    if "encoder_output_stride" in inspect.signature(kind).parameters:
        options["encoder_output_stride"] = settings.output_stride
    if kind.__name__ == "DPT":  # else a ViT of timm's takes images of its own size only
        options["dynamic_img_size"] = True
    try:
        return kind(settings.backbone, encoder_weights=None, classes=num_classes, **options)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{settings.arch} cannot be made on {settings.backbone}: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    text = str(error)
    if error.args:
        text = str(error.args[0])
    text = text.strip() or type(error).__name__
    return text.splitlines()[0]


def _freeze_unused(model: SmpModel) -> None:
    """Freeze parameters that no logit depends on, such as PSPNet's unused stages of the encoder.

    They never get gradients, so several workers could not average them.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    image = parameters[0].new_zeros((1, 3, model.probe_pixels, model.probe_pixels))
    with torch.enable_grad():
        logits = model.eval()(image)
        gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    model.train()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
