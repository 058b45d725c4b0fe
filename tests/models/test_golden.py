from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models import TapRecorder, build_model, load_weights

from .released import NETWORKS, REFERENCE, golden_images, released_state


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_released_file_gives_the_logits_and_features_of_the_released_code(
    network: str, tmp_path: Path
) -> None:
    golden = np.load(REFERENCE / "deeplabv3plus_logits.npz")
    path = tmp_path / "teacher.pth.tar"
    torch.save(
        {"epoch": 1, "best_pred": np.float64(0.77), "state_dict": released_state(network)}, path
    )
    model = build_model(ModelSettings(backbone=NETWORKS[network]), num_classes=21).eval()
    load_weights(model, path, num_classes=21)
    path.unlink()  # 240 MB; pytest would keep it
    recorder = TapRecorder(model, model.taps)

    compared = 0
    for height, width in ((65, 65), (49, 81)):
        prefix = f"{network}_{height}x{width}"
        with torch.no_grad():
            logits = model(golden_images(height, width))
        expected = torch.from_numpy(golden[f"{prefix}_logits"])
        # float32 over a hundred layers: other kernels and thread counts add in another order
        assert (logits - expected).abs().max() < 1e-4 * expected.std()
        for name, feature in recorder.features.items():
            if f"{prefix}_{name}_mean_std" in golden:
                mean_std = [feature.mean().item(), feature.std().item()]
                assert mean_std == pytest.approx(
                    golden[f"{prefix}_{name}_mean_std"], rel=1e-4, abs=1e-6
                )
                compared += 1
    assert compared == 2 * (3 if network == "mobilenet" else 6)
