"""`search:`: each key names a setting that can vary, and the setting accepts each of its values."""

import pytest

from attnfd_ray.config.search_keys import NOT_SEARCHABLE
from attnfd_ray.config.spaces import parse_space

WHOLE = "'{}' cannot be searched as a whole: it holds"
KINDS_NEEDED = "needs one of choice, float, int, subset, as in {choice: [1, 2]}"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        # a key that names no setting
        (
            "optm.lr: {choice: [1]}",
            "no setting 'optm.lr': unknown key 'optm'; did you mean 'optim'?",
        ),
        (
            "optim.lrr: {choice: [1]}",
            "no setting 'optim.lrr': unknown key 'lrr'; did you mean 'lr'?",
        ),
        (
            "method.los_weight: {choice: [1]}",
            "no setting 'method.los_weight': unknown key 'los_weight'; did you mean 'loss_weight'?",
        ),
        ("optim.lr.x: {choice: [1]}", "no setting 'optim.lr.x': 'optim.lr' is not a section"),
        (
            "student.backbone.x: {choice: [1]}",
            "no setting 'student.backbone.x': 'backbone' is not a section",
        ),
        ("data.crop.0: {choice: [1]}", "no setting 'data.crop.0': 'crop' is not a section"),
        # a value that the setting would refuse
        ("optim.lr: {choice: [0.1, fast]}", '"fast" is refused: needs a number, got "fast"'),
        ("optim.lr: {choice: [0.1, true]}", "true is refused: needs a number, got true"),
        ("optim.lr: {float: [0, 1]}", "0.0 is refused: needs more than 0, got 0.0"),
        ("optim.momentum: {float: [0.5, 1]}", "1.0 is refused: needs less than 1, got 1.0"),
        (
            "train.batch_size: {float: [2, 16]}",
            "11.899494936611665 is refused: needs a whole number, got 11.899494936611665",
        ),
        (
            "train.precision: {choice: [fp32, fp8]}",
            "\"fp8\" is refused: needs 'fp32', 'bf16' or 'fp16', got \"fp8\"",
        ),
        (
            "student.backbone: {choice: [resnet18, resnet19]}",
            "\"resnet19\" is refused: unknown backbone 'resnet19'; did you mean 'resnet18'?",
        ),
        ("student.output_stride: {int: [8, 16]}", "9 is refused: needs 8 or 16, got 9"),
        (
            "train.batch_size: {int: [1, 16]}",
            "1 is refused: 1 gives each of 1 parts one image only: needs at least 2 each",
        ),
        ("data.crop: {choice: [[9, 9], 9]}", "9 is refused: needs a list, as in [1, 2], got 9"),
        (
            "data.crop: {choice: [[9, 9], [9, x]]}",
            '[9, "x"] is refused: needs a whole number, got "x"',
        ),
        ("method.reduction_ratio: {choice: [4, 0]}", "0 is refused: needs at least 1, got 0"),
        (
            "method.layers: {subset: [stage4, stage5]}",
            "[\"stage5\"] is refused: the student has no layer 'stage5'; did you mean 'stage4'?",
        ),
        (
            "method.layers: {subset: [stage4, stage5], min: 2}",
            (
                '["stage4", "stage5"] is refused: the student has no layer \'stage5\'; did you '
                "mean 'stage4'?"
            ),
        ),
        (
            "method.layers: {subset: [stage4], min: 0}",
            "[] is refused: needs at least 1 value, got []",
        ),
        ("optim.lr: {subset: [a, b]}", '["a"] is refused: needs a number, got ["a"]'),
        (
            "method.name: {choice: [attnfd, atnfd]}",
            "\"atnfd\" is refused: unknown method 'atnfd'; did you mean 'attnfd'?",
        ),
        (
            "student.pretrained: {choice: [none, imagenet]}",
            "\"imagenet\" is refused: imagenet weights exist for width 1, not 0.5; use 'none'",
        ),
        ("student.width: {choice: [0.5, 1], lgo: 1}", None),
        (
            "method: {choice: [{name: none}, {name: attnfd, layers: [asp]}]}",
            (
                '{"name": "attnfd", "layers": ["asp"]} is refused: the student has no '
                "layer 'asp'; did you mean 'aspp'?"
            ),
        ),
        (
            "method: {choice: [{name: none}, none]}",
            '"none" is refused: needs a section with a name, as in {name: attnfd}, got "none"',
        ),
        (
            "method: {choice: [{name: attnfd, norm: all}]}",
            (
                '{"name": "attnfd", "norm": "all"} is refused: needs \'image\', \'batch\' or '
                "'pixel', got \"all\""
            ),
        ),
        # no space
        ("optim.lr: 3", f"{KINDS_NEEDED}, got 3"),
        ("optim.lr:", f"{KINDS_NEEDED}, got null"),
        ("optim.lr: [1, 2]", f"{KINDS_NEEDED}, got [1, 2]"),
        (
            "optim.lr: {choise: [1]}",
            f"{KINDS_NEEDED}, got {{\"choise\": [1]}}; did you mean 'choice'?",
        ),
        (
            "optim.lr: {choice: [1], float: [1, 2]}",
            f'{KINDS_NEEDED}, got {{"choice": [1], "float": [1, 2]}}',
        ),
        ("optim.lr: {choice: [1, 2, 1]}", "choice: 1 is listed twice; keep one"),
        ("optim.lr: {float: [2, 1]}", "float: [2, 1] is empty; put the smaller end first"),
        (
            "optim.lr: {float: [0, 1], log: true}",
            "float: [0, 1] with log: true needs a smaller end above 0",
        ),
        (
            "optim.lr: {float: [1, 2], log: true, step: 0.5}",
            "step and log: true exclude each other; leave one out",
        ),
        ("train.seed: {int: [2, 1]}", "int: [2, 1] is empty; put the smaller end first"),
        (
            "train.seed: {int: [0, 9], log: true}",
            "int: [0, 9] with log: true needs a smaller end above 0",
        ),
        (
            "train.seed: {int: [1, 9], log: true, step: 2}",
            "step and log: true exclude each other; leave one out",
        ),
        ("method.layers: {subset: [aspp, aspp]}", "subset: a value is listed twice; keep one"),
        (
            "method.layers: {subset: [aspp], min: 2}",
            "subset: no 2 to 1 of 1 values; change min or max",
        ),
        (
            "method.layers: {subset: [aspp, stage4], min: 2, max: 1}",
            "subset: no 2 to 1 of 2 values; change min or max",
        ),
        (
            "method.layers: {subset: [aspp], max: 2}",
            "subset: no 1 to 2 of 1 values; change min or max",
        ),
    ],
)
def test_an_entry_that_cannot_be_searched_has_its_line(file, entry, problem):
    file.write(f"search:\n  {entry}", student="{backbone: resnet18, width: 0.5}")
    path = entry.partition(":")[0]
    expected = f"search.{path}: {problem}"
    if problem is None:
        expected = f"search.{path}.lgo: unknown key 'lgo'; there is: choice"
    assert file.problems() == [f"exp.yaml:7: {expected}"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("optim.lr: {float: 3}", "search.optim.lr.float: needs a list, as in [1, 2], got 3"),
        ("optim.lr: {float: [3]}", "search.optim.lr.float[1]: is missing"),
        ("optim.lr: {float: [1, x]}", 'search.optim.lr.float[1]: needs a number, got "x"'),
        ("optim.lr: {float: [1, .inf]}", "search.optim.lr.float[1]: needs a number, got Infinity"),
        ("optim.lr: {float: [true, 2]}", "search.optim.lr.float: needs a number, got [true, 2]"),
        ("optim.lr: {float: [1, 2], step: 0}", "search.optim.lr.step: needs more than 0, got 0"),
        (
            "optim.lr: {float: [1, 2], lgo: true}",
            "search.optim.lr.lgo: unknown key 'lgo'; did you mean 'log'?",
        ),
        ("train.seed: {int: [1, 2.5]}", "search.train.seed.int[1]: needs a whole number, got 2.5"),
        (
            "train.seed: {int: [1, 3], step: true}",
            "search.train.seed.step: needs a whole number, got true",
        ),
        ("optim.lr: {choice: []}", "search.optim.lr.choice: needs at least 1 value, got []"),
        ("optim.lr: {choice: 3}", "search.optim.lr.choice: needs a list, as in [1, 2], got 3"),
        (
            "method.layers: {subset: [1]}",
            "search.method.layers.subset[0]: needs text, got 1; put it in quotes",
        ),
        (
            "method.layers: {subset: [aspp], max: 0}",
            "search.method.layers.max: needs at least 1, got 0",
        ),
    ],
)
def test_a_mistake_inside_an_entry_names_where_in_it(file, entry, problem):
    file.write(f"search:\n  {entry}")
    assert file.problems() == [f"exp.yaml:7: {problem}"]


