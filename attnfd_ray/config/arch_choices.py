"""Settings of a network whose allowed values depend on its `arch`. No torch, no ray.

An arch of another library (`smp/Unet`) lists them in its `choices`: setting -> the values that it
can take, the default first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import AfterValidator, ValidationInfo

from attnfd_ray import registry
from attnfd_ray.config.base import value_error
from attnfd_ray.config.types import check_registered
from attnfd_ray.errors import ConfigError

# for our own networks, and for those of users that read this setting
_OURS: Mapping[str, Collection[Any]] = {"output_stride": (16, 8)}


def allowed_by_arch(setting: str) -> AfterValidator:
    """Return the validator of a setting whose allowed values depend on the record's `arch`."""

    def check(value: Any, info: ValidationInfo) -> Any:
        arch = info.data.get("arch")
        if arch is None:  # it was refused, so the allowed values are not known
            return value
        allowed = _choices(arch).get(setting)
        if allowed is not None:
            _check_allowed(value, allowed, arch=arch, setting=setting)
        elif setting in registry.TABLES:
            check_registered(setting, value)
        return value

    return AfterValidator(check)


def _check_allowed(value: Any, allowed: Collection[Any], *, arch: str, setting: str) -> None:
    if value in allowed:
        return
    if isinstance(value, str):
        hint = registry.suggestion(value, allowed)
        raise ValueError(f"{arch} has no {setting} '{value}'{hint}")
    needed = "needs " + " or ".join(f"{each:g}" for each in sorted(allowed))
    if registry.family_of("arch", arch):
        needed += f" with {arch}"
    raise value_error(needed)


def with_defaults(settings: Any) -> Any:
    """Return the settings of a network, filled up with the defaults of another library's `arch`."""
    if not isinstance(settings, Mapping):
        return settings
    arch = settings.get("arch")
    if not isinstance(arch, str) or registry.family_of("arch", arch) is None:
        return settings
    try:
        choices = _choices(arch)
    except ConfigError:
        return settings  # the validator of `arch` reports it
    defaults = {setting: next(iter(values)) for setting, values in choices.items()}
    return defaults | dict(settings)


def _choices(arch: str) -> Mapping[str, Collection[Any]]:
    if registry.family_of("arch", arch) is None:
        return _OURS
    choices: Mapping[str, Collection[Any]] = registry.load("arch", arch).choices
    return choices
