"""The section `method:`, whose settings depend on the method that it names. No torch, no ray."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from attnfd_ray import registry
from attnfd_ray.config.base import StrictModel, as_yaml, rule_error, value_error
from attnfd_ray.errors import ConfigError


class MethodSettings(StrictModel):
    """The settings that every distillation method has; a method derives its own record from it.

    >>> class Settings(MethodSettings):
    ...     name: str = "mypackage.losses:MyLoss"
    ...     loss_weight: float = 1.0
    >>> Settings(loss_weight=2.0)
    Settings(name='mypackage.losses:MyLoss', loss_weight=2.0)
    """

    name: Annotated[
        str, Field(description="The method: a short name such as attnfd, or package.module:Class.")
    ]


def _method(value: Any) -> MethodSettings:
    """Validate `method:` with the record of the method that it names."""
    if isinstance(value, MethodSettings):
        return value
    if not isinstance(value, dict):
        raise value_error("needs a section with a name, as in {name: attnfd}")
    settings = _record_of(value.get("name"))
    return settings.model_validate(value)


def _record_of(name: Any) -> type[MethodSettings]:
    """Return the settings record of a method; raise a `rule_error` at `name` if it has none."""
    if name is None:
        raise _name_error("is missing")
    if not isinstance(name, str):
        raise _name_error(f"needs text, got {as_yaml(name)}")
    try:
        settings = getattr(registry.load("method", name), "Settings", None)
    except ConfigError as error:
        raise _name_error(str(error)) from None
    if isinstance(settings, type) and issubclass(settings, MethodSettings):
        return settings
    raise _name_error(f"'{name}' has no Settings, a class derived from attnfd_ray.MethodSettings")


def _name_error(text: str) -> Exception:
    return rule_error([(("name",), text)])


AnyMethod = Annotated[SerializeAsAny[MethodSettings], BeforeValidator(_method)]
