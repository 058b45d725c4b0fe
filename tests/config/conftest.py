import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError

# the settings that an experiment needs, one section a line; a test appends its own from line 6 on
SHORTEST = """\
experiment: e
data: {name: camvid, root: /data, crop: [360, 480]}
teacher: {checkpoint: /teacher.pt}
student: {backbone: resnet18}
method: {name: attnfd}
"""


class File:
    """`exp.yaml`, the shortest experiment, in which lines are appended or replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, more: str = "", **sections: str | None) -> None:
        """Write it; a section given as None is left out."""
        lines = {line.partition(":")[0]: line for line in SHORTEST.splitlines()}
        lines |= {name: f"{name}: {text}" for name, text in sections.items()}
        lines = {
            name: line
            for name, line in lines.items()
            if name not in sections or sections[name] is not None
        }
        self.path.write_text("\n".join([*lines.values(), more]), encoding="utf-8")

    def load(self, *sets: str, **environ: str) -> ExperimentSettings:
        return load_experiment(self.path, sets=sets, environ=environ)

    def problems(self, *sets: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            self.load(*sets, **environ)
        return raised.value.problems

    def problem(self, *sets: str, **environ: str) -> str:
        """Return the only problem there is."""
        (problem,) = self.problems(*sets, **environ)
        return problem


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    monkeypatch.chdir(tmp_path)
    written = File(Path("exp.yaml"))
    written.write()
    return written


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module of a user's own, importable until the test ends."""

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return write
