"""How YAML is read: variables, doubled keys, merged sections, and files that are not YAML."""

import time
from itertools import pairwise

import pytest

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.errors import ConfigError

QUOTES = '; inside {} and [] put "${NAME}" in quotes'


def refusal(path):
    with pytest.raises(ConfigError) as raised:
        load_experiment(path)
    return raised.value.problems


# ---- files


def test_a_missing_file_and_a_directory_are_refused(file, tmp_path):
    file.path.unlink()
    assert refusal(file.path) == ["exp.yaml: cannot be read: No such file or directory"]
    file.path.mkdir()
    assert refusal(file.path) == ["exp.yaml: cannot be read: Is a directory"]


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "---\n", "- a list\n", "a word", "3", "null"]
)
def test_a_file_without_sections_is_refused(file, text):
    file.path.write_text(text)
    assert refusal(file.path) == [
        "exp.yaml:1: needs sections such as data:, student: and method:, and has none"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: 1\nb: [1, 2\n",
            (
                "3: not YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream "
                "end>'"
            ),
        ),
        ("a: 1\nb: c: d\n", "2: not YAML: mapping values are not allowed here"),
        (
            "a:\n\tb: 1\n",
            (
                "2: not YAML: while scanning for the next token: found character '\\t' that cannot "
                "start any token"
            ),
        ),
        (
            "a: 1\n---\nb: 2\n",
            "2: not YAML: expected a single document in the stream: but found another document",
        ),
        ("a: *nobody\n", "1: not YAML: found undefined alias 'nobody'"),
        ("a: 1\nb: \x00\n", "2: not YAML: special characters are not allowed: '\\x00'"),
        (
            "a: 1\nb: {c: ${D}}\n",
            "2: not YAML: while parsing a flow mapping: expected ',' or '}', but got '{'" + QUOTES,
        ),
        ("a: " + "[" * 1000, "1: not YAML: nested too deeply"),
    ],
)
def test_a_text_that_is_not_yaml_has_its_line(file, text, problem):
    file.path.write_text(text)
    assert refusal(file.path) == [f"exp.yaml:{problem}"]


def test_a_file_in_another_encoding_has_its_line(file):
    file.path.write_bytes("a: 1\nb: \u00fc\n".encode("latin-1"))
    assert refusal(file.path) == ["exp.yaml:2: not a text file in UTF-8"]


def test_a_mark_of_the_byte_order_does_no_harm(file):
    before = file.load()
    file.path.write_bytes(b"\xef\xbb\xbf" + file.path.read_bytes())
    assert file.load() == before


def test_a_file_far_too_long_is_not_even_parsed(file):
    file.write("# " + "x" * 300_000)
    assert refusal(file.path) == ["exp.yaml: more than 200000 bytes; is this a settings file?"]


# ---- keys and values


def test_a_doubled_key_has_the_line_of_the_second(file):
    file.write("train:\n  epochs: 1\n  seed: 1\n  epochs: 2\nstore: a\nstore: b")
    assert file.problems() == [
        "exp.yaml:9: train.epochs: is given twice; keep one",
        "exp.yaml:11: store: is given twice; keep one",
    ]


def test_a_key_that_is_no_word_is_refused(file):
    file.write("? [a, b]\n: 1")
    assert file.problems() == ["exp.yaml:6: ?: a key is a word, not a list or a section"]


def test_tags_are_refused_and_never_obeyed(file):
    file.write(
        "store: !!python/object/apply:os.system [ls]\ntrain: !mine {epochs: 3}\ntune: {trials: "
        "!!int many}\noptim: !x 1"
    )
    assert file.problems() == [
        (
            "exp.yaml:6: store: the tag tag:yaml.org,2002:python/object/apply:os.system is not "
            "supported; leave it out"
        ),
        "exp.yaml:7: train: the tag !mine is not supported; leave it out",
        'exp.yaml:8: tune.trials: "many" cannot be read as int',
        'exp.yaml:9: optim: "1" cannot be read as !x',
    ]


