"""Short names of exchangeable parts -> where they live. Imports nothing but errors; loads a part on first use.

A part is one file and one line here. A user's own part needs no line: `package.module:Attribute` names it.
"""

from __future__ import annotations

import difflib
import importlib
import re
from typing import Any

from attnfd_ray.errors import ConfigError

TABLES: dict[str, dict[str, str]] = {
    "arch": {
        "deeplabv3plus": "attnfd_ray.models.deeplabv3plus:DeepLabV3Plus",
    },
    "backbone": {
        "resnet18": "attnfd_ray.models.resnet:resnet18",
        "resnet34": "attnfd_ray.models.resnet:resnet34",
        "resnet50": "attnfd_ray.models.resnet:resnet50",
        "resnet101": "attnfd_ray.models.resnet:resnet101",
        "mobilenet_v2": "attnfd_ray.models.mobilenet:mobilenet_v2",
    },
    "dataset": {
        "camvid": "attnfd_ray.data.camvid:CamVid",
        "toyscenes": "attnfd_ray.data.voc:ToyScenes",
        "voc": "attnfd_ray.data.voc:VOC",
    },
    "method": {
        "attnfd": "attnfd_ray.distill.attnfd:AttnFD",
        "none": "attnfd_ray.distill.none:NoDistillation",
    },
    "sampler": {
        "cmaes": "attnfd_ray.search.samplers:cmaes",
        "gp": "attnfd_ray.search.samplers:gp",
        "grid": "attnfd_ray.search.samplers:grid",
        "random": "attnfd_ray.search.samplers:random",
        "tpe": "attnfd_ray.search.samplers:tpe",
    },
    "early_stopping": {
        "asha": "attnfd_ray.search.early_stopping:asha",
        "none": "attnfd_ray.search.early_stopping:none",
    },
}

# package.module:Attribute
_OWN = re.compile(r"\w+(\.\w+)*:\w+")


def suggestion(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, else the words there are, if any."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there is: {', '.join(sorted(known))}" if known else ""


def check(kind: str, name: str) -> str:
    """Return `name` if `kind` has it or it looks like `package.module:Attribute`; raise ConfigError otherwise."""
    table, label = TABLES[kind], kind.replace("_", " ")
    if name in table or _OWN.fullmatch(name):
        return name
    if ":" in name:
        raise ConfigError(f"{label} '{name}': a part of your own is named package.module:Attribute")
    raise ConfigError(f"unknown {label} '{name}'{suggestion(name, list(table))}")


def load(kind: str, name: str) -> Any:
    """Return the part called `name`: a short name of the table `kind`, or anyone's `package.module:Attribute`.

    Raises ConfigError where there is no such module or attribute; what else importing it raises is its author's to see.
    """
    target, label = TABLES[kind].get(check(kind, name), name), kind.replace("_", " ")
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{label} '{name}': there is no module '{error.name}'; install it, or put its directory on PYTHONPATH"
        ) from None
    if not hasattr(module, attribute):
        raise ConfigError(f"{label} '{name}': module '{module_name}' has no '{attribute}'")
    return getattr(module, attribute)
