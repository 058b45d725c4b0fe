"""`preset: NAME` sets what a file leaves out; a value in the file wins."""

import pytest
import yaml

from attnfd_ray import registry
from attnfd_ray.config.loader import dump_yaml


def test_a_preset_fills_in_the_method_and_the_recipe_around_it(file):
    file.write("preset: attnfd_release", method=None, data="{name: voc, root: /data}", student=None)
    settings = file.load()
    assert settings.method == registry.load("method", "attnfd_release").Settings()
    assert (settings.data.crop, settings.data.pad_label, settings.data.evaluation) == (
        (513, 513),
        0,
        "resized",
    )
    assert (settings.train.epochs, settings.train.batch_size, settings.optim.nesterov) == (
        120,
        6,
        True,
    )
    assert settings.student.pretrained == "imagenet"


def test_a_value_in_the_file_wins(file):
    file.write(
        "preset: attnfd_release\ntrain: {epochs: 3}\noptim:",
        method="{layers: [aspp], norm: image}",
        data="{name: voc, root: /data, crop: [64, 64], scale_base: null}",
        student="{pretrained: none}",
    )
    settings = file.load()
    assert (settings.method.name, settings.method.layers, settings.method.norm) == (
        "attnfd_release",
        ["aspp"],
        "image",
    )
    assert settings.method.teacher_mode == "train"
    assert (settings.data.crop, settings.data.scale_base, settings.data.blur) == (
        (64, 64),
        None,
        0.5,
    )
    assert (settings.train.epochs, settings.train.batch_size, settings.optim.nesterov) == (
        3,
        6,
        True,
    )
    assert settings.student.pretrained == "none"


def test_another_method_gets_the_recipe_around_it_and_none_of_its_settings(file):
    file.write("preset: attnfd_release", method="{name: none}", teacher=None)
    assert file.load().method.model_dump() == {"name": "none"}
    assert file.load().data.pad_label == 0


def test_on_the_command_line_a_preset_is_set_like_anything_else(file):
    settings = file.load("preset=attnfd_paper", "data.crop=[32, 32]")
    assert (settings.method.name, settings.data.crop) == ("attnfd", (32, 32))
    file.write(method=None)
    assert file.load("preset=attnfd_paper").method.norm == "pixel"
    assert file.load("preset=attnfd_paper", "method.norm=image").method.norm == "image"


@pytest.mark.parametrize("name", sorted(registry.TABLES["preset"]))
def test_the_expanded_file_reads_back_the_same_and_names_no_preset(file, name):
    file.write(f"preset: {name}", method=None)
    settings = file.load()
    text = dump_yaml(settings)
    assert "preset" not in yaml.safe_load(text)
    file.path.write_text(text)
    assert file.load() == settings


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("attnfd_relaese", "unknown preset 'attnfd_relaese'; did you mean 'attnfd_release'?"),
        ("zzz", "unknown preset 'zzz'; there is: attnfd, attnfd_paper, attnfd_release"),
        ("os:path", "preset 'os:path' is not a preset: needs an attnfd_ray.distill.presets.Preset"),
        ("[attnfd]", 'needs the name of a preset, got ["attnfd"]'),
        ("", "needs the name of a preset, got null"),
        ("${NOT_SET}", "the variable NOT_SET is not set; export it, or write ${NOT_SET:-default}"),
    ],
)
def test_a_preset_that_does_not_exist_is_reported_in_one_line(file, value, problem):
    file.write(f"preset: {value}")
    assert file.problem() == f"exp.yaml:6: preset: {problem}"


def test_settings_that_an_unknown_preset_would_set_are_not_reported_as_missing(file):
    file.write("preset: attnfd_relaese", method=None, student=None, data="{name: voc, root: /data}")
    assert file.problem().endswith("did you mean 'attnfd_release'?")


def test_a_mistake_in_a_value_of_a_preset_has_the_line_of_the_preset(file):
    file.write(
        "scaling: {workers: 4}\npreset: attnfd_release",
        data="{name: voc, root: /data, crop: [64, 64]}",
    )
    assert file.problem() == (
        "exp.yaml:7: train.batch_size: 6 cannot be shared evenly: needs a multiple of 4 workers x "
        "accumulate 1 = 4"
    )


def test_a_plain_value_for_a_section_is_reported_with_a_preset_too(file):
    file.write("preset: attnfd_release\ntrain: fast")
    assert file.problem() == 'exp.yaml:7: train: needs a section of settings, got "fast"'


def test_a_preset_of_a_user_is_named_by_its_module(file, module):
    module(
        "mine",
        "from attnfd_ray.distill.presets import Choice, Preset\n"
        "SLOW = Preset(summary='mine', choices=(Choice('train.epochs', 7, 'enough for me'),))\n",
    )
    file.write("preset: mine:SLOW")
    assert file.load().train.epochs == 7


def test_resized_evaluation_and_a_shrunk_input_exclude_each_other(file):
    file.write(
        data="{name: voc, root: /data, crop: [64, 64], evaluation: resized, input_scale: 0.5}"
    )
    assert file.problem() == (
        "exp.yaml:2: data.input_scale: needs 1 with evaluation: resized, which sets the size of "
        "images, got 0.5"
    )


def test_the_evaluation_cannot_be_searched(file):
    file.write("search: {data.evaluation: {choice: [native, resized]}}")
    assert file.problem() == (
        "exp.yaml:6: search.data.evaluation: 'data.evaluation' cannot be searched: scores of "
        "different protocols cannot be compared"
    )
