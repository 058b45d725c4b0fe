"""Presets: whole recipes as data, each setting with its value and the reason. No torch.

`preset: NAME` in a settings file fills in what the file leaves out. `attnfd-ray explain NAME`
prints the reasons. The method of the same name takes its defaults from here too. Locations such as
distiller.py:49 are in the released code, github.com/AmirMansurian/AttnFD at commit f090bbe; issues
are of that repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attnfd_ray import registry
from attnfd_ray.config.schema import ExperimentSettings


@dataclass(frozen=True)
class Choice:
    """A setting by its dotted path, the value it is given, and why."""

    path: str
    value: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe: a summary, its choices, and in `differences` how it differs from its source."""

    summary: str
    choices: tuple[Choice, ...]
    differences: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the preset and of its method."""
        return str(self.of_method()["name"])

    def of_method(self) -> dict[str, Any]:
        """Return the chosen settings of the method, by name."""
        return {
            choice.path.removeprefix("method."): choice.value
            for choice in self.choices
            if choice.path.startswith("method.")
        }

    def fillings(self) -> dict[str, Any]:
        """Return `dotted path -> value` of the settings that a file takes from the preset.

        Of the method that is only the name, from which its other defaults follow. So a file that
        names another method gets the recipe around it and no setting of this method.
        """
        return {
            choice.path: choice.value
            for choice in self.choices
            if choice.path == "method.name" or choice.path.partition(".")[0] != "method"
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield setting, default, value and why of each choice.

        A default is None for a setting that every file has to give.
        """
        for choice in self.choices:
            yield {
                "setting": choice.path,
                "default": _default(choice.path),
                "value": choice.value,
                "why": choice.why,
            }


def _default(path: str) -> Any:
    """Return the default of a setting; those of `method` are AttnFD's."""
    section, _, name = path.partition(".")
    record: Any = ExperimentSettings.model_fields[section].annotation
    if section == "method":
        record = registry.load("method", "attnfd").Settings
    field = record.model_fields[name]
    if field.is_required():
        return None
    default = field.get_default()
    if isinstance(default, tuple):
        return list(default)
    return default


ATTNFD = Preset(
    summary="AttnFD with what makes runs comparable: a teacher in eval mode, one meaning of the "
    "weight at any batch size",
    choices=(
        Choice("method.name", "attnfd", "the method that these settings belong to"),
        Choice(
            "method.norm",
            "batch",
            "one norm for the global batch, as released, but shared by workers and accumulated "
            "parts; a norm an image has a gradient that explodes where an image's features are "
            "near zero (benchmarks/why_attnfd.md)",
        ),
        Choice(
            "method.loss_weight",
            2.0,
            "the released weight (README, train_kd.py:256), for 29,000 steps from ImageNet "
            "weights; in a short training search it from 0.01 up (benchmarks/why_attnfd.md)",
        ),
        Choice("method.student_gate", "learned", "CBAM, every parameter of it in the optimiser"),
        Choice(
            "method.teacher_gate",
            "parameter_free",
            "for a teacher without a trained gate (the author in issue #6)",
        ),
        Choice("method.teacher_mode", "eval", "the same image always gets the same answer"),
        Choice(
            "method.connectors",
            "always",
            "the released ones learn in the first epoch only, while the student is frozen",
        ),
        Choice(
            "method.train_channel_mlp",
            True,
            "the released one is in no optimiser group (deeplab.py:47-65)",
        ),
        Choice("method.divide_by_batch", False, "lr and weight decay keep their usual meaning"),
        Choice("data.pad_label", 255, "padding is not an object to learn"),
        Choice("data.evaluation", "native", "mIoU as others report it: at the labels' own size"),
    ),
)

