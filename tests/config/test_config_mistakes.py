"""Every mistake in a settings file is one line: where, which setting, what came, what is needed."""

import pickle

import pytest

from attnfd_ray.errors import ConfigError

TOP_KEYS = (
    "data, experiment, method, optim, preset, scaling, search, store, student, teacher, train, tune"
)
OPTIM_KEYS = "head_lr_factor, lr, momentum, nesterov, poly_power, schedule, weight_decay"
NAME = (
    "experiment: needs letters, digits, '.', '_' or '-', at most 100, the first a letter or digit, "
    "got"
)
LINES = {"experiment": 1, "data": 2, "teacher": 3, "student": 4, "method": 5}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        # unknown keys
        ("trian: {}", "trian: unknown key 'trian'; did you mean 'train'?"),
        ("zzz: 1", f"zzz: unknown key 'zzz'; there is: {TOP_KEYS}"),
        ("5: 1", f"5: unknown key '5'; there is: {TOP_KEYS}"),
        ("null: 1", f"null: unknown key 'null'; there is: {TOP_KEYS}"),
        (
            "optim: {learning_rate: 1}",
            f"optim.learning_rate: unknown key 'learning_rate'; there is: {OPTIM_KEYS}",
        ),
        # wrong types
        ("train: {epochs: ten}", 'train.epochs: needs a whole number, got "ten"'),
        ("train: {epochs: 3.5}", "train.epochs: needs a whole number, got 3.5"),
        ("train: {epochs: true}", "train.epochs: needs a whole number, got true"),
        ("train: {epochs: null}", "train.epochs: needs a whole number, got null"),
        ("train: {epochs: .inf}", "train.epochs: needs a number, got Infinity"),
        ("train: {epochs: [1]}", "train.epochs: needs a whole number, got [1]"),
        ("optim: {lr: fast}", 'optim.lr: needs a number, got "fast"'),
        ("optim: {lr: true}", "optim.lr: needs a number, got true"),
        ("optim: {lr: .nan}", "optim.lr: needs a number, got NaN"),
        ("optim: {lr: -.inf}", "optim.lr: needs a number, got -Infinity"),
        ("optim: {nesterov: 2}", "optim.nesterov: needs true or false, got 2"),
        ("optim: {nesterov: maybe}", 'optim.nesterov: needs true or false, got "maybe"'),
        ("store: 2024", "store: needs text, got 2024; put it in quotes"),
        ("store: on", "store: needs text, got true; put it in quotes"),
        ("store: [a]", 'store: needs text, got ["a"]'),
        ('store: ""', 'store: needs text, got ""'),
        ("optim: fast", 'optim: needs a section of settings, got "fast"'),
        ("train: [1, 2]", "train: needs a section of settings, got [1, 2]"),
        ("search: [optim.lr]", 'search: needs a section of settings, got ["optim.lr"]'),
        (
            "scaling: {gpus_per_worker: true}",
            "scaling.gpus_per_worker: needs a whole number, got true",
        ),
        ("scaling: {gpus_per_worker: 2}", "scaling.gpus_per_worker: needs 'auto', 0 or 1, got 2"),
        (
            "tune: {concurrent: all}",
            'tune.concurrent: needs auto or a whole number from 1 up, got "all"',
        ),
        ("tune: {concurrent: 0}", "tune.concurrent: needs auto or a whole number from 1 up, got 0"),
        ("tune: {concurrent: true}", "tune.concurrent: needs a whole number, got true"),
        ("train: {precision: fp8}", "train.precision: needs 'fp32', 'bf16' or 'fp16', got \"fp8\""),
        # out of range
        ("train: {epochs: 0}", "train.epochs: needs at least 1, got 0"),
        ("train: {seed: -1}", "train.seed: needs at least 0, got -1"),
        (
            "train: {seed: 123456789012345678901234567890}",
            "train.seed: needs less than 2147483648, got 123456789012345678901234567890",
        ),
        (
            "train: {steps_per_epoch: 1e12}",
            "train.steps_per_epoch: needs less than 2147483648, got 1000000000000.0",
        ),
        ("optim: {lr: 0}", "optim.lr: needs more than 0, got 0"),
        ("optim: {momentum: 1}", "optim.momentum: needs less than 1, got 1"),
        ("scaling: {workers: 5000}", "scaling.workers: needs at most 4096, got 5000"),
        # unknown parts
        ("tune: {sampler: tpa}", "tune.sampler: unknown sampler 'tpa'; did you mean 'tpe'?"),
        (
            "tune: {early_stopping: x}",
            (
                "tune.early_stopping: unknown early stopping 'x'; there is: asha, hyperband, "
                "median, none"
            ),
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(file, line, problem):
    file.write(line)
    assert file.problems() == [f"exp.yaml:6: {problem}"]


@pytest.mark.parametrize(
    ("section", "text", "problem"),
    [
        ("experiment", "a/b", f'{NAME} "a/b"'),
        ("experiment", "e" * 101, f'{NAME} "{"e" * 76}...'),
        ("experiment", '"e\\n"', f'{NAME} "e\\n"'),
        (
            "data",
            "{name: camvid, root: /d, crop: 360}",
            "data.crop: needs a list, as in [1, 2], got 360",
        ),
        ("data", "{name: camvid, root: /d, crop: [360]}", "data.crop[1]: is missing"),
        (
            "data",
            "{name: camvid, root: /d, crop: [1, 2, 3]}",
            "data.crop: needs at most 2 values, got [1, 2, 3]",
        ),
        (
            "data",
            "{name: camvid, root: /d, crop: [1, x]}",
            'data.crop[1]: needs a whole number, got "x"',
        ),
        (
            "data",
            "{name: camvid, root: /d, crop: [1, true]}",
            "data.crop: needs a whole number, got [1, true]",
        ),
        (
            "data",
            "{name: camvid, root: /d, crop: [9, 9], scale: [2, 1]}",
            "data.scale: [2, 1] is empty; put the smaller end first",
        ),
        (
            "data",
            "{name: camvid, root: /d, crop: [9, 9], scale: [0, 1]}",
            "data.scale[0]: needs more than 0, got 0",
        ),
        (
            "data",
            "{name: camvit, root: /d, crop: [9, 9]}",
            "data.name: unknown dataset 'camvit'; did you mean 'camvid'?",
        ),
        (
            "student",
            "{backbone: resnet81}",
            "student.backbone: unknown backbone 'resnet81'; did you mean 'resnet18'?",
        ),
        ("student", "{output_stride: 32}", "student.output_stride: needs 8 or 16, got 32"),
        (
            "method",
            "attnfd",
            'method: needs a section with a name, as in {name: attnfd}, got "attnfd"',
        ),
        ("method", "{layers: [aspp]}", "method.name: is missing"),
        ("method", "", "method.name: is missing"),
        ("method", "{name: 3}", "method.name: needs text, got 3"),
        ("method", "{name: atnfd}", "method.name: unknown method 'atnfd'; did you mean 'attnfd'?"),
        (
            "method",
            "{name: attnfd, reduction_ratio: 0}",
            "method.reduction_ratio: needs at least 1, got 0",
        ),
        ("method", "{name: attnfd, layers: []}", "method.layers: needs at least 1 value, got []"),
        (
            "method",
            "{name: attnfd, layers: aspp}",
            'method.layers: needs a list, as in [1, 2], got "aspp"',
        ),
        (
            "method",
            "{name: attnfd, layer: [aspp]}",
            "method.layer: unknown key 'layer'; did you mean 'layers'?",
        ),
        (
            "method",
            "{name: attnfd, norm: imag}",
            "method.norm: needs 'image', 'batch' or 'pixel', got \"imag\"",
        ),
        (
            "method",
            "{name: none, layers: [aspp]}",
            "method.layers: unknown key 'layers'; there is: name",
        ),
        (
            "teacher",
            "{train: {epochs: 3, sed: 1}}",
            "teacher.train.sed: unknown key 'sed'; did you mean 'seed'?",
        ),
    ],
)
def test_a_mistake_in_a_section_has_the_line_of_the_section(file, section, text, problem):
    file.write(**{section: text})
    assert file.problems() == [f"exp.yaml:{LINES[section]}: {problem}"]


def test_what_is_missing_is_named_with_the_section_it_belongs_to(file):
    file.path.write_text("\ndata:\n  name: camvid\nstudent:\n")
    assert file.problems() == [
        "exp.yaml:1: experiment: is missing",
        "exp.yaml:1: method: is missing",
        "exp.yaml:2: data.root: is missing",
        "exp.yaml:2: data.crop: is missing",
    ]


def test_all_mistakes_come_at_once_in_the_order_of_the_file(file):
    file.write(
        "train: {batch_size: 3, epochs: many}\n"
        "scaling: {workers: 2}\n"
        "optim:\n  lr: -1\n  lrr: 1\n"
        "store: ${NOWHERE}\n"
        "search: {optim.lrx: {choice: [1]}, train.precision: {choice: [fp8]}}\n"
        "tune: {trials: 1, trials: 2}",
        experiment="'no name'",
        student="{width: 0.5, pretrained: imagenet}",
    )
    assert [problem.partition(": ")[0] for problem in file.problems()] == [
        f"exp.yaml:{line}" for line in (1, 4, 6, 9, 10, 11, 12, 12, 13)
    ]


def test_the_line_is_that_of_the_value_in_a_file_of_blocks(file):
    file.write(
        data="\n  name: camvid\n  root: /data\n  # as in the paper\n  crop:\n    - 360\n    - "
        "wide\n"
    )
    assert file.problems() == ['exp.yaml:8: data.crop[1]: needs a whole number, got "wide"']


def test_a_message_is_one_line_whatever_it_quotes(file):
    file.write('"a\\nb": 1\ntrain: {epochs: "1\\n\\e[31m2"}\ntune: {sampler: "x\\r\\ny"}')
    problems = file.problems()
    assert [problem.splitlines() for problem in problems] == [[problem] for problem in problems]
    assert problems == [
        f"exp.yaml:6: a\\nb: unknown key 'a\\nb'; there is: {TOP_KEYS}",
        'exp.yaml:7: train.epochs: needs a whole number, got "1\\n\\u001b[31m2"',
        (
            "exp.yaml:8: tune.sampler: unknown sampler 'x\\r\\ny'; there is: cmaes, gp, grid, "
            "nsga2, random, tpe"
        ),
    ]


def test_a_long_value_is_quoted_in_part(file):
    file.write(f"train: {{epochs: {'x' * 10_000}}}")
    assert file.problems() == [
        f'exp.yaml:6: train.epochs: needs a whole number, got "{"x" * 76}...'
    ]


@pytest.mark.parametrize("text", ["3", '"3"', "3.0"])
def test_a_whole_number_may_be_written_in_several_ways(file, text):
    file.write(f"train: {{epochs: {text}}}")
    assert file.load().train.epochs == 3


def test_an_empty_section_means_its_defaults(file):
    before = file.load()
    file.write("optim:\ntrain: # nothing yet\nscaling:\nsearch:\ntune:\nstore: ./results")
    assert file.load() == before


def test_an_empty_section_without_defaults_says_what_it_needs(file):
    file.write(data="")
    assert file.problems() == [
        f"exp.yaml:2: data.{name}: is missing" for name in ("name", "root", "crop")
    ]


def test_an_error_that_went_through_pickle_still_has_its_lines():
    error = pickle.loads(pickle.dumps(ConfigError(["a.yaml:1: x", "a.yaml:2: y"])))
    assert error.problems == ["a.yaml:1: x", "a.yaml:2: y"]
    assert str(error) == "a.yaml:1: x\na.yaml:2: y"