def test_a_choice_has_no_more_values_than_can_be_tried_before_a_search(file):
    file.write(f"search:\n  optim.lr: {{choice: {list(range(1, 1001))}}}")
    assert len(file.load().search["optim.lr"].choice) == 1000
    file.write(f"search:\n  optim.lr: {{choice: {list(range(1, 1002))}}}")
    assert file.problems()[0].startswith(
        "exp.yaml:7: search.optim.lr.choice: needs at most 1000 values, got [1, 2, 3"
    )


@pytest.mark.parametrize(("path", "why"), NOT_SEARCHABLE.items())
def test_what_holds_a_search_together_cannot_be_searched(file, path, why):
    file.write(f"search: {{{path}: {{choice: [1]}}}}")
    assert file.problems() == [f"exp.yaml:6: search.{path}: '{path}' cannot be searched: {why}"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (
            "teacher.backbone",
            "'teacher.backbone' cannot be searched: every trial learns from the same teacher",
        ),
        (
            "scaling.workers",
            "'scaling.workers' cannot be searched: every trial runs on the same worker groups",
        ),
        ("data", f"{WHOLE.format('data')} data.name, and every trial is scored on the same data"),
        (
            "train",
            (
                f"{WHOLE.format('train')} train.epochs, and trials of different budgets cannot be "
                "compared"
            ),
        ),
    ],
)
def test_neither_can_what_is_inside_or_around_it(file, path, problem):
    file.write(f"search: {{{path}: {{choice: [1]}}}}")
    assert file.problems() == [f"exp.yaml:6: search.{path}: {problem}"]


