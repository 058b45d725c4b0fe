"""Short names of components -> their modules; a component is imported on first use.

A component is one file and one line here. A user's own needs no line: it is named
`package.module:Attribute`. A family of components, such as all networks of a library, is one line
too and is named `library/name`. Imports errors only.
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
        "attnfd_paper": "attnfd_ray.distill.attnfd_variants:AttnFDPaper",
        "attnfd_release": "attnfd_ray.distill.attnfd_variants:AttnFDRelease",
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

# prefix of `prefix/name` -> a function that returns the component `name` or raises ConfigError
FAMILIES: dict[str, dict[str, str]] = {
    "arch": {
        "smp": "attnfd_ray.models.smp:architecture",
        "torchvision": "attnfd_ray.models.torchvision_models:architecture",
    },
}

_OWN = re.compile(r"\w+(\.\w+)*:\w+")  # package.module:Attribute
_MAX_WORDS = 40  # in one message


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word; without one, the first 40 words.

    >>> suggestion("resnet-18", ["resnet18", "resnet34"])
    "; did you mean 'resnet18'?"
    >>> suggestion("vgg", ["resnet18", "resnet34"])
    '; there is: resnet18, resnet34'
    """
    words = sorted(known)
    near = nearest(word, words)
    if near or not words:
        return near
    listed = ", ".join(words[:_MAX_WORDS])
    if len(words) > _MAX_WORDS:
        listed += f", ... ({len(words)} in all)"
    return f"; there is: {listed}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, an empty text if none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    if not matches:
        return ""
    return f"; did you mean '{matches[0]}'?"


def family_of(kind: str, name: str) -> str | None:
    """Return the prefix of `prefix/name` if `kind` has a family of that prefix, else None."""
    prefix, _, rest = name.partition("/")
    if rest and prefix in FAMILIES.get(kind, {}):
        return prefix
    return None


def check(kind: str, name: str) -> str:
    """Return `name` if it can name a component of this kind; raise ConfigError otherwise.

    Whether a family has the name, or a module the attribute, is known once it is loaded.
    """
    table = TABLES[kind]
    if name in table or family_of(kind, name) or _OWN.fullmatch(name):
        return name
    label = kind.replace("_", " ")
    if ":" in name:
        raise ConfigError(f"{label} '{name}': your own is written package.module:Attribute")
    families = [f"{prefix}/..." for prefix in FAMILIES.get(kind, {})]
    raise ConfigError(f"unknown {label} '{name}'{suggestion(name, [*table, *families])}")


def load(kind: str, name: str) -> Any:
    """Return a component: of the table of this kind, of a family, or `package.module:Attribute`.

    Raises ConfigError where there is no such component, module or attribute. Other errors of an
    imported module pass through, so that its author sees them.
    """
    family = family_of(kind, check(kind, name))
    if family is None:
        return _attribute(kind, name, TABLES[kind].get(name, name))
    find = _attribute(kind, name, FAMILIES[kind][family])
    return find(name.partition("/")[2])


def _attribute(kind: str, name: str, target: str) -> Any:
    """Import `target`, a `module:Attribute`, for the component `name`."""
    label = kind.replace("_", " ")
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # the module exists, and fails to import another one
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{label} '{name}': there is no module '{error.name}'; install it, or put its "
            "directory on PYTHONPATH"
        ) from None
    if not hasattr(module, attribute):
        raise ConfigError(f"{label} '{name}': module '{module_name}' has no '{attribute}'")
    return getattr(module, attribute)
