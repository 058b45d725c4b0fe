"""`attnfd-ray explain`: each setting of a preset, and the reason for it."""

import json

import pytest
from click.testing import CliRunner

from attnfd_ray import registry
from attnfd_ray.cli import cli
from attnfd_ray.errors import ConfigError


def explain(*arguments):
    return CliRunner().invoke(cli, ["explain", *arguments], env={"COLUMNS": "80"})


@pytest.mark.parametrize("name", sorted(registry.TABLES["preset"]))
def test_it_prints_a_row_for_every_choice_and_its_reason(name):
    printed = explain(name).output
    lines = printed.splitlines()
    for row in registry.load("preset", name).rows():
        (line,) = [line for line in lines if line.startswith(f"{row['setting']} ")]
        value = row["value"] if isinstance(row["value"], str) else json.dumps(row["value"])
        assert line.endswith(value)
        assert row["why"] in " ".join(printed.split())


def test_the_columns_are_setting_default_and_preset_with_why_below():
    lines = [line.split() for line in explain("attnfd_release").output.splitlines()]
    start = lines.index(["setting", "default", "preset"])
    assert lines[start + 1] == ["why"]
    assert lines[start + 2] == ["method.name", "attnfd", "attnfd_release"]
    assert ["data.pad_label", "255", "0"] in lines
    assert ["data.scale_base", "-", "513"] in lines
    assert ["method.divide_by_batch", "false", "true"] in lines


def test_it_prints_where_a_preset_differs_from_its_source():
    differences = registry.load("preset", "attnfd_release").differences
    assert explain("attnfd_release").output.count("differs from its source: ") == len(differences)


def test_json_is_one_document():
    document = json.loads(explain("attnfd_paper", "--json").output)
    assert document["preset"] == "attnfd_paper"
    rows = {row["setting"]: row for row in document["settings"]}
    assert (rows["method.norm"]["default"], rows["method.norm"]["value"]) == ("batch", "pixel")
    assert all(row["why"] for row in rows.values())


def test_an_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(
        ConfigError, match="unknown preset 'attnfd_papr'; did you mean 'attnfd_paper'"
    ):
        raise explain("attnfd_papr").exception
