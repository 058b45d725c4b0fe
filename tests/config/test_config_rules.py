"""Rules between settings; a broken rule is reported at the setting to change."""

import pytest

LAYERS = "aspp, aspp_pre, decoder, decoder_pre, logits, stage1, stage2, stage3, stage4"
EITHER = "teacher: needs either checkpoint: FILE or train: {epochs: N}, one of them"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            "train: {batch_size: 15}\nscaling: {workers: 2}",
            (
                "6: train.batch_size: 15 cannot be shared evenly: needs a multiple of 2 workers x "
                "accumulate 1 = 2"
            ),
        ),
        (
            "train:\n  accumulate: 4\n  batch_size: 12\nscaling: {workers: 2}",
            (
                "8: train.batch_size: 12 cannot be shared evenly: needs a multiple of 2 workers x "
                "accumulate 4 = 8"
            ),
        ),
        (
            "train: {batch_size: 4, accumulate: 2}\nscaling: {workers: 2}",
            "6: train.batch_size: 4 gives each of 4 parts one image only: needs at least 2 each",
        ),
        (
            "train: {batch_size: 1}",
            "6: train.batch_size: 1 gives each of 1 parts one image only: needs at least 2 each",
        ),
        (
            "scaling: {workers: 3}",
            (
                "1: train.batch_size: 16 cannot be shared evenly: needs a multiple of 3 workers x "
                "accumulate 1 = 3"
            ),
        ),
    ],
)
def test_every_part_of_a_batch_has_the_same_two_images_at_least(file, more, problem):
    file.write(more)
    assert file.problems() == [f"exp.yaml:{problem}"]


def test_a_teacher_that_is_trained_has_its_batch_cut_in_the_same_way(file):
    file.write("scaling: {workers: 2}", teacher="{train: {epochs: 1, batch_size: 3}}")
    assert file.problem() == (
        "exp.yaml:3: teacher.train.batch_size: 3 cannot be shared evenly: needs a multiple of 2 "
        "workers x accumulate 1 = 2"
    )


@pytest.mark.parametrize(
    ("section", "text", "problem"),
    [
        (
            "student",
            "{width: 0.5, pretrained: imagenet}",
            "4: student.pretrained: imagenet weights exist for width 1, not 0.5; use 'none'",
        ),
        (
            "teacher",
            "{width: 2, pretrained: imagenet, train: {epochs: 1}}",
            "3: teacher.pretrained: imagenet weights exist for width 1, not 2; use 'none'",
        ),
        (
            "teacher",
            "{pretrained: imagenet, checkpoint: x}",
            "3: teacher.pretrained: would be overwritten by teacher.checkpoint; remove pretrained",
        ),
        (
            "student",
            "{pretrained: imagnet}",
            (
                "4: student.pretrained: needs none, imagenet or a path, as in weights/net.pth, got "
                '"imagnet"'
            ),
        ),
        (
            "student",
            "{pretrained: ./net.pth, pretrained_sha256: abc}",
            '4: student.pretrained_sha256: needs the first 16 hex digits of a SHA-256, got "abc"',
        ),
        (
            "student",
            "{pretrained_sha256: 0123456789abcdef}",
            (
                "4: student.pretrained_sha256: needs a file in pretrained, which is none; remove "
                "it, or name the file"
            ),
        ),
        ("teacher", "", "3: teacher: is missing: method 'attnfd' needs one"),
        ("teacher", None, "1: teacher: is missing: method 'attnfd' needs one"),
        ("teacher", "{backbone: resnet50}", f"3: {EITHER}"),
        ("teacher", "{checkpoint: x, train: {epochs: 1}}", f"3: {EITHER}"),
        (
            "method",
            "{name: attnfd, layers: [aspp, stage5]}",
            "5: method.layers: the student has no layer 'stage5'; did you mean 'stage4'?",
        ),
        (
            "method",
            "{name: attnfd, layers: [zzz]}",
            f"5: method.layers: the student has no layer 'zzz'; there is: {LAYERS}",
        ),
        (
            "method",
            "{name: attnfd, layers: [aspp, aspp]}",
            "5: method.layers: a layer is listed twice in ['aspp', 'aspp']",
        ),
    ],
)
def test_a_network_and_a_method_fit_each_other(file, section, text, problem):
    file.write(**{section: text})
    assert file.problems() == [f"exp.yaml:{problem}"]


def test_a_method_without_a_teacher_needs_none(file):
    file.write(teacher=None, method="{name: none}")
    assert file.load().teacher is None


