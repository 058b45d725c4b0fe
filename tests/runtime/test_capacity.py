"""How many worker groups fit on a cluster."""

from __future__ import annotations

import pytest

from attnfd_ray.config.schema import ScalingSettings
from attnfd_ray.errors import CapacityError
from attnfd_ray.runtime.cluster.capacity import (
    GroupShape,
    alive_resources,
    concurrency,
    group_shape,
    workers_that_fit,
)

LAPTOP = [{"CPU": 2.0}]
CLUSTER = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 16.0}]


def shape(workers: int = 1, cpus: int = 1, gpus: int = 0) -> GroupShape:
    return GroupShape(workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)


@pytest.mark.parametrize(("nodes", "gpus"), [(LAPTOP, 0), (CLUSTER, 1)])
def test_gpus_auto_is_one_where_the_cluster_has_any(
    nodes: list[dict[str, float]], gpus: int
) -> None:
    assert group_shape(ScalingSettings(), nodes).gpus_per_worker == gpus


@pytest.mark.parametrize(
    ("one", "nodes", "fit"),
    [
        (shape(), LAPTOP, 2),
        (shape(cpus=2), LAPTOP, 1),
        (shape(gpus=1), LAPTOP, 0),
        (shape(cpus=4, gpus=1), CLUSTER, 4),
        # one worker of 5 CPUs per GPU node: the rest of the node is too small
        (shape(cpus=5, gpus=1), CLUSTER, 2),
        (shape(cpus=5), CLUSTER, 5),
    ],
)
def test_a_worker_fits_on_one_node_or_not_at_all(
    one: GroupShape, nodes: list[dict[str, float]], fit: int
) -> None:
    assert workers_that_fit(one, nodes) == fit


def test_a_group_fits_only_if_all_its_workers_do() -> None:
    assert concurrency(shape(workers=2), LAPTOP, asked="auto", trials=10) == 1
    assert concurrency(shape(workers=2, cpus=4, gpus=1), CLUSTER, asked="auto", trials=10) == 2


def test_auto_takes_all_the_capacity_but_no_more_groups_than_trials() -> None:
    assert concurrency(shape(), LAPTOP, asked="auto", trials=10) == 2
    assert concurrency(shape(), LAPTOP, asked="auto", trials=1) == 1


def test_what_cannot_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(CapacityError) as error:
        concurrency(shape(workers=4), LAPTOP, asked="auto", trials=10)
    assert str(error.value) == (
        "scaling: 4 workers x (1 CPU) do not fit on 1 node(s) with 2 CPU; the capacity is 2 such "
        "worker(s): lower scaling.workers, scaling.cpus_per_worker or tune.concurrent"
    )


def test_more_trials_at_once_than_fit_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        CapacityError, match=r"scaling: 3 trials at once x 1 workers x \(1 CPU\) do not fit"
    ):
        concurrency(shape(), LAPTOP, asked=3, trials=10)


def test_dead_nodes_have_no_resources() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert alive_resources(nodes) == [{"CPU": 2.0}]
