"""Changed copies of an experiment's settings, and the identity of settings.

No torch, no ray.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from attnfd_ray.config.fields import Identity, walk
from attnfd_ray.config.schema import ExperimentSettings

# settings and sections that do not change what a run trains
_NOT_TRAINING = [
    setting.path
    for setting in walk(ExperimentSettings)
    if setting.identity is not Identity.TRAINING
]
# settings that may change when an experiment is resumed
_NOT_IDENTITY = {
    setting.path for setting in walk(ExperimentSettings) if setting.identity is Identity.NONE
}

_NETWORKS = ("student", "teacher")
_PIN = "pretrained_sha256"


def set_dotted(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at `a.b.c`; keys under `search` are dotted themselves.

    Raises TypeError where `a` or `a.b` is a plain value.
    """
    head, _, rest = path.partition(".")
    if not rest:
        tree[head] = value
        return
    if tree.get(head) is None:
        tree[head] = {}
    section = tree[head]
    if not isinstance(section, dict):
        raise TypeError(f"'{head}' is not a section")
    if head == "search":
        section[rest] = value
    else:
        set_dotted(section, rest, value)


def with_values(settings: ExperimentSettings, values: Mapping[str, Any]) -> ExperimentSettings:
    """Return the settings with `dotted path -> value` applied, validated again.

    `pretrained_sha256` is dropped where a value changes the file of first weights. Raises
    pydantic's ValidationError.
    """
    tree = settings.model_dump(mode="json")
    before = {name: dict(tree[name] or {}) for name in _NETWORKS}
    for path, value in values.items():
        set_dotted(tree, path, copy.deepcopy(value))  # the next value may change a part of this one
    for name, old in before.items():
        new = tree[name]
        if new and new.get(_PIN) == old.get(_PIN) and _first_weights(new) != _first_weights(old):
            new[_PIN] = None
    return ExperimentSettings.model_validate(tree)


def _first_weights(network: Mapping[str, Any]) -> list[Any]:
    """Return the settings that decide from which file a network starts."""
    names = ["pretrained"]
    if network.get("pretrained") == "imagenet":
        names += ["arch", "backbone"]
    return [network.get(name) for name in names]


def baseline_of(settings: ExperimentSettings) -> ExperimentSettings | None:
    """Return the same student without distillation (loss weight 0).

    None where the method has no loss weight, or refuses 0.
    """
    if "loss_weight" not in type(settings.method).model_fields:
        return None
    try:
        return with_values(settings, {"method.loss_weight": 0.0})
    except ValidationError:
        return None  # a user's own method may need a weight above 0


def teacher_experiment(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the experiment that trains the teacher: its network as the student, no method."""
    teacher = settings.teacher
    assert teacher is not None
    assert teacher.train is not None, "a teacher with a checkpoint is not trained"
    training = teacher.train.model_dump(exclude_none=True)
    tree = settings.model_dump(mode="json", exclude={"search", "tune"})
    tree["student"] = teacher.model_dump(mode="json", exclude={"checkpoint", "train", "min_miou"})
    tree["teacher"] = None
    tree["method"] = {"name": "none"}
    tree["optim"]["lr"] = training.pop("lr", settings.optim.lr)
    tree["train"] |= training
    return ExperimentSettings.model_validate(tree)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `dotted path -> value` of every leaf; lists and empty sections are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves.update(flatten(value, f"{path}."))
        else:
            leaves[path] = value
    return leaves


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return `path: old -> new` for each setting in which two dumped experiments differ.

    Settings that may change when an experiment is resumed are left out. First weights of the same
    hash are the same wherever the file is; a hash that is known to only one of the two is ignored.
    """
    before = flatten(old)
    after = flatten(new)
    ignored = set(_NOT_IDENTITY)
    for network in _NETWORKS:
        pin = f"{network}.{_PIN}"
        if before.get(pin) is None or after.get(pin) is None:
            ignored.add(pin)
        elif before[pin] == after[pin]:
            ignored.add(f"{network}.pretrained")
    return [
        f"{path}: {before.get(path, 'absent')} -> {after.get(path, 'absent')}"
        for path in sorted((before.keys() | after.keys()) - ignored)
        if before.get(path) != after.get(path)
    ]


def config_hash(settings: ExperimentSettings) -> str:
    """Return 16 hex digits that two settings share when they train the same thing.

    The seed does not count. First weights count by the hash of their file where it is known, else
    by their name in the settings. With a loss weight of 0 every method counts as `none`: see
    `distill.method.method_class`.
    """
    tree = settings.model_dump(mode="json")
    for path in _NOT_TRAINING:
        _remove(tree, path)
    if tree["method"].get("loss_weight") == 0:
        tree["method"] = {"name": "none"}
    for name in _NETWORKS:
        network = tree[name] or {}
        pin = network.pop(_PIN, None)
        if pin:
            network["pretrained"] = pin
    return digest(tree)


def _remove(tree: dict[str, Any], path: str) -> None:
    *sections, name = path.split(".")
    section: Any = tree
    for step in sections:
        section = section.get(step)
        if section is None:
            return
    section.pop(name, None)


def digest(tree: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
