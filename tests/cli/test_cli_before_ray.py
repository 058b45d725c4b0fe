"""Errors that are found before Ray starts and before anything is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

# Importing torch and ray takes seconds: one process runs all commands, and prints how each ended.
RUN_ALL = """
import contextlib, io, json, os, sys
from attnfd_ray import cli
from attnfd_ray.runtime.cluster import environment
environment.prepare()
environment.prepare = lambda: None
import ray
for directory, arguments in json.loads(sys.stdin.read()):
    os.chdir(directory)
    sys.argv = ["attnfd-ray", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    files = sorted(name for _, names, files in os.walk(directory) for name in names + files)
    print(json.dumps([code, out.getvalue(), err.getvalue(), ray.is_initialized(), files]))
"""


def experiment(root: Path, **changes):
    tree = {
        "experiment": "e",
        "data": {"name": "camvid", "root": "data", "crop": [32, 32]},
        "teacher": {"checkpoint": "teacher.safetensors"},
        "student": {"width": 0.125},
        "method": {"name": "attnfd"},
        "train": {"epochs": 1, "batch_size": 2},
        "store": "results",
    }
    (root / "exp.yaml").write_text(yaml.safe_dump(tree | changes), encoding="utf-8")


def camvid(root: Path, *, val: str = "val"):
    """Write the smallest possible CamVid."""
    for split in ("train", val):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for name in ("a", "b"):
            Image.new("RGB", (32, 32)).save(root / split / f"{split}{name}.png")
            Image.new("L", (32, 32)).save(root / f"{split}annot" / f"{split}{name}.png")
        lines = [
            f"{split}/{split}{name}.png {split}annot/{split}{name}.png\n" for name in ("a", "b")
        ]
        (root / f"{split}.txt").write_text("".join(lines))


def no_data(root):
    experiment(root)
    return f"{root}/data: "


def no_val_split(root):
    experiment(root)
    camvid(root / "data", val="valid")
    return f"{root}/data: there is neither val.txt nor a directory val"


def no_teacher(root):
    experiment(root)
    camvid(root / "data")
    return "teacher.safetensors: cannot be read (No such file or directory)"


def teacher_of_other_keys(root):
    experiment(root)
    camvid(root / "data")
    save_file({"classifier.weight": torch.zeros(2, 2)}, root / "teacher.safetensors")
    names = "backbone.conv1.weight, backbone.bn1.weight, backbone.bn1.bias, ..."
    return f"147 missing ({names}), 1 unexpected (classifier"


def no_store(root):
    experiment(root, teacher=None, method={"name": "none"})
    camvid(root / "data")
    (root / "results").mkdir()
    (root / "results" / "thesis.tex").write_text("mine")
    return "results: not an attnfd-ray store: no attnfd_store.json there"


def file_for_store(root):
    experiment(root, teacher=None, method={"name": "none"}, store="thesis.tex")
    camvid(root / "data")
    (root / "thesis.tex").write_text("mine")
    return "thesis.tex: is a file; a store is a directory"


def address_for_store(root):
    experiment(root, teacher=None, method={"name": "none"}, store="s3://bucket/results")
    camvid(root / "data")
    return "s3://bucket/results: a store is a directory; mount the bucket and give its path"


def store_of_a_ray_job(root):
    copied = "session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    experiment(root, store=f"{copied}/results")
    return (
        "results is deleted when the job ends; give an absolute path that lasts, "
        "with --set store=/shared/results or ATTNFD_STORE"
    )


CASES = [
    no_data,
    no_val_split,
    no_teacher,
    teacher_of_other_keys,
    no_store,
    file_for_store,
    address_for_store,
    store_of_a_ray_job,
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return how each case ended under each command, and the expected error line."""
    jobs = []
    expected = {}
    for case in CASES:
        for command in ("train", "tune"):
            directory = tmp_path_factory.mktemp(f"{case.__name__}-{command}")
            line = case(directory)
            before = sorted(
                name for _, names, files in os.walk(directory) for name in names + files
            )
            jobs.append((str(directory), [command, "exp.yaml"]))
            expected[case, command] = [line, before]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        key: [*value, *result]
        for (key, value), result in zip(expected.items(), results, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line_and_exit_code_2_and_nothing_was_started_or_written(ended, case, command):
    line, before, code, out, err, ray_runs, files = ended[case, command]
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert line in err
    assert not ray_runs
    assert files == before
