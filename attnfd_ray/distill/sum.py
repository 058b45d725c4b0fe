"""Several methods at once: the sum of their terms, each method with its own settings and weight.

method: {name: sum, terms: [{name: kd, weight: 1}, {name: cwd_feature, weight: 50, layers:
[decoder]}]}
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, WrapValidator, field_validator
from torch import Tensor, nn

from attnfd_ray import registry
from attnfd_ray.config.base import StrictModel, rule_error
from attnfd_ray.config.schema import AnyMethod, MethodSettings
from attnfd_ray.config.types import LossWeight
from attnfd_ray.distill.method import Method, Networks
from attnfd_ray.distill.teacher import TeacherMode
from attnfd_ray.errors import ConfigError


class _Weight(StrictModel):
    weight: LossWeight


def _weighted(value: Any, validate: Callable[[Any], MethodSettings]) -> MethodSettings:
    """Validate a term by its own method's record, with `weight` for that method's `loss_weight`."""
    if not (isinstance(value, dict) and "weight" in value):
        return validate(value)
    own = {name: each for name, each in value.items() if name != "weight"}
    if "loss_weight" in own:
        raise rule_error(
            [(("weight",), "stands beside loss_weight, which is the same; keep one of them")]
        )
    settings = validate(own)
    if "loss_weight" not in type(settings).model_fields:
        raise rule_error(
            [(("weight",), f"method '{settings.name}' has no loss_weight that it could set")]
        )
    weight = _Weight.model_validate({"weight": value["weight"]}).weight
    return validate(own | {"loss_weight": weight})


class Sum(Method):
    """The terms of its methods, each of which may be in it more than once; one of weight 0 is left
    out.

    There is one teacher: methods that ask for it in other than eval mode must agree on which, and
    those content with eval give way. They must agree on whether the loss is divided by the batch,
    too.
    """

    class Settings(MethodSettings):
        """`method: {name: sum, ...}`."""

        name: Literal["sum"] = "sum"
        loss_weight: Annotated[LossWeight, Field(description="factor on every term")] = 1.0
        terms: Annotated[list[Annotated[AnyMethod, WrapValidator(_weighted)]], Field(min_length=1)]

        @field_validator("terms")
        @classmethod
        def _agree(cls, terms: list[MethodSettings]) -> list[MethodSettings]:
            try:
                _shared(map(_wishes, _live(terms)))
            except ConfigError as error:
                raise ValueError(str(error)) from None
            return terms

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        parts = [
            registry.load("method", term.name)(term, networks) for term in _live(settings.terms)
        ]
        self.parts: Any = nn.ModuleList(parts)
        self.teacher_mode, self.loss_over_batch_size = _shared(
            (part.teacher_mode, part.loss_over_batch_size) for part in parts
        )
        self.depends_on_batch = any(part.depends_on_batch for part in parts)
        self.uses_batch_sums = any(part.uses_batch_sums for part in parts)

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return every tap that one of its methods wants, once."""
        wanted = (registry.load("method", term.name).taps(term) for term in _live(settings.terms))
        return tuple(dict.fromkeys(itertools.chain.from_iterable(wanted)))

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Let rest what one of its methods wants to rest."""
        return tuple(
            f"method.parts.{index}.{inside}".rstrip(".") if owner == "method" else prefix
            for index, part in enumerate(self.parts)
            for prefix in part.frozen_prefixes(epoch)
            for owner, _, inside in [prefix.partition(".")]
        )

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for part in self.parts:
            terms |= _apart(part(student, teacher, labels_NHW), terms)
        return {name: self.settings.loss_weight * term for name, term in terms.items()}


def _live(terms: Iterable[MethodSettings]) -> list[MethodSettings]:
    return [term for term in terms if getattr(term, "loss_weight", 1.0) != 0]


def _wishes(term: MethodSettings) -> tuple[TeacherMode, bool]:
    """Return what a method wants of the whole run, as far as its settings say: its own, else those
    of its class.
    """
    kind = registry.load("method", term.name)
    return (
        getattr(term, "teacher_mode", kind.teacher_mode),
        getattr(term, "divide_by_batch", kind.loss_over_batch_size),
    )


def _shared(wishes: Iterable[tuple[TeacherMode, bool]]) -> tuple[TeacherMode, bool]:
    """Return how the teacher runs and whether the loss is divided by the batch; ConfigError where
    wishes contradict.
    """
    modes, divides = set(), set()
    for mode, divide in wishes:
        modes.add(mode)
        divides.add(divide)
    modes.discard("eval")
    if len(modes) > 1:
        raise ConfigError(
            f"its methods want the teacher in unlike modes, {' and '.join(sorted(modes))}; keep "
            "one mode"
        )
    if len(divides) > 1:
        raise ConfigError(
            "some of its methods divide the loss by the batch and some do not; keep one kind"
        )
    return (modes.pop() if modes else "eval"), divides == {True}


def _apart(terms: dict[str, Tensor], taken: Collection[str]) -> dict[str, Tensor]:
    """Return terms under names not taken yet: `kd/logits`, else `kd_2/logits` and so on."""
    for number in itertools.count(1):
        named = {_numbered(name, number): term for name, term in terms.items()}
        if not named.keys() & taken:
            break
    return named


def _numbered(name: str, number: int) -> str:
    method, slash, layer = name.partition("/")
    return name if number == 1 else f"{method}_{number}{slash}{layer}"
