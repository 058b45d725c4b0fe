"""`docs/settings.md` has every setting, and is up to date."""

from pathlib import Path

import pytest

from attnfd_ray.config import reference
from attnfd_ray.config.fields import Identity, walk
from attnfd_ray.config.overrides import config_hash, differences, flatten, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.search_keys import NOT_SEARCHABLE

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
TABLES = list(reference.tables())
ROWS = {row.path: row for table in TABLES for row in table.rows}
SETTINGS = ExperimentSettings.model_validate(
    {
        "experiment": "e",
        "data": {"name": "camvid", "root": "/data", "crop": [9, 9]},
        "teacher": {"backbone": "resnet101", "train": {"epochs": 7}},
        "student": {},
        "method": {"name": "none"},
    }
)
# another value of each setting that is not part of config_hash
OTHERS = {
    "experiment": "f",
    "data.root": "/other",
    "data.test_split": "test",
    "data.loader_workers": 1,
    "data.cache": "memory",
    "data.cache_gib": 1.0,
    "teacher.min_miou": 0.5,
    "train.seed": 2,
    "train.gradient_checks": 2,
    "train.step_patience_s": 1.0,
    "scaling.workers": 2,
    "scaling.cpus_per_worker": 2,
    "scaling.gpus_per_worker": 0,
    "search": {"optim.lr": {"choice": [1.0]}},
    "tune.trials": 1,
    "tune.baseline_trials": 1,
    "tune.metric": ["val_miou", "student_params"],
    "tune.sampler": "random",
    "tune.seed": 1,
    "tune.duplicates": "skip",
    "tune.early_stopping": "median",
    "tune.grace_epochs": 2,
    "tune.reduction_factor": 2,
    "tune.concurrent": 1,
    "tune.keep_weights": 1,
    "tune.max_failures": 1,
    "store": "/other",
}
LEAVES = [setting for setting in walk(ExperimentSettings) if setting.section is None]


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference.markdown(), (
        "run python docs/generate_settings.py"
    )


def test_every_setting_is_on_the_page():
    assert ROWS.keys() >= flatten(SETTINGS.model_dump(mode="json")).keys()
    assert len(TABLES) > 30
    assert len(ROWS) > 100


def test_every_setting_of_the_sections_has_a_meaning():
    rows = [
        row for table in TABLES if not table.title.startswith("`method: {") for row in table.rows
    ]
    assert len(rows) > 80
    assert [row.path for row in rows if not row.meaning] == []


def test_the_meaning_of_a_setting_is_a_sentence():
    for setting in walk(ExperimentSettings):
        meaning = setting.field.description
        assert meaning is not None, setting.path
        assert meaning[0].isupper(), setting.path
        assert meaning.endswith("."), setting.path


@pytest.mark.parametrize(
    ("path", "kind", "limits", "default"),
    [
        ("data.crop", "list of 2 whole numbers", "each at least 1", "required"),
        ("data.eval_scales", "list of numbers", "each above 0; at least 1 of them", "`[1.0]`"),
        ("data.test_split", "text or `null`", "not empty", "`null`"),
        ("data.flip", "number", "0 to 1", "`0.5`"),
        ("optim.momentum", "number", "at least 0, below 1", "`0.9`"),
        ("scaling.gpus_per_worker", "`auto` or `0` or `1`", "", "`auto`"),
        ("train.channels_last", "`true` or `false` or `auto`", "", "`auto`"),
        ("tune.concurrent", "whole number or `auto`", "at least 1", "`auto`"),
        ("teacher.train", "section or `null`", "", "`null`"),
        ("subset", "list of text", "at least 1 of them, at most 1000", "required"),
    ],
)
def test_type_range_and_default_are_those_of_the_record(path, kind, limits, default):
    row = ROWS[path]
    assert (row.type, row.range, row.default) == (kind, limits, default)


def test_the_page_says_what_can_be_searched():
    assert ROWS["optim.lr"].search == "yes"
    assert ROWS["train"].search == "in part"
    assert ROWS["tune.trials"].search == "no"
    assert ROWS["train.epochs"].search == f"no: {NOT_SEARCHABLE['train.epochs']}"


def test_every_setting_outside_the_hash_is_known_here():
    outside = {each.path for each in LEAVES if each.identity is not Identity.TRAINING}
    assert outside == OTHERS.keys()


@pytest.mark.parametrize("path", OTHERS)
def test_the_identity_of_a_setting_is_what_another_value_changes(path):
    changed = with_values(SETTINGS, {path: OTHERS[path]} | VARIED.get(path, {}))
    assert changed != SETTINGS
    assert config_hash(changed) == config_hash(SETTINGS)
    found = differences(SETTINGS.model_dump(mode="json"), changed.model_dump(mode="json"))
    assert bool(found) == (ROWS[path].identity == "experiment")


# what a value needs beside itself
VARIED = {
    "tune.metric": {
        "search": {"student.width": {"choice": [0.5, 1.0]}},
        "tune.early_stopping": "none",
    }
}
