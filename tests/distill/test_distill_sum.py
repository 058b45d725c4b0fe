"""`sum`: several methods at once, the checks of their settings, and the names of their terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.loader import dump_yaml, load_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.distill.method import BatchNormStats, Method, Networks
from attnfd_ray.distill.sum import Sum
from attnfd_ray.errors import ConfigError

LABELS = torch.zeros(2, 1, 1, dtype=torch.long)
TAPS = {"stage4": 4, "aspp": 4, "decoder": 4, "logits": 3}
NETWORKS = Networks(
    student_channels=TAPS,
    teacher_channels=TAPS,
    teacher_norms={"stage4": BatchNormStats(scale=torch.ones(4), shift=torch.zeros(4))},
    num_classes=3,
)
KD, CWD = (
    {"name": "kd", "weight": 2.0},
    {"name": "cwd_feature", "weight": 50, "layers": ["decoder"]},
)
OFD = {"name": "ofd", "layers": ["stage4"]}


def settings(*terms: dict[str, Any], **others: Any) -> Sum.Settings:
    return Sum.Settings.model_validate({"terms": terms, **others})


def make(*terms: dict[str, Any], **others: Any) -> Sum:
    torch.manual_seed(0)
    return Sum(settings(*terms, **others), NETWORKS).eval()


def features(seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {tap: torch.randn((2, channels, 3, 5), generator=rng) for tap, channels in TAPS.items()}


def values(method: Method) -> dict[str, float]:
    return {name: term.item() for name, term in method(features(1), features(2), LABELS).items()}


def alone(name: str, **changes: Any) -> dict[str, float]:
    kind = registry.load("method", name)
    torch.manual_seed(0)
    return values(kind(kind.Settings(**changes), NETWORKS).eval())


def test_its_terms_are_those_of_its_methods_each_with_its_weight() -> None:
    expected = alone("kd", loss_weight=2) | alone("cwd_feature", loss_weight=50, layers=["decoder"])
    assert values(make(KD, CWD)) == expected
    assert list(expected) == ["kd/logits", "cwd_feature/decoder"]


def test_its_own_weight_is_a_factor_on_all() -> None:
    once, thrice = values(make(KD, CWD)), values(make(KD, CWD, loss_weight=3))
    assert thrice == pytest.approx({name: 3 * value for name, value in once.items()})


def test_a_weight_left_out_is_the_methods_default() -> None:
    assert values(make({"name": "cwd_logit"})) == alone("cwd_logit", loss_weight=3)


def test_the_same_method_twice_has_terms_of_different_names() -> None:
    found = values(
        make(
            {"name": "kd"},
            {"name": "kd", "temperature": 4, "weight": 0.5},
            {"name": "kd", "weight": 3},
        )
    )
    plain = alone("kd")["kd/logits"]
    assert list(found) == ["kd/logits", "kd_2/logits", "kd_3/logits"]
    assert found["kd/logits"] == plain
    assert found["kd_2/logits"] == alone("kd", temperature=4, loss_weight=0.5)["kd/logits"]
    assert found["kd_3/logits"] == pytest.approx(3 * plain)


def test_a_sum_can_be_part_of_a_sum() -> None:
    inner = {"name": "sum", "weight": 2, "terms": [KD, CWD]}
    found = values(make(KD, inner))
    assert list(found) == ["kd/logits", "kd_2/logits", "cwd_feature_2/decoder"]
    assert found["kd_2/logits"] == pytest.approx(2 * found["kd/logits"])


def test_it_reads_every_tap_once() -> None:
    at = {"name": "at", "layers": ["stage4", "decoder"]}
    assert Sum.taps(settings(KD, CWD, at, {"name": "dist"})) == ("logits", "decoder", "stage4")


def test_a_term_of_weight_zero_is_left_out() -> None:
    method = make(KD, {**OFD, "weight": 0})
    assert list(values(method)) == ["kd/logits"]
    assert Sum.taps(method.settings) == ("logits",)
    assert (method.frozen_prefixes(1), method.teacher_mode) == ((), "eval")


def test_what_one_of_its_methods_freezes_is_frozen() -> None:
    first_epoch = {"name": "attnfd", "connectors": "first_epoch", "layers": ["aspp"]}
    method = make(KD, OFD, first_epoch)
    assert method.frozen_prefixes(1) == ("student", "student", "method.parts.2.student_gates")
    assert method.frozen_prefixes(2) == ("method.parts.2.connectors",)
    known = [f"method.{name}" for name, _ in method.named_parameters()]
    for prefix in ("method.parts.2.student_gates.", "method.parts.2.connectors."):
        assert any(name.startswith(prefix) for name in known)


def test_the_cut_of_a_batch_matters_if_it_does_to_one_of_its_methods() -> None:
    assert not make(KD, CWD).depends_on_batch
    assert make(KD, {"name": "dist"}).depends_on_batch


def test_methods_that_accept_eval_accept_another_methods_mode_of_the_teacher() -> None:
    assert make(KD, CWD).teacher_mode == "eval"
    assert make(KD, OFD, OFD).teacher_mode == "batch_statistics"


# A term's settings, in a file


def experiment(tmp_path: Path, terms: str) -> Path:
    file = tmp_path / "exp.yaml"
    file.write_text(
        "experiment: e\ndata: {name: camvid, root: /d, crop: [9, 9]}\nteacher: {checkpoint: "
        "/t.pt}\nstudent: {}\n"
        f"method:\n  name: sum\n  terms:\n{terms}"
    )
    return file


def load(tmp_path: Path, terms: str) -> ExperimentSettings:
    return load_experiment(experiment(tmp_path, terms), environ={})


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        ("  - {name: kd}\n  - {name: kdd}\n",
         "9: method.terms[1].name: unknown method 'kdd'; did you mean 'kd'?"),
        ("  - {name: kd, warmth: 1}\n", "8: method.terms[0].warmth: unknown key 'warmth'"),
        ("  - {name: kd, temperature: 0}\n",
         "8: method.terms[0].temperature: needs more than 0, got 0"),
        ("  - {name: kd, weight: -1}\n", "8: method.terms[0].weight: needs at least 0, got -1"),
        ("  - {name: kd, weight: heavy}\n",
         '8: method.terms[0].weight: needs a number, got "heavy"'),
        ("  - {name: kd, weight: true}\n", "8: method.terms[0].weight: needs a number, got true"),
        (
            "  - {name: kd, weight: 1, loss_weight: 1}\n",
            ("8: method.terms[0].weight: is given beside loss_weight, which is the same; keep one "
            "of them"),
        ),
        (
            "  - {name: kd}\n  - {name: none, weight: 1}\n",
            "9: method.terms[1].weight: method 'none' has no loss_weight that it could set",
        ),
        ("  - {name: at, layers: [aspp, aspp]}\n",
         "8: method.terms[0].layers: a layer is listed twice in ['aspp', 'aspp']"),
        ("  - kd\n", ('8: method.terms[0]: needs a section with a name, as in {name: attnfd}, got '
                     '"kd"')),
        ("  - {name: at, layers: [stage5]}\n",
         "5: method: the student has no layer 'stage5'; did you mean 'stage4'?"),
        (
            "  - {name: ofd}\n  - {name: attnfd, teacher_mode: train}\n",
            ("7: method.terms: its methods need the teacher in different modes, batch_statistics "
            "and train; keep one mode"),
        ),
        (
            "  - {name: attnfd, divide_by_batch: true}\n  - {name: kd}\n",
            ("7: method.terms: some of its methods divide the loss by the batch and some do not; "
            "keep one kind"),
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_a_term_is_reported_with_its_line(
    tmp_path: Path, terms: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, terms)
    assert raised.value.problems == [f"{tmp_path / 'exp.yaml'}:{problem}"]


def test_a_sum_needs_a_term(tmp_path: Path) -> None:
    file = experiment(tmp_path, "    []\n")
    with pytest.raises(ConfigError, match=r"method\.terms: needs at least 1 value, got \[\]"):
        load_experiment(file, environ={})


def test_its_settings_survive_being_written_and_read_again(tmp_path: Path) -> None:
    loaded = load(tmp_path, "  - {name: kd, weight: 2}\n  - {name: cwd_feature, layers: [aspp]}\n")
    assert loaded.method.model_dump()["terms"][0] == {
        "name": "kd",
        "loss_weight": 2.0,
        "temperature": 1.0,
    }
    (tmp_path / "again.yaml").write_text(dump_yaml(loaded))
    assert load_experiment(tmp_path / "again.yaml", environ={}) == loaded


def test_methods_that_contradict_each_other_only_once_they_are_made_are_refused_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "undecided.py").write_text(
        "from attnfd_ray.distill.kd import KD\n"
        "class Late(KD):\n"
        "    class Settings(KD.Settings):\n        name: str = ''\n"
        "    def __init__(self, settings, networks):\n"
        "        super().__init__(settings, networks)\n        self.teacher_mode = 'train'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="different modes, batch_statistics and train"):
        make(OFD, {"name": "undecided:Late"})
