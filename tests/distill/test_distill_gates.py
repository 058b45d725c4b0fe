"""The gates: their values, the sources of a teacher's, and that a teacher's never change."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnfd_ray.distill.cbam import (
    CBAM,
    ChannelGate,
    Form,
    FrozenGate,
    ParameterFreeGate,
    SpatialGate,
)
from attnfd_ray.distill.gates import student_gate, teacher_gate
from attnfd_ray.errors import CheckpointError

KEYS = Path(__file__).parents[1] / "reference" / "released_state_dict_keys.json"
PLACES = {"stage4": "backbone", "aspp": "aspp", "decoder": "decoder"}
R101_CHANNELS = {"stage4": 2048, "aspp": 256, "decoder": 256}
FORM = Form(reduction_ratio=4)
TEACHER_GATES = ["parameter_free", "random_frozen", "from_checkpoint", "identity"]


def features(channels: int, *, seed: int = 0, num_images: int = 2) -> Tensor:
    return torch.randn((num_images, channels, 5, 6), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's file with the attention gates of the released ResNet-101, and little else."""
    rng = torch.Generator().manual_seed(3)
    shapes = {
        key: shape
        for key, shape in json.loads(KEYS.read_text())["resnet101"].items()
        if ".cbam." in key
    }
    assert len(shapes) == 30
    state: dict[str, Tensor] = {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}
    for key, shape in shapes.items():
        counter = key.endswith("num_batches_tracked")
        state[key] = torch.tensor(7) if counter else 0.1 + torch.rand(shape, generator=rng) / 10
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth.tar"
    torch.save({"state_dict": state}, path)
    return path


def make(
    kind: str,
    channels: int = 16,
    *,
    layer: str = "stage4",
    seed: int = 0,
    file: Path | None = None,
    batch_statistics: bool = False,
    form: Form | None = None,
) -> FrozenGate:
    return teacher_gate(
        kind,
        channels,
        form or FORM,
        layer=layer,
        seed=seed,
        teacher_file=file,
        batch_statistics=batch_statistics,
    )


def test_the_parameter_free_gate_is_the_one_worked_out_by_hand() -> None:
    def mask(value: float) -> float:
        return 1 / (1 + exp(-value))

    low, high = mask(1.5 + 3), mask(-1 + 0)  # a channel's mean + its largest
    first, second = [0 * low, 1 * low, 2 * low, 3 * low], [-4 * high, 0.0, 0.0, 0.0]
    pixels = [mask(max(a, b) + (a + b) / 2) for a, b in zip(first, second, strict=True)]
    expected = [
        [value * pixel for value, pixel in zip(row, pixels, strict=True)] for row in (first, second)
    ]
    refined = ParameterFreeGate(FORM)(
        torch.tensor([[[[0.0, 1.0], [2.0, 3.0]], [[-4.0, 0.0], [0.0, 0.0]]]])
    )
    assert refined.flatten().tolist() == pytest.approx(
        [*expected[0], *expected[1]], rel=1e-6
    )  # float32


@pytest.mark.parametrize(
    "gate", [CBAM(8, FORM), ParameterFreeGate(FORM)], ids=["cbam", "parameter-free"]
)
def test_a_gate_only_ever_makes_features_smaller(gate: nn.Module) -> None:
    given = features(8)
    refined = gate(given)
    assert refined.shape == given.shape
    assert (refined.abs() < given.abs()).all()
    assert (refined.sign() == given.sign()).all()


@pytest.mark.parametrize(
    ("channels", "ratio", "hidden"), [(64, 16, 4), (64, 64, 1), (8, 16, 1), (2048, 1, 2048)]
)
def test_a_channel_gate_has_a_hidden_channel_at_least(
    channels: int, ratio: int, hidden: int
) -> None:
    assert CBAM(channels, Form(reduction_ratio=ratio)).channel.mlp[0].out_features == hidden


@pytest.mark.parametrize(
    ("kind", "has_weights"), [("learned", True), ("parameter_free", False), ("identity", False)]
)
def test_the_gates_of_the_student_learn_where_they_have_weights(
    kind: str, has_weights: bool
) -> None:
    gate = student_gate(kind, 16, FORM)
    parameters = list(gate.parameters())
    assert bool(parameters) == has_weights
    assert all(parameter.requires_grad for parameter in parameters)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("kind", TEACHER_GATES)
