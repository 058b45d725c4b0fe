"""Presets are data: every choice names a setting, has a reason, and is what `explain` prints."""

from __future__ import annotations

from typing import Any

import pytest

from attnfd_ray import registry
from attnfd_ray.config.overrides import flatten, set_dotted
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.distill.presets import Preset

PRESETS = sorted(registry.TABLES["preset"])


@pytest.fixture(params=PRESETS)
def preset(request: pytest.FixtureRequest) -> Preset:
    found: Preset = registry.load("preset", request.param)
    assert found.name == request.param
    return found


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return every setting of the shortest experiment with `values`, by its dotted path."""
    tree: dict[str, Any] = {
        "experiment": "e",
        "data": {"name": "voc", "root": "/data", "crop": [64, 64]},
        "teacher": {"checkpoint": "/teacher.pt"},
        "student": {},
        "method": {"name": "attnfd"},
    }
    for path, value in values.items():
        set_dotted(tree, path, value)
    return flatten(ExperimentSettings.model_validate(tree).model_dump(mode="json"))


def test_there_are_three() -> None:
    assert PRESETS == ["attnfd", "attnfd_paper", "attnfd_release"]


def test_rows_name_every_setting_that_differs(preset: Preset) -> None:
    plain, chosen = settings({}), settings(preset.fillings())
    differing = {path for path in chosen if chosen[path] != plain[path]}
    rows = {row["setting"]: row for row in preset.rows()}
    assert bool(differing) == (preset.name != "attnfd")
    assert differing <= rows.keys()
    for path, row in rows.items():
        assert chosen[path] == row["value"]
        if path != "data.crop":  # every file has to say that itself
            assert plain[path] == row["default"]


def test_every_choice_is_made_once_and_has_a_reason(preset: Preset) -> None:
    paths = [choice.path for choice in preset.choices]
    assert len(set(paths)) == len(paths)
    assert all(choice.why for choice in preset.choices)


def test_a_file_is_filled_up_with_the_name_of_the_method_and_the_recipe_around_it(
    preset: Preset,
) -> None:
    fillings = preset.fillings()
    assert [path for path in fillings if path.startswith("method.")] == ["method.name"]
    assert (
        registry.load("method", fillings["method.name"]).Settings().model_dump().items()
        >= preset.of_method().items()
    )
