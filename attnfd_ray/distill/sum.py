"""Several methods at once: the sum of their terms, each method with its own settings and weight.

method:
  name: sum
  terms:
    - {name: kd, weight: 1}
    - {name: cwd_feature, weight: 50, layers: [decoder]}
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, Literal, NamedTuple

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
    if not isinstance(value, dict) or "weight" not in value:
        return validate(value)
    own = {name: each for name, each in value.items() if name != "weight"}
    if "loss_weight" in own:
        text = "is given beside loss_weight, which is the same; keep one of them"
        raise rule_error([(("weight",), text)])
    settings = validate(own)
    if "loss_weight" not in type(settings).model_fields:
        text = f"method '{settings.name}' has no loss_weight that it could set"
        raise rule_error([(("weight",), text)])
    weight = _Weight.model_validate({"weight": value["weight"]}).weight
    return validate(own | {"loss_weight": weight})


class Sum(Method):
    """The terms of several methods; a method may occur more than once, one of weight 0 is left out.

    There is one teacher. Methods that need it in a mode other than eval must agree on the mode; the
    other methods accept it. All methods must agree on whether the loss is divided by the batch.
    """

    class Settings(MethodSettings):
        """`method: {name: sum, ...}`."""

        name: Literal["sum"] = "sum"
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the terms of all methods, in addition to their own weights; "
                "0 trains the student without distillation."
            ),
        ] = 1.0
        terms: Annotated[
            list[Annotated[AnyMethod, WrapValidator(_weighted)]],
            Field(
                min_length=1,
                description="The methods whose terms are added, each with its settings and its "
                "weight.",
            ),
        ]

        @field_validator("terms")
        @classmethod
        def _agree(cls, terms: list[MethodSettings]) -> list[MethodSettings]:
            try:
                _shared(map(_needs, _live(terms)))
            except ConfigError as error:
                raise ValueError(str(error)) from None
            return terms

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        parts = [_class(term)(term, networks) for term in _live(settings.terms)]
        self.parts: Any = nn.ModuleList(parts)
        shared = _shared(_Needs(part.teacher_mode, part.loss_over_batch_size) for part in parts)
        self.teacher_mode = shared.teacher_mode
        self.loss_over_batch_size = shared.loss_over_batch_size
        self.depends_on_batch = any(part.depends_on_batch for part in parts)
        self.uses_batch_sums = any(part.uses_batch_sums for part in parts)

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return every tap that one of its methods needs, once."""
        wanted: dict[str, None] = {}  # in the order of the terms
        for term in _live(settings.terms):
            wanted |= dict.fromkeys(_class(term).taps(term))
        return tuple(wanted)

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Freeze what one of its methods freezes."""
        prefixes = []
        for index, part in enumerate(self.parts):
            for prefix in part.frozen_prefixes(epoch):
                owner, _, inside = prefix.partition(".")
                if owner == "method":
                    prefix = f"method.parts.{index}.{inside}".rstrip(".")
                prefixes.append(prefix)
        return tuple(prefixes)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for part in self.parts:
            terms |= _with_free_names(part(student, teacher, labels_NHW), terms)
        return {name: self.settings.loss_weight * term for name, term in terms.items()}


def _live(terms: Iterable[MethodSettings]) -> list[MethodSettings]:
    return [term for term in terms if getattr(term, "loss_weight", 1.0) != 0]


def _class(term: MethodSettings) -> Any:
    return registry.load("method", term.name)


class _Needs(NamedTuple):
    """What a method needs of the whole run."""

    teacher_mode: TeacherMode
    loss_over_batch_size: bool


def _needs(term: MethodSettings) -> _Needs:
    """Return what a term's settings ask for; where they have no such key, the class's values."""
    kind = _class(term)
    return _Needs(
        teacher_mode=getattr(term, "teacher_mode", kind.teacher_mode),
        loss_over_batch_size=getattr(term, "divide_by_batch", kind.loss_over_batch_size),
    )


def _shared(needs: Iterable[_Needs]) -> _Needs:
    """Return what all methods agree on. Raises ConfigError where they contradict each other."""
    modes = set[TeacherMode]()
    divisions = set[bool]()
    for each in needs:
        modes.add(each.teacher_mode)
        divisions.add(each.loss_over_batch_size)
    modes.discard("eval")
    if len(modes) > 1:
        raise ConfigError(
            f"its methods need the teacher in different modes, {' and '.join(sorted(modes))}; keep "
            "one mode"
        )
    if len(divisions) > 1:
        raise ConfigError(
            "some of its methods divide the loss by the batch and some do not; keep one kind"
        )
    return _Needs(
        teacher_mode=next(iter(modes), "eval"),
        loss_over_batch_size=divisions == {True},
    )


def _with_free_names(terms: dict[str, Tensor], taken: Collection[str]) -> dict[str, Tensor]:
    """Return terms under names not taken yet: `kd/logits`, else `kd_2/logits` and so on."""
    for number in itertools.count(1):
        named = {_numbered(name, number): term for name, term in terms.items()}
        if not named.keys() & taken:
            break
    return named


def _numbered(name: str, number: int) -> str:
    if number == 1:
        return name
    method, slash, layer = name.partition("/")
    return f"{method}_{number}{slash}{layer}"
