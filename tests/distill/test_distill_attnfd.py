"""AttnFD as a whole: its terms, its settings, and the modules that it trains."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.distill import presets
from attnfd_ray.distill.attnfd import AttnFD
from attnfd_ray.distill.attnfd_variants import AttnFDPaper, AttnFDRelease
from attnfd_ray.distill.method import Networks
from attnfd_ray.distill.normalised import normalised_distance

CHANNELS = Networks(
    student_channels={"aspp": 8, "decoder": 12}, teacher_channels={"aspp": 16, "decoder": 12}
)
NO_GATES = {"student_gate": "identity", "teacher_gate": "identity"}
LABELS = torch.zeros(2, 1, 1, dtype=torch.long)


def make(**settings: Any) -> AttnFD:
    torch.manual_seed(0)
    return AttnFD(AttnFD.Settings(layers=["aspp", "decoder"], **settings), CHANNELS)


def student_features(size: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        layer: torch.randn((2, n, size, size), generator=rng)
        for layer, n in CHANNELS.student_channels.items()
    }


def teacher_features(size: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(2)
    return {
        layer: torch.randn((2, n, size, size), generator=rng)
        for layer, n in CHANNELS.teacher_channels.items()
    }


def test_each_layer_is_a_term_weighted_by_the_loss_weight() -> None:
    light, heavy = (
        make(loss_weight=weight).eval()(student_features(), teacher_features(), LABELS)
        for weight in (1, 3)
    )
    assert list(light) == list(heavy) == ["attnfd/aspp", "attnfd/decoder"]
    assert all(
        heavy[name].item() == pytest.approx(3 * light[name].item(), rel=1e-6) for name in light
    )  # float32


def test_a_student_of_another_stride_is_brought_to_the_size_of_the_teacher() -> None:
    method = make(loss_weight=1, student_gate="identity", teacher_gate="identity").eval()
    student, teacher = student_features(4), teacher_features(6)
    terms = method(student, teacher, LABELS)
    for layer in ("aspp", "decoder"):
        guess = F.interpolate(
            method.connectors[layer](student[layer]), (6, 6), mode="bilinear", align_corners=False
        )
        assert torch.equal(
            terms[f"attnfd/{layer}"], normalised_distance(guess, teacher[layer], norm="batch")
        )


@pytest.mark.parametrize("teacher_gate", ["parameter_free", "random_frozen", "identity"])
def test_nothing_flows_back_into_the_teacher(teacher_gate: str) -> None:
    method = make(teacher_gate=teacher_gate).train()
    before = {name: tensor.clone() for name, tensor in method.teacher_gates.state_dict().items()}
    teacher = {layer: feature.requires_grad_() for layer, feature in teacher_features().items()}
    optimizer = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1
    )
    torch.stack(list(method(student_features(), teacher, LABELS).values())).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert all(feature.grad is None for feature in teacher.values())
    assert not any(parameter.requires_grad for parameter in method.teacher_gates.parameters())
    assert all(
        torch.equal(tensor, before[name])
        for name, tensor in method.teacher_gates.state_dict().items()
    )


@pytest.mark.parametrize(
    ("student_gate", "expected"),
    [
        ("learned", {"student_gates", "connectors"}),
        ("parameter_free", {"connectors"}),
        ("identity", {"connectors"}),
    ],
)
def test_what_learns_beside_the_student_is_its_gates_and_the_connectors(
    student_gate: str, expected: set[str]
) -> None:
    method = make(student_gate=student_gate, teacher_gate="random_frozen")
    learning = {
        name.partition(".")[0]
        for name, parameter in method.named_parameters()
        if parameter.requires_grad
    }
    assert learning == expected


def test_connectors_start_as_the_paper_of_their_kind_says() -> None:
    torch.manual_seed(0)
    method = AttnFD(
        AttnFD.Settings(layers=["stage4"]),
        Networks(student_channels={"stage4": 512}, teacher_channels={"stage4": 2048}),
    )
    conv, norm = method.connectors["stage4"].children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert (conv.weight.shape, conv.bias) == ((2048, 512, 1, 1), None)
    # N(0, sqrt(2 / 2048)); the spread of a million numbers is known to about a thousandth
    assert conv.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=5e-3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layers": []}, "at least 1 item"),
        ({"layers": ["aspp", "aspp"]}, r"a layer is listed twice in \['aspp', 'aspp'\]"),
        ({"loss_weight": -1}, "greater than or equal to 0"),
        ({"reduction_ratio": 0}, "greater than or equal to 1"),
        ({"norm": "all"}, "'image', 'batch' or 'pixel'"),
        ({"kernel": 4}, "kernel\n.*needs an odd number, got 4"),
        ({"kernel": 0}, "greater than or equal to 1"),
        (
            {"student_gate": "identity", "kernel": 5},
            "kernel\n.*needs 7 where no gate is learned or random_frozen, got 5",
        ),
        (
            {"teacher_gate": "from_checkpoint", "kernel": 5},
            "kernel\n.*needs 7, as the gates of teacher_gate: from_checkpoint have, got 5",
        ),
        (
            {"teacher_gate": "from_checkpoint", "pooling": "avg"},
            "pooling\n.*needs both, as the gates of teacher_gate: from_checkpoint have, got avg",
        ),
        (
            {"student_gate": "parameter_free", "train_channel_mlp": False},
            (
                "train_channel_mlp\n.*needs true: student_gate: parameter_free has no MLP to leave "
                "untrained"
            ),
        ),
        (
            {**NO_GATES, "attention": "channel"},
            "attention\n.*needs both or none where both sides' gates are identity, got channel",
        ),
        (
            {**NO_GATES, "order": "spatial_first"},
            "order\n.*needs channel_first where both sides' gates are identity, got spatial_first",
        ),
        (
            {**NO_GATES, "pooling": "max"},
            "pooling\n.*needs both where both sides' gates are identity, got max",
        ),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AttnFD.Settings(**changes)


@pytest.mark.parametrize("attention", ["both", "channel", "spatial", "none"])
@pytest.mark.parametrize("kind", [AttnFD, AttnFDRelease, AttnFDPaper])
def test_attention_can_be_varied_whatever_else_the_preset_says(kind: Any, attention: str) -> None:
    settings = kind.Settings(attention=attention, layers=["aspp"])
    method = kind(settings, CHANNELS)
    parts = {"both": ("channel", "spatial"), "none": ()}.get(attention, (attention,))
    assert settings.form.parts == parts
    assert tuple(dict(method.student_gates["aspp"].named_children())) == parts


def test_without_attention_features_are_compared_as_with_identity_gates() -> None:
    none, identity = make(attention="none"), make(**NO_GATES)
    identity.connectors.load_state_dict(none.connectors.state_dict())
    terms = [method(student_features(), teacher_features(), LABELS) for method in (none, identity)]
    assert all(torch.equal(term, terms[1][name]) for name, term in terms[0].items())


@pytest.mark.parametrize(
    "changes", [{"order": "spatial_first"}, {"kernel": 3}, {"pooling": "max"}, {"squared": False}]
)
def test_each_setting_of_the_gates_and_the_norm_has_an_effect(changes: dict[str, Any]) -> None:
    for fixed in ({}, {"teacher_gate": "random_frozen"}):
        plain, changed = (
            make(**fixed, **more)(student_features(), teacher_features(), LABELS)
            for more in ({}, changes)
        )
        assert all(term.item() != changed[name].item() for name, term in plain.items())


def through_the_class(student: Tensor, teacher: Tensor, **settings: Any) -> float:
    """Return the loss of one layer at weight 1, with a gate and a connector that change nothing."""
    channels = {"aspp": student.shape[1]}
    method = AttnFD(
        AttnFD.Settings(**{"layers": ["aspp"], "loss_weight": 1.0, **NO_GATES, **settings}),
        Networks(student_channels=channels, teacher_channels=channels),
    ).double()
    nn.init.dirac_(method.connectors["aspp"].get_parameter("0.weight"))
    # in eval mode the connector's BatchNorm only scales, which changes nothing
    (term,) = method.eval()(
        {"aspp": student}, {"aspp": teacher}, torch.zeros(len(student), 1, 1)
    ).values()
    return float(term.detach())


def vectors(num_images: int, *values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(num_images, -1, 1, 1)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (vectors(1, 1, 2, 3, 4), vectors(1, 2, 4, 6, 8), 0),
        (vectors(1, 1, 0), vectors(1, 0, 1), 2),
        (vectors(1, 1, 2), vectors(1, -1, -2), 4),
        (vectors(2, 3, 4, 0, 0), vectors(2, 0, 0, 5, 12), 2),
        (vectors(2, 1, 2, 3, 4), vectors(2, 4, 3, 2, 1), 2 / 3),
    ],
    ids=["parallel", "orthogonal", "opposite", "orthogonal images", "cosine 2/3"],
)
def test_the_released_loss_is_the_one_worked_out_by_hand(
    student: Tensor, teacher: Tensor, expected: float
) -> None:
    found = through_the_class(student, teacher, norm="batch")
    assert found == pytest.approx(expected, abs=1e-14)
    assert through_the_class(student, teacher, norm="batch", squared=False) == pytest.approx(
        expected**0.5,
        abs=1e-7,  # a root of a rounding error
    )


def test_the_division_by_the_batch_is_left_to_the_training_loop() -> None:
    student, teacher = vectors(2, 1, 2, 3, 4), vectors(2, 4, 3, 2, 1)
    for norm in ("batch", "image", "pixel"):
        once, twice = (
            through_the_class(student, teacher, norm=norm, divide_by_batch=by)
            for by in (False, True)
        )
        assert once == twice


def test_the_pixel_norm_is_the_mean_over_pixels_and_images_of_the_one_worked_out_by_hand() -> None:
    # two images of two channels and two pixels: parallel, orthogonal, opposite, and at 60 degrees
    student = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]], [[[1.0, 1.0]], [[1.0, 0.0]]]]).double()
    teacher = torch.tensor(
        [[[[6.0, 0.0]], [[8.0, 2.0]]], [[[-2.0, 1.0]], [[-2.0, 3**0.5]]]]
    ).double()
    # the square of the chord is 2 - 2 cos; 3 ** 0.5 was rounded to float32
    assert through_the_class(student, teacher, norm="pixel") == pytest.approx(
        (0 + 2 + 4 + 1) / 4, rel=1e-6
    )
    chords = (0 + 2**0.5 + 2 + 1) / 4
    assert through_the_class(student, teacher, norm="pixel", squared=False) == pytest.approx(
        chords, rel=1e-6
    )


def test_un_squared_the_image_norm_is_the_mean_over_images_of_the_chord() -> None:
    student, teacher = vectors(3, 1, 0, 1, 2, 3, 4), vectors(3, 0, 1, -1, -2, 6, 8)
    found = through_the_class(student, teacher, norm="image", squared=False)
    assert found == pytest.approx((2**0.5 + 2 + 0) / 3, abs=1e-7)  # a root of a rounding error


@pytest.mark.parametrize("norm", ["image", "batch", "pixel"])
def test_un_squared_the_distance_of_equals_has_a_gradient_of_numbers(norm: Any) -> None:
    student = student_features()["aspp"].requires_grad_()
    normalised_distance(student, student.detach(), norm=norm, squared=False).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_with_identity_gates_and_the_batch_norm_it_is_lad() -> None:
    lad_class = registry.load("method", "lad")
    lad = lad_class(lad_class.Settings(layers=["aspp", "decoder"], loss_weight=3.0), CHANNELS)
    method = make(norm="batch", loss_weight=3.0, **NO_GATES)
    method.connectors.load_state_dict(lad.connectors.state_dict())
    ours, theirs = (
        each.train()(student_features(), teacher_features(), LABELS) for each in (method, lad)
    )
    assert [term.item() for term in ours.values()] == [term.item() for term in theirs.values()]


def test_connectors_of_the_first_epoch_learn_alone_then_and_never_again() -> None:
    assert make().frozen_prefixes(1) == make().frozen_prefixes(7) == ()
    method = make(connectors="first_epoch")
    assert method.frozen_prefixes(1) == ("student", "method.student_gates")
    assert method.frozen_prefixes(2) == method.frozen_prefixes(9) == ("method.connectors",)


def test_what_the_loop_is_to_do_is_what_the_settings_say() -> None:
    plain, other = make(), make(teacher_mode="batch_statistics", divide_by_batch=True)
    assert (plain.teacher_mode, plain.loss_over_batch_size, plain.depends_on_batch) == (
        "eval",
        False,
        False,
    )
    assert (other.teacher_mode, other.loss_over_batch_size, other.depends_on_batch) == (
        "batch_statistics",
        True,
        True,
    )
    assert [make(norm=norm).uses_batch_sums for norm in ("batch", "image", "pixel")] == [
        True,
        False,
        False,
    ]
    assert not make(norm="batch").depends_on_batch


def test_the_gate_of_the_teacher_normalises_as_the_teacher_does() -> None:
    given = teacher_features()["aspp"]
    for mode, by_batch in {"eval": False, "batch_statistics": True, "train": True}.items():
        gate = make(teacher_gate="random_frozen", teacher_mode=mode).teacher_gates["aspp"]
        assert torch.allclose(gate(given)[:1], gate(given[:1])) != by_batch


@pytest.mark.parametrize(
    ("kind", "preset"), [(AttnFDRelease, presets.RELEASE), (AttnFDPaper, presets.PAPER)]
)
def test_the_methods_of_the_presets_have_their_defaults_and_nothing_else(
    kind: Any, preset: presets.Preset
) -> None:
    chosen, settings = preset.of_method(), kind.Settings()
    assert isinstance(settings, AttnFD.Settings)
    assert settings.model_dump() == AttnFD.Settings().model_dump() | chosen
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert kind.Settings(loss_weight=7.0).loss_weight == 7.0
    for name, field in AttnFD.Settings.model_fields.items():
        if name != "name":  # its type is the name itself
            assert kind.Settings.model_fields[name].description == field.description
            assert kind.Settings.model_fields[name].metadata == field.metadata
