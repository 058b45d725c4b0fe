"""The latency of a student, with a fake clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from train_runs import CPU, SIZE, make_run, plain

from attnfd_ray.models.deeplabv3plus import DeepLabV3Plus
from attnfd_ray.train.latency import Latency, measure, where

THIRTY = [0.1 * k for k in range(1, 31)]


def ticks(durations_s: Sequence[float]) -> Iterator[float]:
    """Yield the starts and ends of five passes of 9 s, then of passes of the given times."""
    now = 0.0
    for duration_s in [9.0] * 5 + list(durations_s):
        yield now
        now += duration_s
        yield now


def timed(
    toys: Path, directory: Path, durations_s: Sequence[float] = THIRTY, **changes: Any
) -> Latency:
    settings = plain(toys, train__epochs=1, **changes)
    run = make_run(settings, directory)
    weights = run.run(lambda _: False).best_weights
    clock = ticks(durations_s)
    found = measure(
        weights, settings, run.val_set, readers=run.readers, device=CPU, clock=lambda: next(clock)
    )
    assert next(clock, None) is None, "every forward was timed"
    return found


def test_it_is_the_median_of_thirty_forwards_after_five_that_do_not_count(
    toys: Path, tmp_path: Path
) -> None:
    found = timed(toys, tmp_path)
    assert found.ms == pytest.approx(1550)
    assert found.protocol == f"{SIZE}x{SIZE} fp32 on {where(CPU)}"


def test_fast_ones_are_timed_for_a_second(toys: Path, tmp_path: Path) -> None:
    assert timed(toys, tmp_path, [0.25 / 8] * 8 + [0.75 / 48] * 48).ms == pytest.approx(750 / 48)


@pytest.mark.parametrize(
    ("changes", "size", "precision"),
    [
        ({"data__evaluation": "sliding", "data__crop": [16, 24]}, (16, 24), "fp32"),
        ({"data__evaluation": "resized", "data__crop": [64, 64]}, (64, 64), "fp32"),
        ({"data__input_scale": 0.5}, (16, 16), "fp32"),
        ({"train__precision": "bf16"}, (SIZE, SIZE), "bf16"),
    ],
)
def test_one_image_is_seen_as_it_is_when_scored_in_the_precision_of_training(
    toys: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    size: tuple[int, int],
    precision: str,
) -> None:
    seen: list[tuple[Any, ...]] = []
    forward = DeepLabV3Plus.forward

    def spy(self: DeepLabV3Plus, images_NCHW: torch.Tensor) -> torch.Tensor:
        seen.append(
            (
                *images_NCHW.shape,
                self.training,
                torch.is_autocast_enabled("cpu"),
                torch.is_grad_enabled(),
            )
        )
        return forward(self, images_NCHW)

    monkeypatch.setattr(DeepLabV3Plus, "forward", spy)
    found = timed(toys, tmp_path, **changes)
    assert seen[-35:] == [(1, 3, *size, False, precision != "fp32", False)] * 35
    assert found.protocol == f"{size[0]}x{size[1]} {precision} on {where(CPU)}"


def test_a_processor_is_named_with_the_threads_it_works_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = where(CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert alone.endswith(", 1 thread")
    assert where(CPU) == alone.replace(", 1 thread", ", 4 threads")
