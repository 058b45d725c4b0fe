"""A protocol is the same for all trials of a search.

So a setting that changes it cannot be searched.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.train.evaluate import protocol

CROP = [32, 32]
# another value for every setting of the data
OTHERS: dict[str, Any] = {
    "name": "camvid",
    "root": "/other",
    "train_split": "val",
    "val_split": "other",
    "test_split": "test",
    "crop": [24, 24],
    "scale": [1.0, 1.5],
    "scale_base": 300,
    "flip": 0.1,
    "blur": 0.2,
    "pad_label": 0,
    "eval_stride": [8, 8],
    "eval_scales": [0.5, 1.0],
    "eval_flip": True,
    "input_scale": 0.5,
    "val_limit": 3,
    "loader_workers": 2,
    "cache": "memory",
    "cache_gib": 2.0,
}


@pytest.mark.parametrize("evaluation", ["native", "resized", "sliding"])
def test_what_changes_the_protocol_cannot_be_searched(tmp_path: Path, evaluation: str) -> None:
    assert OTHERS.keys() | {"evaluation"} == DataSettings.model_fields.keys(), (
        "a new setting needs another value"
    )
    data = {"name": "voc", "root": "/data", "crop": CROP, "evaluation": evaluation}
    known = DataSettings.model_validate(data)
    for name, value in OTHERS.items():
        changed = known.model_copy(
            update={name: tuple(value) if isinstance(value, list) else value}
        )
        if protocol(changed) != protocol(known):
            search = {f"data.{name}": {"choice": [value]}}
            with pytest.raises(
                ConfigError, match=rf"search\.data\.{name}: 'data\.{name}' cannot be searched"
            ):
                load_experiment(written(tmp_path, data, search))


def test_the_crop_is_searched_where_it_changes_only_training(tmp_path: Path) -> None:
    data = {"name": "voc", "root": "/data", "crop": CROP}
    settings = load_experiment(written(tmp_path, data, {"data.crop": {"choice": [CROP, [24, 24]]}}))
    assert settings.search.keys() == {"data.crop"}


def written(directory: Path, data: dict[str, Any], search: dict[str, Any]) -> Path:
    tree = {
        "experiment": "e",
        "data": data,
        "student": {},
        "method": {"name": "none"},
        "search": search,
    }
    path = directory / "exp.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