RELEASE = Preset(
    summary="AttnFD as its released code trains on Pascal VOC (github.com/AmirMansurian/AttnFD, "
    "commit f090bbe)",
    choices=(
        Choice(
            "method.name",
            "attnfd_release",
            "AttnFD with the settings of the released code for defaults",
        ),
        Choice(
            "method.layers",
            ["stage4", "aspp", "decoder"],
            "the last three features (distiller.py:45, range(3, ..))",
        ),
        Choice("method.loss_weight", 2.0, "README and train_kd.py:256"),
        Choice(
            "method.norm",
            "batch",
            "torch.norm of the whole batch's tensor (distiller.py:49); asked about the paper's "
            "channel-wise normalisation, the author says the code is right (issue #5)",
        ),
        Choice(
            "method.teacher_gate",
            "random_frozen",
            "forward() calls no gate (deeplab.py:32-38), so training a teacher (train.py:101) "
            "leaves its gates as drawn; for a teacher file that holds gates, from_checkpoint is "
            "what train_kd.py:37-38 does",
        ),
        Choice(
            "method.teacher_mode",
            "train",
            "the teacher runs in train(): batch statistics, dropout (train_kd.py:101-103)",
        ),
        Choice(
            "method.connectors",
            "first_epoch",
            "only connectors learn in the first epoch and never again (train_kd.py:56-60, 107-110)",
        ),
        Choice(
            "method.train_channel_mlp",
            False,
            "the optimiser's groups collect Conv2d and BatchNorm only (deeplab.py:47-65); the MLP "
            "is Linear",
        ),
        Choice(
            "method.divide_by_batch",
            True,
            "cross-entropy, a mean already, is divided by the batch again (utils/loss.py:21-33), "
            "AttnFD too (distiller.py:49); the same SGD without it: lr / batch, weight_decay x "
            "batch, loss_weight as it is",
        ),
        Choice(
            "data.crop",
            [513, 513],
            "--crop-size and --base-size, 513 by default (train_kd.py:183-292)",
        ),
        Choice(
            "data.scale", [0.5, 2.0], "short side from 256 to 1026 (custom_transforms.py:89-120)"
        ),
        Choice("data.scale_base", 513, "custom_transforms.py:89-120"),
        Choice("data.flip", 0.5, "pascal.py:84-92"),
        Choice("data.blur", 0.5, "pascal.py:84-92"),
        Choice(
            "data.pad_label",
            0,
            "padding is labelled background (custom_transforms.py:90, 114; pascal.py:87)",
        ),
        Choice(
            "data.evaluation",
            "resized",
            "image and label are resized, mIoU is of the resized label (pascal.py:97, "
            "custom_transforms.py:152-167)",
        ),
        Choice(
            "student.pretrained",
            "imagenet",
            "torchvision's resnet18-5c106cde and resnet101-5d3b4d8f",
        ),
        Choice(
            "optim.lr",
            0.007,
            "0.007 x batch / 6 (train_kd.py:183-292); change it with train.batch_size",
        ),
        Choice(
            "optim.head_lr_factor",
            10.0,
            "pyramid and decoder learn at 10 x lr (train_kd.py:183-292)",
        ),
        Choice("optim.momentum", 0.9, "--momentum, 0.9 by default (train_kd.py:183-292)"),
        Choice("optim.nesterov", True, "--nesterov in the README's command"),
        Choice("optim.weight_decay", 5e-4, "--weight-decay, 5e-4 by default (train_kd.py:183-292)"),
        Choice("optim.schedule", "poly", "a step at a time (lr_scheduler.py)"),
        Choice("optim.poly_power", 0.9, "lr_scheduler.py"),
        Choice("train.epochs", 120, "--epochs in the README's command"),
        Choice("train.batch_size", 6, "--batch-size in the README's command"),
        Choice("train.seed", 1, "--seed, 1 by default (train_kd.py:183-292)"),
    ),
    differences=(
        "no running statistic of the teacher moves; the released one's drift (train_kd.py:101-103)",
        (
            "a student that is distilled keeps the pyramid's dropout, as it does without a teacher "
            "(aspp.py:86, 111)"
        ),
        (
            "connectors learn at lr x head_lr_factor; the released schedule resets them to lr "
            "(lr_scheduler.py:64-65)"
        ),
        "a map of zeros gives 0 and not NaN (distiller.py:49 divides by its norm as it is)",
    ),
)

PAPER = Preset(
    summary="AttnFD in the words of its paper (arXiv 2403.05451, Sec. 3.3): the MSE of "
    "channel-normalised features",
    choices=(
        Choice("method.name", "attnfd_paper", "AttnFD with the settings of the paper for defaults"),
        Choice(
            "method.norm",
            "pixel",
            "each pixel's channel vector is normalised, as the paper is read in issue #5; the "
            "released code does not",
        ),
        Choice("method.squared", True, "the abstract says MSE"),
        Choice(
            "method.loss_weight",
            0.1,
            "of the authors' earlier code with this norm, un-squared "
            "(github.com/AmirMansurian/AICSD at b37bf9b, distiller.py); the paper's 2 is for the "
            "released norm",
        ),
        Choice("method.student_gate", "learned", "CBAM on both sides (the paper's method figure)"),
        Choice(
            "method.teacher_gate",
            "parameter_free",
            "the paper trains the teacher with its gate and freezes both (the author in issue #2); "
            "without a trained gate, the author names this one (issue #6)",
        ),
        Choice("method.teacher_mode", "eval", "a frozen teacher (the author in issue #2)"),
        Choice(
            "method.connectors",
            "always",
            "as in the authors' earlier code with this norm (AICSD at b37bf9b)",
        ),
        Choice("method.train_channel_mlp", True, "the student's attention is learned"),
        Choice(
            "method.divide_by_batch",
            False,
            "the loss is cross-entropy + weight x AttnFD (Sec. 3.3), no more",
        ),
    ),
    differences=(
        (
            "stage4 is read before its ReLU, as the released code does (resnet.py:208-209); the "
            "earlier code read it after"
        ),
    ),
)
