"""Short names of exchangeable parts -> where they live. Imports nothing but errors; loads a part on
first use.

A part is one file and one line here. A user's own part needs no line: `package.module:Attribute`
names it. A family of parts, such as all networks of a library, is one line too: `library/name`.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
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
        "camvid": "attnfd_ray.data.datasets.camvid:CamVid",
        "cityscapes": "attnfd_ray.data.datasets.cityscapes:Cityscapes",
        "coco": "attnfd_ray.data.datasets.coco:COCO",
        "coco_stuff": "attnfd_ray.data.datasets.coco_stuff:COCOStuff",
        "folder": "attnfd_ray.data.datasets.folder:Folder",
        "toyscenes": "attnfd_ray.data.datasets.voc:ToyScenes",
        "voc": "attnfd_ray.data.datasets.voc:VOC",
    },
    "method": {
        "at": "attnfd_ray.distill.at:AttentionTransfer",
        "attnfd": "attnfd_ray.distill.attnfd:AttnFD",
        "attnfd_paper": "attnfd_ray.distill.attnfd:AttnFDPaper",
        "attnfd_release": "attnfd_ray.distill.attnfd:AttnFDRelease",
        "cad": "attnfd_ray.distill.angular:CAD",
        "cirkd": "attnfd_ray.distill.cirkd:CIRKD",
        "cwd_feature": "attnfd_ray.distill.cwd:FeatureCWD",
        "cwd_logit": "attnfd_ray.distill.cwd:LogitCWD",
        "dist": "attnfd_ray.distill.dist:DIST",
        "fitnet": "attnfd_ray.distill.fitnet:FitNet",
        "ickd": "attnfd_ray.distill.ickd:ICKD",
        "ifvd": "attnfd_ray.distill.ifvd:IFVD",
        "kd": "attnfd_ray.distill.kd:KD",
        "lad": "attnfd_ray.distill.angular:LAD",
        "mgd": "attnfd_ray.distill.mgd:MGD",
        "naive": "attnfd_ray.distill.angular:Naive",
        "none": "attnfd_ray.distill.none:NoDistillation",
        "ofd": "attnfd_ray.distill.ofd:OFD",
        "pad": "attnfd_ray.distill.angular:PAD",
        "skd": "attnfd_ray.distill.skd:SKD",
        "sum": "attnfd_ray.distill.sum:Sum",
    },
    "preset": {
        "attnfd": "attnfd_ray.distill.presets:ATTNFD",
        "attnfd_paper": "attnfd_ray.distill.presets:PAPER",
        "attnfd_release": "attnfd_ray.distill.presets:RELEASE",
    },
    "sampler": {
        "cmaes": "attnfd_ray.search.samplers:cmaes",
        "gp": "attnfd_ray.search.samplers:gp",
        "grid": "attnfd_ray.search.samplers:grid",
        "nsga2": "attnfd_ray.search.samplers:nsga2",
        "random": "attnfd_ray.search.samplers:random",
        "tpe": "attnfd_ray.search.samplers:tpe",
    },
    "early_stopping": {
        "asha": "attnfd_ray.search.early_stopping:asha",
        "hyperband": "attnfd_ray.search.early_stopping:hyperband",
        "median": "attnfd_ray.search.early_stopping:median",
        "none": "attnfd_ray.search.early_stopping:none",
    },
}

# prefix of `prefix/name` -> what returns the part called `name`, or raises ConfigError
FAMILIES: dict[str, dict[str, str]] = {
    "arch": {
        "smp": "attnfd_ray.models.smp:architecture",
        "torchvision": "attnfd_ray.models.torchvision_models:architecture",
    },
}

# package.module:Attribute
_OWN = re.compile(r"\w+(\.\w+)*:\w+")
_MANY = 40  # words in one message


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, else the words there are, at most 40
    of them.
    """
    words = sorted(known)
    near = nearest(word, words)
    if near:
        return near
    more = f", ... ({len(words)} in all)" if len(words) > _MANY else ""
    return f"; there is: {', '.join(words[:_MANY])}{more}" if words else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def family_of(kind: str, name: str) -> str | None:
    """Return the prefix of `prefix/name` where `kind` has such a family."""
    prefix, _, rest = name.partition("/")
    return prefix if rest and prefix in FAMILIES.get(kind, {}) else None


def check(kind: str, name: str) -> str:
    """Return `name` if `kind` has it, or it is of a family, or looks like
    `package.module:Attribute`.

    Raises ConfigError otherwise. Whether a family has the name, or a module the attribute, is known
    once it is loaded.
    """
    table, label = TABLES[kind], kind.replace("_", " ")
    if name in table or family_of(kind, name) or _OWN.fullmatch(name):
        return name
    if ":" in name:
        raise ConfigError(f"{label} '{name}': a part of your own is named package.module:Attribute")
    families = (f"{prefix}/..." for prefix in FAMILIES.get(kind, {}))
    raise ConfigError(f"unknown {label} '{name}'{suggestion(name, [*table, *families])}")


def load(kind: str, name: str) -> Any:
    """Return the part called `name`: of the table `kind`, of a family, or anyone's
    `package.module:Attribute`.

    Raises ConfigError where there is no such part, module or attribute; what else importing it
    raises is its author's to see.
    """
    family = family_of(kind, check(kind, name))
    if family:
        return _attribute(kind, name, FAMILIES[kind][family])(name.partition("/")[2])
    return _attribute(kind, name, TABLES[kind].get(name, name))


def _attribute(kind: str, name: str, target: str) -> Any:
    label = kind.replace("_", " ")
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{label} '{name}': there is no module '{error.name}'; install it, or put its "
            "directory on PYTHONPATH"
        ) from None
    if not hasattr(module, attribute):
        raise ConfigError(f"{label} '{name}': module '{module_name}' has no '{attribute}'")
    return getattr(module, attribute)
