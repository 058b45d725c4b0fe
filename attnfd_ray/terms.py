"""The fixed words of the results store: states and roles of trials, and kinds of failures.

Imports nothing of the package. They are part of the file format: words are only added.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class TrialState(StrEnum):
    """The state of a trial; all but RUNNING are final for the attempt."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"


# the same words for records that are compared with plain text
State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAILED", "INFEASIBLE"]

# the roles that a search hands out
SearchRole = Literal["baseline", "as_written", "baseline_trial", "trial"]
Role = Literal["teacher", "baseline", "as_written", "baseline_trial", "trial", "run", "confirm"]

# the student of a search without distillation: with the settings of the file, and tuned
BASELINES: tuple[SearchRole, ...] = ("baseline", "baseline_trial")


class FailureKind(StrEnum):
    """What went wrong with a job; docs/failures.md says what follows from each."""

    OOM = "OOM"
    NAN = "NAN"
    NO_METRIC = "NO_METRIC"
    NODE_LOST = "NODE_LOST"
    WORKER_LOST = "WORKER_LOST"
    TIMEOUT = "TIMEOUT"
    DATA = "DATA"
    CONFIG = "CONFIG"
    RUN = "RUN"
    USER_CODE = "USER_CODE"
    STORE = "STORE"
    # the user stopped the job: no failure, it is resumed later
    INTERRUPTED = "INTERRUPTED"
