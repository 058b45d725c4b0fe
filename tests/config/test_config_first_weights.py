"""`pretrained`: a path or a word, and the hash of the file that it stands for."""

from typing import Any

import pytest

from attnfd_ray.config.overrides import config_hash, differences, teacher_experiment, with_values
from attnfd_ray.config.schema import ExperimentSettings

A, B = "a" * 16, "b" * 16
TREE = {
    "experiment": "e",
    "data": {"name": "camvid", "root": "/data", "crop": [9, 9]},
    "teacher": {"backbone": "resnet101", "train": {"epochs": 7}},
    "student": {"backbone": "resnet18", "pretrained": "imagenet"},
    "method": {"name": "attnfd"},
}


def made(**student: Any) -> ExperimentSettings:
    return ExperimentSettings.model_validate(TREE | {"student": TREE["student"] | student})  # type: ignore[operator]


def changed(old: ExperimentSettings, new: ExperimentSettings) -> list[str]:
    return differences(old.model_dump(mode="json"), new.model_dump(mode="json"))


def test_paths_of_first_weights_are_made_absolute_everywhere(file, tmp_path):
    file.write(
        "search: {student.pretrained: {choice: [none, imagenet, w/b.pth]}}",
        student="{pretrained: w/a.pth}",
        teacher="{pretrained: ./t.pth, train: {epochs: 1}}",
    )
    settings = file.load()
    assert settings.student.pretrained == str(tmp_path / "w/a.pth")
    assert settings.teacher.pretrained == str(tmp_path / "t.pth")
    assert settings.search["student.pretrained"].choice == [
        "none",
        "imagenet",
        str(tmp_path / "w/b.pth"),
    ]
    file.write(
        "search: {student: {choice: [{backbone: resnet34}, {pretrained: ./c.pth}]}}",
        student="{width: 0.5}",
    )
    settings = file.load()
    assert settings.student.pretrained == "none"
    assert settings.search["student"].choice == [
        {"backbone": "resnet34"},
        {"pretrained": str(tmp_path / "c.pth")},
    ]


def test_a_hash_is_kept_as_its_first_16_digits():
    assert (
        made(pretrained_sha256="0123456789ABCDEF" * 4).student.pretrained_sha256
        == "0123456789abcdef"
    )


def test_without_a_hash_a_config_has_the_hash_it_always_had():
    settings = with_values(made(), {"method.norm": "image"})  # the default of that time
    assert config_hash(settings) == "dc11fd9921dfda0f"
    assert config_hash(teacher_experiment(made())) == "091f140162baa120"


def test_a_file_counts_by_its_hash_wherever_it_is():
    assert config_hash(made(pretrained="/x.pth", pretrained_sha256=A)) == config_hash(
        made(pretrained_sha256=A)
    )
    assert config_hash(made(pretrained_sha256=A)) != config_hash(made(pretrained_sha256=B))
    assert config_hash(made(pretrained_sha256=A)) != config_hash(made())


def test_a_teachers_training_knows_the_hash_of_its_file():
    settings = made()
    pinned = with_values(settings, {"teacher.pretrained": "/t.pth", "teacher.pretrained_sha256": A})
    assert teacher_experiment(pinned).student.pretrained_sha256 == A
    assert config_hash(pinned) != config_hash(
        with_values(settings, {"teacher.pretrained": "/t.pth"})
    )


def test_a_hash_that_only_one_has_is_no_difference_and_another_hash_is():
    assert (
        changed(made(), made(pretrained_sha256=A))
        == changed(made(pretrained_sha256=A), made())
        == []
    )
    assert changed(made(pretrained_sha256=A), made(pretrained_sha256=B)) == [
        f"student.pretrained_sha256: {A} -> {B}"
    ]
    assert changed(made(pretrained_sha256=A), made(pretrained="/x.pth", pretrained_sha256=A)) == []
    assert changed(made(), made(pretrained="/x.pth", pretrained_sha256=A)) == [
        "student.pretrained: imagenet -> /x.pth"
    ]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"student.pretrained": "none"}, None),
        ({"student.pretrained": "/x.pth"}, None),
        ({"student.backbone": "resnet34"}, None),
        ({"student.arch": "torchvision/fcn_resnet50", "student.backbone": "resnet50"}, None),
        ({"student": {"backbone": "resnet34", "pretrained": "imagenet"}}, None),
        ({"student.backbone": "resnet34", "student.pretrained_sha256": B}, B),
        ({"optim.lr": 0.5, "student.output_stride": 8}, A),
    ],
)
def test_a_hash_is_dropped_when_the_file_changes(values, kept):
    if "student.arch" in values:
        values = values | {"student.output_stride": 8}
    assert with_values(made(pretrained_sha256=A), values).student.pretrained_sha256 == kept


def test_another_backbone_keeps_the_hash_of_a_file_that_stays():
    settings = made(pretrained="/x.pth", pretrained_sha256=A)
    assert with_values(settings, {"student.backbone": "resnet34"}).student.pretrained_sha256 == A
