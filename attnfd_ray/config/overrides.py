"""Changed copies of an experiment's settings, and what makes two of them the same. No torch, no
ray.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from attnfd_ray.config.schema import ExperimentSettings

# Where a run is, how it is spread, how long a search goes on, what it keeps and bears, which
# teacher is refused, when a step hangs, how often gradients are compared: no change of what a trial
# is.
_PLACE = (
    *("store", "data.root", "data.loader_workers", "data.cache", "data.cache_gib"),
    *(
        "teacher.min_miou",
        "tune.trials",
        "tune.baseline_trials",
        "tune.duplicates",
        "tune.concurrent",
    ),
    *("tune.keep_weights", "tune.max_failures", "train.step_patience_s", "train.gradient_checks"),
)

_NETWORKS = ("student", "teacher")
_PIN = "pretrained_sha256"


def set_dotted(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at `a.b.c`; keys under `search` are dotted themselves.

    Raises TypeError where `a` is a plain value.
    """
    head, _, rest = path.partition(".")
    if not rest:
        tree[head] = value
        return
    child = tree.get(head)
    if child is None:
        child = tree[head] = {}
    if not isinstance(child, dict):
        raise TypeError(f"'{head}' is not a section")
    if head == "search":
        child[rest] = value
    else:
        set_dotted(child, rest, value)


def with_values(settings: ExperimentSettings, values: Mapping[str, Any]) -> ExperimentSettings:
    """Return the settings with `dotted path -> value` applied and validated anew.

    First weights from another file lose the hash that was of the one before.
    """
    tree = settings.model_dump(mode="json")
    before = {name: dict(tree[name] or {}) for name in _NETWORKS}
    for path, value in values.items():
        set_dotted(tree, path, copy.deepcopy(value))  # the next value may go inside this one
    for name, old in before.items():
        new = tree[name]
        if new and new.get(_PIN) == old.get(_PIN) and _first_weights(new) != _first_weights(old):
            new[_PIN] = None
    return ExperimentSettings.model_validate(tree)


def _first_weights(network: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells from which file a network starts."""
    names = (
        ("pretrained", "arch", "backbone")
        if network.get("pretrained") == "imagenet"
        else ("pretrained",)
    )
    return tuple(network.get(name) for name in names)


def baseline_of(settings: ExperimentSettings) -> ExperimentSettings | None:
    """Return the same student without its teacher (loss weight 0), or None where the method knows
    no such weight.
    """
    if "loss_weight" not in type(settings.method).model_fields:
        return None
    try:
        return with_values(settings, {"method.loss_weight": 0.0})
    except ValidationError:
        return None  # someone's own method may want it above 0


def teacher_experiment(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the experiment that trains the teacher: its network as the student, alone."""
    teacher = settings.teacher
    assert teacher is not None
    assert teacher.train is not None, "a teacher with a checkpoint is not trained"
    training = teacher.train.model_dump(exclude_none=True)
    tree = settings.model_dump(mode="json", exclude={"search", "tune"})
    tree["student"] = teacher.model_dump(mode="json", exclude={"checkpoint", "train", "min_miou"})
    tree["teacher"], tree["method"] = None, {"name": "none"}
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
    """Return one `path: old -> new` for each setting that makes two dumped experiments different
    ones.

    First weights of the same hash are the same wherever they are; a hash that only one of the two
    knows tells nothing.
    """
    before, after = flatten(old), flatten(new)
    ignored = set(_PLACE)
    for pin in (f"{name}.{_PIN}" for name in _NETWORKS):
        if before.get(pin) is None or after.get(pin) is None:
            ignored.add(pin)
        elif before[pin] == after[pin]:
            ignored.add(pin.replace(_PIN, "pretrained"))
    paths = sorted(path for path in before.keys() | after.keys() if path not in ignored)
    return [
        f"{path}: {before.get(path, 'absent')} -> {after.get(path, 'absent')}"
        for path in paths
        if before.get(path) != after.get(path)
    ]


def config_hash(settings: ExperimentSettings) -> str:
    """Return 16 hex digits that two settings share when they train the same thing, the seed aside.

    First weights count by the hash of their file, where it is known, and else by what the settings
    call them. With a loss weight of 0 any method is `none`: see `distill.method.method_class`.
    """
    sections = settings.model_dump(
        mode="json", include={"data", "teacher", "student", "method", "optim", "train"}
    )
    # a test split changes nothing that is learned or chosen
    for name in ("root", "loader_workers", "cache", "cache_gib", "test_split"):
        sections["data"].pop(name)
    for name in ("seed", "step_patience_s", "gradient_checks"):
        sections["train"].pop(name)
    if sections["method"].get("loss_weight") == 0:
        sections["method"] = {"name": "none"}
    (sections["teacher"] or {}).pop("min_miou", None)
    for network in (sections[name] or {} for name in _NETWORKS):
        if pin := network.pop(_PIN, None):
            network["pretrained"] = pin
    return digest(sections)


def digest(tree: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
