"""Marks on fields, and what a setting has from its section."""

from typing import Annotated

from pydantic import BaseModel

from attnfd_ray.config.fields import Identity, NotSearchable, walk


class Inner(BaseModel):
    plain: int = 1
    free: Annotated[int, Identity.NONE] = 2
    fixed: Annotated[int | None, NotSearchable("of its own")] = None


class Outer(BaseModel):
    first: Annotated[Inner | None, Identity.EXPERIMENT, NotSearchable("as a whole")] = None
    second: Inner = Inner()
    many: list[Inner] = []
    by_name: dict[str, Inner] = {}


def test_the_walk_names_every_setting_by_its_dotted_path_its_section_first():
    assert [setting.path for setting in walk(Outer)] == [
        "first",
        "first.plain",
        "first.free",
        "first.fixed",
        "second",
        "second.plain",
        "second.free",
        "second.fixed",
        "many",
        "by_name",
    ]
    assert [setting.path for setting in walk(Outer) if setting.section] == ["first", "second"]


def test_a_field_without_a_mark_is_like_its_section():
    identity = {setting.path: setting.identity for setting in walk(Outer)}
    assert identity["first.plain"] is Identity.EXPERIMENT
    assert identity["first.free"] is Identity.NONE
    assert identity["second.plain"] is Identity.TRAINING
    reasons = {setting.path: setting.not_searchable for setting in walk(Outer)}
    assert reasons["first.plain"] == "as a whole"
    assert reasons["first.fixed"] == reasons["second.fixed"] == "of its own"
    assert reasons["second.plain"] is None
