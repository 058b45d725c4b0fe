"""No distillation: the student alone; a teacher is trained in the same way."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.distill.method import Method


class NoDistillation(Method):
    """A method without taps, parameters and loss terms."""

    class Settings(MethodSettings):
        """`method: {name: none}` has no settings."""

        name: Literal["none"] = "none"

    needs_teacher: ClassVar[bool] = False

    def __init__(self, settings: object = None, networks: object = None) -> None:
        super().__init__()

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return no taps."""
        return ()

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        return {}