@pytest.mark.parametrize(
    ("says", "evaluation"),
    [
        ("evaluation: resized", "resized"),
        ("evaluation: sliding", "sliding"),
        ("preset: attnfd_release", "resized"),
    ],
)
def test_the_crop_cannot_be_searched_where_images_are_scored_by_it(file, says, evaluation):
    own, preset = (says, "") if says.startswith("evaluation") else ("", says)
    search = f"search: {{data.crop: {{choice: [[32, 32], [64, 64]]}}}}\n{preset}"
    file.write(search, data=f"{{name: voc, root: /data, crop: [64, 64], {own}}}")
    why = f"evaluation: {evaluation} scores by the crop"
    assert file.problem() == (
        f"exp.yaml:6: search.data.crop: 'data.crop' cannot be searched where {why}: "
        "scores of different protocols cannot be compared; set evaluation: native"
    )
    file.write(search, data="{name: voc, root: /data, crop: [64, 64], evaluation: native}")
    assert file.load().search.keys() == {"data.crop"}


def test_a_setting_and_the_section_around_it_cannot_be_searched_together(file):
    file.write("search:\n  method: {choice: [{name: attnfd}]}\n  method.loss_weight: {choice: [1]}")
    assert file.problems() == [
        (
            "exp.yaml:8: search.method.loss_weight: lies inside 'method', which is searched too; "
            "keep one of them"
        )
    ]


def test_a_method_by_name_takes_the_settings_of_the_one_written_down(file):
    file.write(
        "search: {method.name: {choice: [attnfd, none]}}", method="{name: attnfd, loss_weight: 1}"
    )
    assert file.problem() == (
        'exp.yaml:6: search.method.name: "none" is refused: method.loss_weight: unknown key '
        "'loss_weight'; "
        "there is: name"
    )


def test_whole_records_can_be_searched(file):
    methods = (
        "{choice: [{name: none}, {name: attnfd, layers: [aspp]}, {name: attnfd, norm: batch}]}"
    )
    file.write(f"search: {{method: {methods}}}")
    assert file.load().search["method"].choice[1] == {"name": "attnfd", "layers": ["aspp"]}


def test_a_value_can_break_a_rule_elsewhere(file):
    file.write("search:\n  train.accumulate: {choice: [1, 3]}")
    assert file.problem() == (
        "exp.yaml:7: search.train.accumulate: 3 is refused: train.batch_size: 16 cannot be shared "
        "evenly: needs a multiple of 1 workers x accumulate 3 = 3"
    )