def test_a_number_with_thousands_of_digits_cannot_be_read(file):
    file.write(f"train: {{seed: {'9' * 5000}}}")
    assert file.problems() == [f'exp.yaml:6: train.seed: "{"9" * 76}... cannot be read as int']


@pytest.mark.parametrize("text", ["1e-3", "1E-03", "1.e-3", ".1e-2", "+1e-3", "1.0e-3", "0.001"])
def test_a_number_may_be_written_with_an_exponent_in_any_way(file, text):
    file.write(f"search: {{optim.lr: {{choice: [{text}]}}}}")
    assert file.load().search["optim.lr"].choice == [0.001]


def test_a_date_is_text(file):
    file.write(experiment="2026-03-01")
    assert file.load().experiment == "2026-03-01"


# ---- aliases and merged sections


def test_an_alias_stands_for_what_it_names(file):
    file.write(
        "search: {method.layers: {subset: *three}}",
        method="{name: attnfd, layers: &three [stage3, stage4, aspp]}",
    )
    assert (
        file.load().search["method.layers"].subset
        == file.load().method.layers
        == ["stage3", "stage4", "aspp"]
    )


def test_a_section_can_be_merged_into_another_whose_own_values_win(file):
    file.write(
        "teacher: {<<: *net, width: 1.0, checkpoint: /teacher.pt}",
        student="&net {backbone: resnet34, width: 0.5, output_stride: 8}",
        teacher=None,
    )
    settings = file.load()
    assert settings.teacher.model_dump(include={"backbone", "width", "output_stride"}) == {
        "backbone": "resnet34", "width": 1.0, "output_stride": 8,
    }  # fmt: skip
    assert settings.student.width == 0.5


def test_of_several_merged_sections_the_first_counts(file):
    file.write("train: &a {epochs: 3, seed: 3}\nscaling: {workers: 2}\n"
               "tune:\n  <<: [{seed: 5, trials: 5}, {seed: 6, grace_epochs: 6}]\n  trials: "
               "7")  # fmt: skip
    tune = file.load().tune
    assert (tune.seed, tune.trials, tune.grace_epochs) == (5, 7, 6)


def test_a_mistake_in_a_merged_section_has_its_own_line(file):
    file.write("train: &a\n  seed: x\ntune:\n  <<: *a\n  trials: 1")
    assert file.problems() == [
        'exp.yaml:7: train.seed: needs a whole number, got "x"',
        'exp.yaml:7: tune.seed: needs a whole number, got "x"',
    ]


def test_only_sections_can_be_merged(file):
    file.write("train: {<<: 3}\ntune: {<<: [{}, 3]}")
    assert file.problems() == [
        "exp.yaml:6: train.<<: needs a section to merge in, as in <<: *name",
        "exp.yaml:7: tune.<<: needs a section to merge in, as in <<: *name",
    ]


def nine_of_nine(form):
    """Return lines whose aliases stand for 9^8 values."""
    names = "abcdefgh"
    return "\n".join(
        f"{name}: &{name} {form % ', '.join([f'*{before}'] * 9)}"
        for before, name in pairwise(names)
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a {<<: *a}",
        "a: &a {<<: [{}, *a]}",
        "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + nine_of_nine("[%s]"),
        "a: &a {k: 0}\n" + nine_of_nine("{<<: [%s]}"),
        f"a: [{'0, ' * 12_000}]",
    ],
)
def test_aliases_that_stand_for_too_many_values_are_refused_within_seconds(file, text):
    file.path.write_text(text)
    start = time.process_time()
    problems = refusal(file.path)
    # a second or two for the longest; without a limit it would not end
    assert time.process_time() - start < 10
    assert len(problems) == 1
    assert problems[0].endswith(
        ": more than 10000 values or 50 levels; does an alias (*name) refer to itself?"
    )
    assert problems[0].startswith("exp.yaml:")


# ---- variables