def test_no_gate_of_the_teacher_moves_or_passes_a_gradient(
    kind: str, batch_statistics: bool, released: Path
) -> None:
    gate = make(kind, 256, layer="aspp", file=released, batch_statistics=batch_statistics)
    parent = nn.Sequential(gate).train()
    before = {name: tensor.clone() for name, tensor in parent.state_dict().items()}
    given = features(256).requires_grad_()
    for _ in range(3):
        refined = parent(given)
    assert not gate.training
    assert not refined.requires_grad
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in parent.state_dict().items())


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_a_random_gate_depends_on_its_seed_alone_and_leaves_the_global_generator_alone(
    batch_statistics: bool,
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    gate = make("random_frozen", seed=5, batch_statistics=batch_statistics)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = make("random_frozen", seed=5, batch_statistics=batch_statistics)
    other = make("random_frozen", seed=6, batch_statistics=batch_statistics)
    given = features(16)
    assert torch.equal(gate(given), again(given))
    assert not torch.equal(gate(given), other(given))


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("layer", PLACES)
def test_a_released_gate_answers_as_its_weights_say(
    layer: str, batch_statistics: bool, released: Path
) -> None:
    state = torch.load(released)["state_dict"]
    stored = {
        key: tensor for key, tensor in state.items() if key.startswith(f"{PLACES[layer]}.cbam.")
    }
    weights = {key.partition(".cbam.")[2]: tensor.double() for key, tensor in stored.items()}
    given = features(R101_CHANNELS[layer]).double()

    def mlp(pooled_NC: Tensor) -> Tensor:
        hidden = (
            pooled_NC @ weights["ChannelGate.mlp.1.weight"].T + weights["ChannelGate.mlp.1.bias"]
        )
        out: Tensor = (
            hidden.relu() @ weights["ChannelGate.mlp.3.weight"].T
            + weights["ChannelGate.mlp.3.bias"]
        )
        return out

    mask_NC = torch.sigmoid(mlp(given.mean((2, 3))) + mlp(given.amax((2, 3))))
    once = given * mask_NC[:, :, None, None]
    pooled_N2HW = torch.stack([once.amax(1), once.mean(1)], dim=1)
    projected = nn.functional.conv2d(
        pooled_N2HW, weights["SpatialGate.spatial.conv.weight"], padding=3
    )
    mean, variance, scale, shift = (
        weights[f"SpatialGate.spatial.bn.{name}"]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    if batch_statistics:
        mean, variance = projected.mean(), projected.var(correction=0)
    expected = once * torch.sigmoid((projected - mean) / (variance + 1e-5).sqrt() * scale + shift)

    gate = make(
        "from_checkpoint",
        R101_CHANNELS[layer],
        layer=layer,
        file=released,
        batch_statistics=batch_statistics,
    )
    # float64 either way; only the order of sums differs
    torch.testing.assert_close(gate.double()(given), expected, rtol=1e-10, atol=1e-12)


def test_a_file_without_gates_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        make("from_checkpoint", layer="aspp", file=path)
    assert str(caught.value) == (
        f"{path}: holds no attention gate for layer 'aspp'; use teacher_gate: random_frozen or "
        "parameter_free"
    )


def test_a_layer_the_released_networks_have_no_gate_for_is_refused(released: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        make("from_checkpoint", layer="stage2", file=released)
    assert str(caught.value) == (
        f"{released}: holds no attention gate for layer 'stage2'; use teacher_gate: random_frozen "
        "or parameter_free"
    )


def test_a_teacher_trained_here_has_no_gate_to_offer() -> None:
    with pytest.raises(CheckpointError) as caught:
        make("from_checkpoint", file=None)
    assert str(caught.value) == (
        "a teacher trained here: holds no attention gate for layer 'stage4'; use teacher_gate: "
        "random_frozen or parameter_free"
    )


def test_a_gate_of_another_size_is_refused(released: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        make("from_checkpoint", 512, layer="aspp", file=released)
    assert (
        str(caught.value) == f"{released}: its attention gate for 'aspp' does not fit 512 channels"
    )


def test_a_student_gate_can_keep_its_channel_mlp_as_it_was_drawn() -> None:
    gate = student_gate("learned", 16, FORM, train_channel_mlp=False)
    learning = {
        name.partition(".")[0]
        for name, parameter in gate.named_parameters()
        if parameter.requires_grad
    }
    assert learning == {"spatial"}
    spatial_alone = student_gate("learned", 16, Form(parts=("spatial",)), train_channel_mlp=False)
    assert all(parameter.requires_grad for parameter in spatial_alone.parameters())


def test_the_parts_of_a_gate_are_applied_in_their_order() -> None:
    torch.manual_seed(0)
    channel, spatial = ChannelGate(16, FORM), SpatialGate(FORM)
    given = features(16)
    for parts, expected in {
        ("channel", "spatial"): spatial(channel(given)),
        ("spatial", "channel"): channel(spatial(given)),
        ("channel",): channel(given),
        ("spatial",): spatial(given),
        (): given,
    }.items():
        gate = CBAM(16, Form(parts=parts, reduction_ratio=4))  # type: ignore[arg-type]
        assert tuple(dict(gate.named_children())) == parts
        for part, module in gate.named_children():
            module.load_state_dict((channel if part == "channel" else spatial).state_dict())
        gate.train()
        assert torch.equal(gate(given), expected)


def test_the_parts_of_a_parameter_free_gate_are_applied_in_their_order() -> None:
    given = features(16)
    channel, spatial = (ParameterFreeGate(Form(parts=(part,))) for part in ("channel", "spatial"))  # type: ignore[arg-type]
    assert torch.equal(ParameterFreeGate(Form())(given), spatial(channel(given)))
    assert torch.equal(
        ParameterFreeGate(Form(parts=("spatial", "channel")))(given), channel(spatial(given))
    )
    assert not torch.allclose(spatial(channel(given)), channel(spatial(given)))
    assert torch.equal(ParameterFreeGate(Form(parts=()))(given), given)


def test_a_gate_looks_at_what_its_pooling_says() -> None:
    given = features(16)
    mean, largest = given.mean((2, 3), keepdim=True), given.amax((2, 3), keepdim=True)
    for pooling, seen in {"avg": mean, "max": largest, "both": largest + mean}.items():
        form = Form(parts=("channel",), pooling=pooling)  # type: ignore[arg-type]
        assert torch.equal(ParameterFreeGate(form)(given), given * torch.sigmoid(seen))
    for pooling, maps in {"avg": 1, "max": 1, "both": 2}.items():
        gate = SpatialGate(Form(pooling=pooling, kernel=5))  # type: ignore[arg-type]
        assert gate.conv.weight.shape == (1, maps, 5, 5)
        assert gate(given).shape == given.shape
    gate = ChannelGate(16, Form(pooling="avg", reduction_ratio=4))
    louder = given.clone()
    louder[..., 0, 0] += 5  # the mean follows, and is put back
    louder -= (louder - given).mean((2, 3), keepdim=True)
    masks = [gate(each)[..., 2, 2] / each[..., 2, 2] for each in (given, louder)]
    assert torch.allclose(
        *masks, atol=1e-6
    )  # float32: another maximum, the same mean, the same mask


@pytest.mark.parametrize("parts", [("channel",), ("spatial",), ("spatial", "channel")])
def test_of_a_stored_gate_only_the_parts_asked_for_are_taken(
    parts: tuple[str, ...], released: Path
) -> None:
    given = features(256)
    whole = make("from_checkpoint", 256, layer="aspp", file=released).get_submodule("gate")
    gate = make("from_checkpoint", 256, layer="aspp", file=released, form=Form(parts=parts))  # type: ignore[arg-type]
    expected = given
    for part in parts:
        expected = whole.get_submodule(part)(expected)
    assert torch.equal(gate(given), expected)


def test_without_parts_no_gate_is_looked_for_in_the_file() -> None:
    given = features(16)
    assert torch.equal(make("from_checkpoint", file=None, form=Form(parts=()))(given), given)
