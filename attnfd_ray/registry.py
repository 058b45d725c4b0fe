"""Short names of exchangeable parts -> where they live. Imports nothing but errors; loads a part on first use.

A part is one file and one line here. A user's own part needs no line: `package.module:Attribute` names it.
"""

from __future__ import annotations

import difflib
import importlib
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


def suggestion(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, else the words there are."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; there is: {', '.join(sorted(known))}"


def check(kind: str, name: str) -> str:
    """Return `name` if `kind` has it or it looks like `package.module:Attribute`; raise ConfigError otherwise."""
    table = TABLES[kind]
    if name not in table and ":" not in name:
        label = kind.replace("_", " ")
        raise ConfigError(f"unknown {label} '{name}'{suggestion(name, list(table))}")
    return name


def load(kind: str, name: str) -> Any:
    """Return the part called `name`: a short name of the table `kind`, or anyone's `package.module:Attribute`."""
    target = TABLES[kind].get(check(kind, name), name)
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ConfigError(f"{kind} '{name}': there is no module '{error.name}' on the import path") from None
        raise
    except AttributeError:
        raise ConfigError(f"{kind} '{name}': module '{module_name}' has no '{attribute}'") from None