def test_a_variable_is_put_in_with_its_default_where_it_is_unset_or_empty(file):
    file.write('store: "/r/${STORE:-here}/${EMPTY:-and there}/${NONE:-}x"', experiment="${NAME}")
    settings = file.load(NAME="mine", EMPTY="")
    assert settings.experiment == "mine"
    assert settings.store == "/r/here/and there/x"
    assert file.load(NAME="mine", STORE="a", EMPTY="b", NONE="c").store == "/r/a/b/cx"


def test_a_variable_that_is_not_set_is_a_mistake_with_its_line_and_the_way_out(file):
    file.write("train:\n  seed: ${SEED}", data='{name: camvid, root: "${ROOT}/x", crop: [9, 9]}')
    assert file.problems() == [
        "exp.yaml:2: data.root: the variable ROOT is not set; export it, or write ${ROOT:-default}",
        (
            "exp.yaml:7: train.seed: the variable SEED is not set; export it, or write "
            "${SEED:-default}"
        ),
    ]
    assert file.problems(SEED="", ROOT="/r") == [
        "exp.yaml:7: train.seed: the variable SEED is not set; export it, or write ${SEED:-default}"
    ]


@pytest.mark.parametrize("text", ["${my-root}", "${ROOT", "${}", "${1}", "a${ROOT-b}"])
def test_what_only_looks_like_a_variable_is_a_mistake(file, text):
    file.write(f"store: '{text}'")
    assert file.problems(ROOT="/r") == [
        f'exp.yaml:6: store: a variable is written ${{NAME}} or ${{NAME:-default}}, got "{text}"'
    ]


def test_a_doubled_dollar_stands_for_one(file):
    file.write("store: /r/$${HOME}/$HOME/$$")
    assert file.load(HOME="/home/me").store == "/r/${HOME}/$HOME/$$"


def test_a_value_that_looks_like_a_variable_is_not_put_in_again(file):
    file.write("store: /r/${A}")
    assert file.load(A="${B}", B="b").store == "/r/${B}"


def test_without_quotes_a_variable_is_read_as_if_its_value_were_in_the_file(file):
    file.write("search:\n  optim.lr:\n    choice:\n      - ${A}\n      - ${B:-0.5}\n      - '${A}'")
    assert file.load(A="1e-3").search["optim.lr"].choice == [0.001, 0.5, "1e-3"]
    file.write(data="\n  name: camvid\n  root: /data\n  crop: [9, 9]\n  val_limit: ${LIMIT:-}")
    assert file.load().data.val_limit is None
    assert file.load(LIMIT="7").data.val_limit == 7


@pytest.mark.parametrize(
    ("section", "setting", "number"),
    [("scaling", "gpus_per_worker", 1), ("student", "output_stride", 8)],
)
def test_in_quotes_a_variable_can_still_be_one_of_a_few_numbers(file, section, setting, number):
    file.write(**{section: f"{{{setting}: '${{N}}'}}"})
    assert getattr(getattr(file.load(N=str(number)), section), setting) == number


def test_in_quotes_a_variable_can_say_how_many_trials_run_at_once(file):
    file.write("tune: {concurrent: '${N}'}")
    assert [file.load(N=text).tune.concurrent for text in ("auto", "3")] == ["auto", 3]


# ---- paths


def test_paths_are_made_absolute_and_a_home_is_found(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    file.write(
        "store: results",
        data="{name: camvid, root: ~/data, crop: [9, 9]}",
        teacher="{checkpoint: t/x.pt}",
    )
    settings = file.load()
    assert settings.store == str(tmp_path / "results")
    assert settings.data.root == "/home/me/data"
    assert settings.teacher.checkpoint == str(tmp_path / "t/x.pt")


def test_a_home_of_an_unknown_user_is_a_directory_like_any_other(file, tmp_path):
    file.write("store: ~nobody-is-called-this/results")
    assert file.load().store == str(tmp_path / "~nobody-is-called-this/results")


def test_an_address_is_no_path_and_stays_as_it_is(file):
    file.write("store: s3://bucket/results")
    assert file.load().store == "s3://bucket/results"
