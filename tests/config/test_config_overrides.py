"""Changed copies of an experiment, and the identity of settings."""

import copy

import pytest

from attnfd_ray.config.overrides import (
    baseline_of,
    config_hash,
    differences,
    digest,
    flatten,
    set_dotted,
    teacher_experiment,
    with_values,
)
from attnfd_ray.config.schema import ExperimentSettings

TREE = {
    "experiment": "e",
    "data": {"name": "camvid", "root": "/data", "crop": [9, 9]},
    "teacher": {"backbone": "resnet101", "train": {"epochs": 7, "seed": 5}, "min_miou": 0.5},
    "student": {"backbone": "resnet18"},
    "method": {"name": "attnfd"},
    "optim": {"lr": 0.1},
    "train": {"epochs": 3, "batch_size": 4, "seed": 9},
    "search": {"optim.lr": {"float": [0.1, 1.0]}},
}


@pytest.fixture
def settings():
    return ExperimentSettings.model_validate(TREE)


def test_values_are_put_in_by_their_dotted_paths(settings):
    changed = with_values(
        settings, {"optim.lr": 0.5, "method.layers": ["aspp"], "search.optim.lr": {"choice": [1]}}
    )
    assert (changed.optim.lr, changed.method.layers, changed.search["optim.lr"].choice) == (
        0.5,
        ["aspp"],
        [1],
    )
    assert differences(settings.model_dump(mode="json"), changed.model_dump(mode="json")) == [
        "method.layers: ['stage4', 'aspp', 'decoder'] -> ['aspp']",
        "optim.lr: 0.1 -> 0.5",
        "search.optim.lr.choice: absent -> [1]",
        "search.optim.lr.float: [0.1, 1.0] -> absent",
        "search.optim.lr.log: False -> absent",
    ]


def test_without_values_nothing_changes(settings):
    assert with_values(settings, {}) == settings


def test_values_are_validated_with_all_the_rest(settings):
    with pytest.raises(ValueError, match="cannot be shared evenly"):
        with_values(settings, {"scaling.workers": 3})


def test_a_value_that_was_passed_in_is_never_changed(settings):
    method = {"name": "attnfd", "loss_weight": 1.0}
    changed = with_values(settings, {"method": method, "method.loss_weight": 3.0})
    assert changed.method.loss_weight == 3.0
    assert method == {"name": "attnfd", "loss_weight": 1.0}


def test_a_path_through_a_plain_value_is_refused():
    tree = {"a": {"b": 1}, "c": None}
    with pytest.raises(TypeError, match="'b' is not a section"):
        set_dotted(tree, "a.b.c", 2)
    set_dotted(tree, "c.d", 2)
    assert tree == {"a": {"b": 1}, "c": {"d": 2}}


def test_the_baseline_differs_in_the_loss_weight_alone(settings):
    baseline = baseline_of(settings)
    assert differences(settings.model_dump(mode="json"), baseline.model_dump(mode="json")) == [
        "method.loss_weight: 2.0 -> 0.0"
    ]


def test_a_method_that_knows_no_weight_of_0_has_no_baseline(settings, file, module):
    assert baseline_of(with_values(settings, {"method": {"name": "none"}})) is None
    module(
        "never_zero",
        "from pydantic import Field\nfrom attnfd_ray.config.schema import MethodSettings\n"
        "class Method:\n    needs_teacher = True\n"
        "    class Settings(MethodSettings):\n        loss_weight: float = Field(default=1.0, "
        "gt=0)\n",
    )
    assert baseline_of(with_values(settings, {"method": {"name": "never_zero:Method"}})) is None


def test_the_teachers_experiment_trains_its_network_alone(settings):
    training = teacher_experiment(settings)
    assert training.student.backbone == "resnet101"
    assert (training.teacher, training.method.name, training.search) == (None, "none", {})
    assert (training.train.epochs, training.train.seed) == (7, 5)
    assert (training.train.batch_size, training.optim.lr) == (4, 0.1), (
        "settings that it leaves out are those of the student"
    )
    assert training.data == settings.data


def test_the_settings_of_the_teachers_training_win(settings):
    training = teacher_experiment(
        with_values(settings, {"teacher.train.lr": 0.02, "teacher.train.batch_size": 8})
    )
    assert (training.optim.lr, training.train.batch_size) == (0.02, 8)


def test_every_leaf_has_its_dotted_path():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}) == {
        "a.b": 1,
        "a.c": {},
        "d": [1, {"e": 2}],
    }


@pytest.mark.parametrize(
    "path",
    [
        *(
            "store",
            "data.root",
            "data.loader_workers",
            "tune.trials",
            "tune.baseline_trials",
            "tune.duplicates",
        ),
        *("tune.concurrent", "tune.keep_weights", "tune.max_failures", "train.step_patience_s"),
        "train.gradient_checks",
    ],
)
def test_settings_that_may_change_on_resume_are_no_differences(settings, path):
    value = {"store": "/elsewhere", "data.root": "/elsewhere", "tune.duplicates": "skip"}.get(
        path, 6
    )
    old, new = (
        each.model_dump(mode="json") for each in (settings, with_values(settings, {path: value}))
    )
    assert old != new
    assert differences(old, new) == []


HASHED = {
    "data.crop": [8, 8],
    "teacher.width": 0.5,
    "student.width": 0.5,
    "method.loss_weight": 1.0,
    "optim.lr": 0.2,
    "train.epochs": 4,
}
NOT_HASHED = {
    "experiment": "f",
    "store": "/elsewhere",
    "data.root": "/elsewhere",
    "data.loader_workers": 3,
    "teacher.min_miou": 0.1,
    "train.seed": 10,
    "train.step_patience_s": 7.0,
    "train.gradient_checks": 0,
    "scaling.cpus_per_worker": 2,
    "tune.trials": 3,
    "search": {},
}


@pytest.mark.parametrize(("path", "value"), HASHED.items())
def test_what_trains_another_network_has_another_hash(settings, path, value):
    assert config_hash(with_values(settings, {path: value})) != config_hash(settings)


@pytest.mark.parametrize(("path", "value"), NOT_HASHED.items())
def test_what_trains_the_same_network_has_the_same_hash(settings, path, value):
    changed = with_values(settings, {path: value})
    assert changed != settings
    assert config_hash(changed) == config_hash(settings)


def test_a_hash_is_what_it_was_before_gradients_were_measured(settings):
    settings = with_values(settings, {"method.norm": "image"})  # the default of that time
    assert config_hash(settings) == "0e2966b5ef45b430"
    assert config_hash(baseline_of(settings)) == "761fde3ca5f86df3"
    assert config_hash(teacher_experiment(settings)) == "235f21f75d679cab"


def test_a_method_of_loss_weight_0_has_the_hash_of_none(settings):
    none = config_hash(with_values(settings, {"method": {"name": "none"}}))
    for method in ({"name": "attnfd"}, {"name": "kd", "temperature": 2.0}):
        weighing = with_values(settings, {"method": method})
        assert config_hash(baseline_of(weighing)) == none
        assert config_hash(weighing) != none


def test_a_digest_depends_on_content_and_not_on_order_and_stays_what_it_is():
    tree = {"a": [1, {"b": 2.5, "c": None}], "d": "\u00fc"}
    turned = {"d": "\u00fc", "a": [1, {"c": None, "b": 2.5}]}
    assert digest(tree) == digest(turned) == digest(copy.deepcopy(tree)) == "7828a6e17a57aa30"
    assert digest({**tree, "d": "u"}) != digest(tree)
