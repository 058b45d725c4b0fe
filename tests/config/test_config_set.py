"""`--set a.b=c`: a value for a setting, over what the file says."""

import pytest


def test_a_value_takes_the_place_of_the_files(file):
    file.write("train: {epochs: 5, seed: 7}")
    train = file.load("train.epochs=3", "train.precision=bf16").train
    assert (train.epochs, train.seed, train.precision) == (3, 7, "bf16")


def test_a_section_that_the_file_lacks_is_made(file):
    assert file.load("scaling.workers=4").scaling.workers == 4
    assert file.load("teacher.train.epochs=2", "teacher.checkpoint=null").teacher.train.epochs == 2
    file.write("optim:")
    assert file.load("optim.lr=0.5").optim.lr == 0.5


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("store=/a=b", "/a=b"),
        ("store= /a b # a comment", "/a b"),
        ("store='/#1'", "/#1"),
        ("store=/${ROOM}/${HALL:-x}", "/r/x"),
        ("store=/1e-3", "/1e-3"),
    ],
)
def test_the_value_is_yaml_with_variables(file, assignment, value):
    assert file.load(assignment, ROOM="r").store == value


def test_a_list_or_a_section_can_be_set_whole(file):
    settings = file.load("data.crop=[8, 16]", "method={name: none}", "teacher=")
    assert settings.data.crop == (8, 16)
    assert settings.method.name == "none"
    assert settings.teacher is None


def test_the_last_of_several_counts(file):
    assert file.load("train.epochs=3", "train={epochs: 4}", "train.epochs=5").train.epochs == 5


def test_a_search_key_is_set_by_the_path_it_searches(file):
    file.write("search: {optim.lr: {float: [0.1, 1]}, method.loss_weight: {float: [1, 2]}}")
    search = file.load("search.optim.lr={choice: [0.5]}", "search.train.seed={int: [1, 5]}").search
    assert {path: type(space).__name__ for path, space in search.items()} == {
        "optim.lr": "Choice",
        "method.loss_weight": "FloatRange",
        "train.seed": "IntRange",
    }
    assert file.load("search=").search == {}


def test_what_was_wrong_in_the_file_is_forgotten_with_the_value_it_was_about(file):
    file.write("train:\n  epochs: ${EPOCHS}\n  seed: x\n  seed: y\nstore: !mine x")
    assert file.load("train={epochs: 2}", "store=/r").train.epochs == 2
    assert file.problems("train.epochs=2", "store=/r") == [
        "exp.yaml:9: train.seed: is given twice; keep one"
    ]


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("train.epochs=x", 'train.epochs: needs a whole number, got "x"'),
        ("train.epochs=", "train.epochs: needs a whole number, got null"),
        ("train.epochs=true", "train.epochs: needs a whole number, got true"),
        ("train.epoch=3", "train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("tune={seed: 1, samplr: x}", "tune.samplr: unknown key 'samplr'; did you mean 'sampler'?"),
        (
            "student.zzz.y=3",
            (
                "student.zzz: unknown key 'zzz'; there is: arch, backbone, output_stride, "
                "pretrained, pretrained_sha256, width"
            ),
        ),
        (
            "optim.lr=${NONE}",
            "optim.lr: the variable NONE is not set; export it, or write ${NONE:-default}",
        ),
        ("data.crop=[1, x]", 'data.crop[1]: needs a whole number, got "x"'),
        ("tune={trials: 1, trials: 2}", "tune.trials: is given twice; keep one"),
        ("store=a: b", 'store: needs text, got {"a": "b"}'),
        (
            "search.optim.lr={float: [2, 1]}",
            "search.optim.lr: float: [2, 1] is empty; put the smaller end first",
        ),
        (
            "search.optim.lrr={choice: [1]}",
            "search.optim.lrr: no setting 'optim.lrr': unknown key 'lrr'; did you mean 'lr'?",
        ),
        # what cannot even be tried
        ("train.epochs", "needs a path and a value, as in --set train.epochs=3"),
        ("=3", "needs a path and a value, as in --set train.epochs=3"),
        ("train..epochs=3", "needs a path and a value, as in --set train.epochs=3"),
        ("", "needs a path and a value, as in --set train.epochs=3"),
        (
            "data.crop=[1, 2",
            "while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
        ),
        ("store=*a", "found undefined alias 'a'"),
        ("data.crop.0=3", "'crop' is not a section"),
        ("experiment.name=x", "'experiment' is not a section"),
        ("store=\x1b[31m", "special characters are not allowed: '\\x1b'"),
    ],
)
def test_a_mistake_names_the_assignment(file, assignment, problem):
    place = f"--set {assignment}".replace("\x1b", "\\x1b")
    assert file.problems(assignment) == [f"{place}: {problem}"]


def test_mistakes_on_the_command_line_come_after_those_in_the_file_and_all_at_once(file):
    file.write("train: {epochs: x}")
    assert file.problems("optim.lr=-1", "nonsense", "store=[", "trian.epochs=3") == [
        'exp.yaml:6: train.epochs: needs a whole number, got "x"',
        "--set optim.lr=-1: optim.lr: needs more than 0, got -1",
        "--set trian.epochs=3: trian: unknown key 'trian'; did you mean 'train'?",
        "--set nonsense: needs a path and a value, as in --set train.epochs=3",
        (
            "--set store=[: while parsing a flow node: expected the node content, but found "
            "'<stream end>'"
        ),
    ]