def test_steps_of_whole_numbers_may_be_needed_and_are_enough(file):
    file.write("search:\n  train.batch_size: {int: [4, 16]}\nscaling: {workers: 4}")
    assert file.problems() == [
        (
            "exp.yaml:7: search.train.batch_size: 4 is refused: 4 gives each of 4 parts one image "
            "only: needs at least 2 each"
        )
    ]
    file.write("search:\n  train.batch_size: {int: [8, 16]}\nscaling: {workers: 4}")
    assert file.problem() == (
        "exp.yaml:7: search.train.batch_size: 9 is refused: 9 cannot be shared evenly: needs a "
        "multiple of 4 workers x accumulate 1 = 4"
    )
    file.write("search:\n  train.batch_size: {int: [8, 16], step: 4}\nscaling: {workers: 4}")
    assert file.load().search["train.batch_size"].examples() == [8, 16, 12]


def test_a_mistake_in_the_settings_is_not_reported_again_for_each_value(file):
    file.write(
        "optim: {momentum: 2}\nscaling: {workers: 3}\nsearch:\n  optim.lr: {choice: [1, 2]}\n  "
        "optim.lrr: {choice: [1]}"
    )
    assert file.problems() == [
        (
            "exp.yaml:1: train.batch_size: 16 cannot be shared evenly: needs a multiple of 3 "
            "workers x accumulate 1 = 3"
        ),
        "exp.yaml:6: optim.momentum: needs less than 1, got 2",
        (
            "exp.yaml:10: search.optim.lrr: no setting 'optim.lrr': unknown key 'lrr'; did you "
            "mean 'lr'?"
        ),
    ]


def test_a_searched_setting_that_is_wrong_itself_does_not_hide_a_wrong_value(file):
    file.write("optim: {lr: -1}\nsearch: {optim.lr: {choice: [1, -2]}}")
    assert file.problems() == [
        "exp.yaml:6: optim.lr: needs more than 0, got -1",
        "exp.yaml:7: search.optim.lr: -2 is refused: needs more than 0, got -2",
    ]


def test_an_own_methods_settings_can_be_searched(file, module):
    module(
        "own_method",
        "from pydantic import BaseModel\n"
        "from attnfd_ray.config.schema import MethodSettings\n"
        "class Part(BaseModel, extra='forbid'):\n    size: int = 1\n"
        "class Mine:\n"
        "    needs_teacher = False\n"
        "    class Settings(MethodSettings):\n"
        "        heat: float = 1.0\n"
        "        part: Part = Part()\n"
        "        parts: list[Part] = []\n",
    )
    mine = "{name: 'own_method:Mine'}"
    file.write(
        "search: {method.heat: {float: [1, 2]}, method.part.size: {int: [1, 2]}}",
        method=mine,
        teacher=None,
    )
    assert file.load().search.keys() == {"method.heat", "method.part.size"}
    file.write(
        "search: {method.haet: {choice: [1]}, method.part.siz: {choice: [1]}, method.parts: "
        "{choice: [[{siz: 2}]]}}",
        method=mine,
    )
    assert file.problems() == [
        (
            "exp.yaml:6: search.method.haet: no setting 'method.haet': unknown key 'haet'; did you "
            "mean 'heat'?"
        ),
        (
            "exp.yaml:6: search.method.part.siz: no setting 'method.part.siz': unknown key 'siz'; "
            "did you mean 'size'?"
        ),
        "exp.yaml:6: search.method.parts: [{\"siz\": 2}] is refused: unknown key 'siz'",
    ]


@pytest.mark.parametrize(
    ("space", "examples"),
    [
        ({"choice": [1, "a", None]}, [1, "a", None]),
        ({"float": [0.5, 2]}, [0.5, 2.0, 0.5 + 1.5 / 2**0.5]),
        ({"float": [1, 2], "step": 0.25}, [1.0, 2.0, 1.25]),
        ({"float": [1, 1]}, [1.0, 1.0]),
        ({"int": [1, 9]}, [1, 9, 2]),
        ({"int": [1, 9], "step": 4}, [1, 9, 5]),
        ({"int": [1, 2]}, [1, 2]),
        ({"subset": ["a", "b"]}, [["a"], ["b"]]),
        ({"subset": ["a", "b"], "min": 0}, [[], ["a"], ["b"]]),
        ({"subset": ["a", "b", "c"], "min": 2}, [["a", "b", "c"]]),
    ],
)
def test_the_examples_of_a_space_cover_its_ends_and_its_members(space, examples):
    assert parse_space(space).examples() == examples
