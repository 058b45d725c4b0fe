"""AttnFD with the defaults of its released code, and of its paper."""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, Literal

from pydantic import create_model

from attnfd_ray.distill import presets
from attnfd_ray.distill.attnfd import AttnFD


def _settings_of(owner: str, preset: presets.Preset) -> Any:
    """Return the settings of AttnFD with a preset's values for defaults, as `owner.Settings`."""
    chosen = preset.of_method()
    fields: dict[str, Any] = {"name": (Literal[chosen.pop("name")], preset.name)}
    for name, value in chosen.items():
        field = copy(AttnFD.Settings.model_fields[name])
        field.default = value
        fields[name] = (field.annotation, field)
    settings = create_model("Settings", __base__=AttnFD.Settings, __module__=__name__, **fields)
    settings.__qualname__ = f"{owner}.Settings"  # where pickle finds it
    settings.__doc__ = (
        f"`method: {{name: {preset.name}, ...}}`, with the defaults `attnfd-ray explain` prints."
    )
    return settings


class AttnFDRelease(AttnFD):
    """AttnFD as its authors' code runs it."""

    Settings: ClassVar[Any] = _settings_of("AttnFDRelease", presets.RELEASE)


class AttnFDPaper(AttnFD):
    """AttnFD as its paper words it."""

    Settings: ClassVar[Any] = _settings_of("AttnFDPaper", presets.PAPER)
