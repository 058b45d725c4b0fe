"""What a failed job is in the driver."""

from __future__ import annotations

from typing import Any

import pytest

from attnfd_ray.errors import ConfigError
from attnfd_ray.runtime.client import failure

JOB: Any = None  # only named where the run is at fault


@pytest.mark.parametrize("lines", [["no such file"], ["no such tap; there is:", "stage1  64, 4"]])
def test_a_mistake_in_the_settings_keeps_its_lines_on_its_way_from_a_worker(lines: list[str]) -> None:
    error = failure(JOB, "CONFIG", str(ConfigError(lines)))
    assert isinstance(error, ConfigError)
    assert error.problems == lines
    assert error.exit_code == 2