def test_imagenet_weights_fit_width_1(file):
    file.write(student="{width: 1.0, pretrained: imagenet}")
    assert file.load().student.pretrained == "imagenet"


def test_rules_between_valid_sections_are_reported_along_with_mistakes_in_others(file):
    file.write(
        "optim: {lr: fast}\nscaling: {workers: 3}",
        student="{width: 0.5, pretrained: imagenet}",
        method="{name: attnfd, layers: [stage9]}",
    )
    assert file.problems() == [
        (
            "exp.yaml:1: train.batch_size: 16 cannot be shared evenly: needs a multiple of 3 "
            "workers x accumulate 1 = 3"
        ),
        "exp.yaml:4: student.pretrained: imagenet weights exist for width 1, not 0.5; use 'none'",
        "exp.yaml:5: method.layers: the student has no layer 'stage9'; did you mean 'stage4'?",
        'exp.yaml:6: optim.lr: needs a number, got "fast"',
    ]


def test_a_rule_is_checked_once_every_section_it_needs_is_valid(file):
    file.write("scaling: {workers: 3}\ntrain: {batch_size: many}", teacher="{checkpoint: 3}")
    assert file.problems() == [
        "exp.yaml:3: teacher.checkpoint: needs text, got 3; put it in quotes",
        'exp.yaml:7: train.batch_size: needs a whole number, got "many"',
    ]


def test_layers_of_a_users_own_network_are_known_only_once_it_is_built(file, module):
    module("own_network", "class Net: pass\nclass Named:\n    tap_names = ('left', 'right')\n")
    file.write(student="{arch: 'own_network:Net'}", method="{name: attnfd, layers: [stage4]}")
    assert file.load().student.arch == "own_network:Net"
    file.write(student="{arch: 'own_network:Named'}", method="{name: attnfd, layers: [stage4]}")
    assert file.problems() == [
        "exp.yaml:5: method.layers: the student has no layer 'stage4'; there is: left, right"
    ]


SIZED = "search: {student.width: {choice: [0.5, 1.0]}}\n"
BOTH = "tune: {metric: [val_miou, student_params]"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            f"{SIZED}{BOTH}, early_stopping: asha}}",
            (
                "early_stopping: 'asha' compares trials by one metric; with several, needs none, "
                "or leave it out"
            ),
        ),
        (
            f"{SIZED}{BOTH}, sampler: cmaes}}",
            "sampler: 'cmaes' can follow only one metric; needs tpe, nsga2, random or grid",
        ),
        (
            f"{SIZED}{BOTH}, sampler: gp}}",
            (
                "sampler: 'gp' takes minutes for each draw with several metrics; needs tpe, nsga2, "
                "random or grid"
            ),
        ),
        (
            f"search: {{student.output_stride: {{choice: [8, 16]}}}}\n{BOTH}}}",
            "metric: student_params is the same for every trial: needs {} in search:".format(
                "one of student.arch, student.backbone, student.width"
            ),
        ),
        (
            "search: {optim.lr: {float: [0.1, 1]}}\ntune: {metric: [val_miou, latency_ms]}",
            "metric: latency_ms is the same for every trial: needs {} in search:".format(
                "one of student.arch, student.backbone, student.width, student.output_stride"
            ),
        ),
    ],
)
def test_several_metrics_need_a_student_that_varies_no_early_stopping_and_a_sampler_for_them(
    file, more, problem
):
    file.write(more)
    assert file.problems() == [f"exp.yaml:7: tune.{problem}"]


@pytest.mark.parametrize(
    "metric",
    [
        *(
            "latency_ms",
            "[val_miou]",
            "[student_params, latency_ms]",
            "[val_miou, speed]",
            "[val_miou, val_miou]",
        ),
        *("[val_miou, student_params, student_params]", "7", "[]"),
    ],
)
def test_a_metric_is_miou_alone_or_a_list_of_it_and_others(file, metric):
    file.write(f"tune: {{metric: {metric}}}")
    assert file.problem().startswith(
        "exp.yaml:6: tune.metric: needs val_miou, or a list of it and one or more of "
        "student_params, latency_ms, got "
    )


def test_nothing_is_stopped_early_where_several_metrics_are_asked_and_that_is_shown(file):
    file.write(SIZED)
    assert file.load().tune.early_stopping == "asha"
    tune = file.load("tune.metric=[latency_ms, val_miou]").tune
    assert (tune.early_stopping, tune.metrics) == ("none", ("latency_ms", "val_miou"))
    assert tune.model_dump()["early_stopping"] == "none"
