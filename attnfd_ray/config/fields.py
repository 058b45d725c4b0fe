"""Marks on the fields of settings, and the walk that reads them.

A mark stands in the annotation of a field: `root: Annotated[str, Identity.NONE]`. The lists that
`overrides`, `search_keys` and `reference` need are derived from the marks. No torch, no ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from attnfd_ray.config.base import record_in


class Identity(Enum):
    """What another value of a setting changes. A field without a mark is like its section."""

    # what a run trains: the setting is part of `config_hash` and of the experiment's identity
    TRAINING = "training"
    # the experiment: its runs train the same, but it cannot resume the one before
    EXPERIMENT = "experiment"
    # neither: it may change when an experiment is resumed
    NONE = "none"


@dataclass(frozen=True)
class NotSearchable:
    """A search cannot vary this setting, for the reason given."""

    reason: str


class Setting(NamedTuple):
    """A setting or a section: its dotted path, its field, and what the field or its section states.

    `section` is the record of a section, None for a single setting. `not_searchable` is the reason
    why a search cannot vary it, None where it can.
    """

    path: str
    field: FieldInfo
    section: type[BaseModel] | None
    identity: Identity
    not_searchable: str | None


def walk(record: type[BaseModel], within: Setting | None = None) -> Iterator[Setting]:
    """Yield every setting of a record in order, each section before its own settings."""
    for name, field in record.model_fields.items():
        setting = _setting(name, field, within)
        yield setting
        if setting.section is not None:
            yield from walk(setting.section, setting)


def _setting(name: str, field: FieldInfo, within: Setting | None) -> Setting:
    path = name
    identity = Identity.TRAINING
    not_searchable = None
    if within is not None:
        path = f"{within.path}.{name}"
        identity = within.identity
        not_searchable = within.not_searchable
    for mark in field.metadata:
        if isinstance(mark, Identity):
            identity = mark
        elif isinstance(mark, NotSearchable):
            not_searchable = mark.reason
    return Setting(path, field, record_in(field.annotation), identity, not_searchable)
