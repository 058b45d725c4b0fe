"""A user's own method in a file: it waits in its second epoch until there is a file `go`."""

from __future__ import annotations

from pathlib import Path

EPOCH_STEPS = 3  # of the tiny experiment
PATIENT = f"""
import time
from pathlib import Path
from attnfd_ray.distill.attnfd import AttnFD

GO = Path(__file__).with_name("go")


class Patient(AttnFD):
    class Settings(AttnFD.Settings):
        name: str

    forwards = 0

    def forward(self, student, teacher, labels):
        self.forwards += 1
        while self.forwards > {EPOCH_STEPS} and not GO.exists():
            time.sleep(0.05)
        return super().forward(student, teacher, labels)
"""
METHOD = {"name": "patient:Patient", "layers": ["aspp"], "reduction_ratio": 4}


def write_patient(directory: Path) -> Path:
    """Write the method where `METHOD` finds it; return the file that lets it continue."""
    (directory / "patient.py").write_text(PATIENT, encoding="utf-8")
    return directory / "go"
