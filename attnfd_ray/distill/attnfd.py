"""AttnFD: the student's attention-refined features follow the teacher's.

Source: arXiv 2403.05451, Sec. 3.3. With S = connector(gate_s(student)) and T = gate_t(teacher) at
each layer, the loss added to the cross-entropy is

    loss_weight * sum over layers of || S/|S| - T/|T| ||^2

|.| is the Frobenius norm of the features of the whole batch, over all workers and accumulated
parts. A term is 2 - 2 cos of the angle between S and T, so it is in [0, 4] at any batch size. The
released code has the same norm. `norm: image` normalises each image and averages over images.
`norm: pixel` normalises each pixel's channel vector and averages over pixels, as in the paper's
text. `presets` lists where the released code and the paper differ, with the sources.
"""

from __future__ import annotations

from torch import Tensor

from attnfd_ray.distill import gates
from attnfd_ray.distill.attnfd_settings import AttnFDSettings
from attnfd_ray.distill.features import TapModuleDict, connector, resized
from attnfd_ray.distill.method import Method, Networks
from attnfd_ray.distill.normalised import normalised_distance


class AttnFD(Method):
    """Attention-guided feature distillation."""

    class Settings(AttnFDSettings):
        """`method: {name: attnfd, ...}`."""

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.teacher_mode = settings.teacher_mode
        self.loss_over_batch_size = settings.divide_by_batch
        self.uses_batch_sums = settings.norm == "batch"
        # BatchNorm statistics of a part of a batch differ from those of the whole batch
        self.depends_on_batch = settings.teacher_mode != "eval"
        self.student_gates = TapModuleDict()
        self.teacher_gates = TapModuleDict()
        self.connectors = TapModuleDict()
        for layer in settings.layers:
            self._add_layer(layer, networks)

    def _add_layer(self, layer: str, networks: Networks) -> None:
        """Make the gates and the connector of one layer."""
        settings = self.settings
        student_channels = networks.student_channels[layer]
        teacher_channels = networks.teacher_channels[layer]
        self.student_gates[layer] = gates.student_gate(
            settings.student_gate,
            student_channels,
            settings.form,
            train_channel_mlp=settings.train_channel_mlp,
        )
        self.teacher_gates[layer] = gates.teacher_gate(
            settings.teacher_gate,
            teacher_channels,
            settings.form,
            layer=layer,
            seed=settings.teacher_gate_seed,
            teacher_file=networks.teacher_file,
            batch_statistics=settings.teacher_mode != "eval",
        )
        self.connectors[layer] = connector(student_channels, teacher_channels)

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Return what `connectors: first_epoch` freezes.

        In the first epoch only the connectors learn; from the second on they are frozen.
        """
        if self.settings.connectors == "always":
            return ()
        if epoch == 1:
            return ("student", "method.student_gates")
        return ("method.connectors",)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        settings = self.settings
        terms = {}
        for layer in settings.layers:
            target = self.teacher_gates[layer](teacher[layer])
            guess = self.connectors[layer](self.student_gates[layer](student[layer]))
            distance = self.distance(resized(guess, target), target)
            terms[f"{settings.name}/{layer}"] = settings.loss_weight * distance
        return terms

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        """Return the distance of one layer's refined features, a scalar."""
        settings = self.settings
        return normalised_distance(
            student_NCHW, teacher_NCHW, norm=settings.norm, squared=settings.squared
        )
