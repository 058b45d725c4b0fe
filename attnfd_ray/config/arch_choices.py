"""What the settings of a network may be where that depends on its `arch`: other libraries' networks
take few values.

An arch of a family (`smp/Unet`) tells by its `choices`: setting -> the values it can take, its
default first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import AfterValidator, ValidationInfo

from attnfd_ray import registry
from attnfd_ray.config.base import value_error
from attnfd_ray.config.types import check_part
from attnfd_ray.errors import ConfigError

# of our own networks; those of someone's own read what they like
_OURS: Mapping[str, Collection[Any]] = {"output_stride": (16, 8)}


def allowed_by_arch(setting: str) -> AfterValidator:
    """Return the check that a setting's value is one that the record's `arch` can take."""

    def check(value: Any, info: ValidationInfo) -> Any:
        arch = info.data.get("arch")
        if arch is None:  # it was refused, so nobody knows what would fit
            return value
        known = _choices(arch).get(setting)
        if known is None:
            return check_part(setting, value) if setting in registry.TABLES else value
        if value in known:
            return value
        if isinstance(value, str):
            raise ValueError(
                f"{arch} has no {setting} '{value}'{registry.suggestion(value, known)}"
            )
        needed = " or ".join(f"{each:g}" for each in sorted(known))
        raise value_error(
            f"needs {needed}{f' with {arch}' if registry.family_of('arch', arch) else ''}"
        )

    return AfterValidator(check)


def with_defaults(settings: Any) -> Any:
    """Return a mapping of settings with the defaults of its `arch`, where they are not those of
    ours.
    """
    arch = settings.get("arch") if isinstance(settings, Mapping) else None
    if not isinstance(arch, str) or registry.family_of("arch", arch) is None:
        return settings
    try:
        return {setting: next(iter(values)) for setting, values in _choices(arch).items()} | dict(
            settings
        )
    except ConfigError:
        return settings  # the check of `arch` tells


def _choices(arch: str) -> Mapping[str, Collection[Any]]:
    if registry.family_of("arch", arch) is None:
        return _OURS
    choices: Mapping[str, Collection[Any]] = registry.load("arch", arch).choices
    return choices
