"""The memory of each class: pushing, wrapping around, drawing, and a round trip of its state."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from attnfd_ray.distill.class_queue import ClassQueue


def numbered(*rows: tuple[int | None, ...]) -> tuple[Tensor, Tensor]:
    """Return entries of one channel: one for each class in a row, None where there is none."""
    entries = torch.tensor([[0.0 if value is None else value for value in row] for row in rows])
    present = torch.tensor([[value is not None for value in row] for row in rows])
    return entries[:, :, None], present


def held(queue: ClassQueue) -> list[list[float]]:
    return [row.tolist() for row in queue.entries[:, :, 0]]


def test_it_fills_then_the_oldest_give_way() -> None:
    queue = ClassQueue(2, size=3, channels=1)
    queue.push(*numbered((1, None), (2, 10)))
    assert (held(queue), queue.pushed.tolist()) == ([[1, 2, 0], [10, 0, 0]], [2, 1])
    queue.push(*numbered((3, None), (4, None)))
    assert (held(queue), queue.pushed.tolist()) == ([[4, 2, 3], [10, 0, 0]], [4, 1])
    queue.push(*numbered((None, 11), (5, 12), (None, 13)))
    assert (held(queue), queue.pushed.tolist()) == ([[4, 5, 3], [13, 11, 12]], [5, 4])


def test_of_more_than_it_holds_the_last_stay() -> None:
    queue = ClassQueue(1, size=2, channels=1)
    queue.push(*numbered((0,)))
    queue.push(*numbered((1,), (2,), (3,), (4,), (5,)))
    assert sorted(held(queue)[0]) == [4, 5]
    queue.push(*numbered((6,)))
    assert sorted(held(queue)[0]) == [5, 6]


def test_only_what_came_is_drawn_and_a_class_that_never_came_says_so() -> None:
    queue = ClassQueue(3, size=100, channels=1)
    queue.push(*numbered((1, None, 7), (2, None, None), (3, None, None)))
    torch.manual_seed(0)
    entries, known = queue.draw(50)
    assert known.tolist() == 50 * [True] + 50 * [False] + 50 * [True]
    assert set(entries[:50, 0].tolist()) == {1, 2, 3}
    assert set(entries[100:, 0].tolist()) == {7}


def test_all_of_a_full_queue_is_drawn_alike() -> None:
    queue = ClassQueue(1, size=4, channels=1)
    queue.push(*numbered(*((value,) for value in range(6))))
    torch.manual_seed(0)
    drawn = queue.draw(4000)[0][:, 0].tolist()
    assert set(drawn) == {2, 3, 4, 5}
    # 1000 of each expected, with a standard deviation of 27
    assert all(abs(drawn.count(value) - 1000) < 150 for value in (2, 3, 4, 5))


def test_the_same_is_drawn_after_a_round_trip_through_its_state_and_reseeding() -> None:
    first, second = ClassQueue(2, size=3, channels=1), ClassQueue(2, size=3, channels=1)
    empty_shapes = {name: tensor.shape for name, tensor in first.state_dict().items()}
    first.push(*numbered((1, 10), (2, 11), (3, None), (4, None)))
    second.load_state_dict(first.state_dict())
    assert {name: tensor.shape for name, tensor in second.state_dict().items()} == empty_shapes
    draws = []
    for queue in (first, second):
        torch.manual_seed(5)
        draws.append(queue.draw(8)[0])
        queue.push(*numbered((20, 21)))
    assert torch.equal(*draws)
    assert held(first) == held(second)


def test_all_workers_hold_what_any_of_them_pushed_in_the_order_of_their_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gathered(parts: list[Tensor], sent: Tensor) -> None:
        parts[0].copy_(sent)
        parts[1].copy_(sent + 5 if sent.is_floating_point() else 1 - sent)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather", gathered)
    queue = ClassQueue(2, size=3, channels=1)
    queue.push(*numbered((1, None), (2, None)))
    # the other worker saw none of the first class, and 5 and 5 of the second
    assert (held(queue), queue.pushed.tolist()) == ([[1, 2, 0], [5, 5, 0]], [2, 2])
