"""What a Ray on one machine leaves out."""

from __future__ import annotations

import pytest


@pytest.mark.ray
def test_ray_still_has_what_the_local_trainer_leaves_out() -> None:
    from ray.train.torch import TorchTrainer

    from attnfd_ray.runtime.cluster.loopback import _CLUSTER_CALLBACKS, LoopbackTrainer

    theirs, ours = (
        {type(callback).__name__ for callback in kind(print)._create_default_callbacks()}
        for kind in (TorchTrainer, LoopbackTrainer)
    )
    assert theirs - ours == set(_CLUSTER_CALLBACKS)
