"""What follows from each kind of failure: one table, and the failure budget of a command.

No torch, no ray.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from attnfd_ray.errors import (
    AttnFDError,
    ConfigError,
    DataError,
    Interrupted,
    RunFailed,
    StoreError,
    UserErrors,
)
from attnfd_ray.terms import FailureKind, TrialState


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What follows when a job fails in one way.

    `state` is the state of its trial after that; RUNNING means that the same command resumes it.
    `tries` is how many failures in a row that takes, None for any number; until then the job is
    started again. `counts` is whether the failure counts toward `tune.max_failures`, `ends` whether
    it ends the command at once, `traced` whether its traceback is written to a file.
    """

    why: str
    state: TrialState = TrialState.FAILED
    tries: int | None = 1
    counts: bool = True
    ends: bool = False
    traced: bool = False

    def retries(self, failures: int) -> bool:
        """Return whether a job is started again after so many failures without an epoch between."""
        return self.tries is None or failures < self.tries


POLICIES: dict[str, Policy] = {
    FailureKind.OOM: Policy(
        why="the settings need more memory than there is",
        state=TrialState.INFEASIBLE,
        counts=False,
        traced=True,
    ),
    FailureKind.NAN: Policy(
        why="the settings make the loss diverge", state=TrialState.INFEASIBLE, counts=False
    ),
    FailureKind.NO_METRIC: Policy(why="nothing could be scored: no pixel of the split counts"),
    FailureKind.NODE_LOST: Policy(
        why="a machine was lost, which is not the job's fault: it resumes from its checkpoint",
        state=TrialState.RUNNING,
        tries=None,
        counts=False,
    ),
    FailureKind.WORKER_LOST: Policy(
        why="its processes died without finishing an epoch in between", tries=3
    ),
    FailureKind.TIMEOUT: Policy(
        why="a training step took far longer than the others, twice in a row", tries=2, traced=True
    ),
    FailureKind.DATA: Policy(why="files are missing, broken or not what the settings say"),
    FailureKind.CONFIG: Policy(why="the settings do not fit the data, the weights or the machine"),
    FailureKind.RUN: Policy(why="the run could not continue", traced=True),
    FailureKind.USER_CODE: Policy(
        why="code raised an exception that is not one of ours", traced=True
    ),
    FailureKind.STORE: Policy(
        why="the disk is full or refuses writes: no other job could write either",
        state=TrialState.RUNNING,
        counts=False,
        ends=True,
    ),
    FailureKind.INTERRUPTED: Policy(
        why="Ctrl-C: the same command resumes it", state=TrialState.RUNNING, counts=False, ends=True
    ),
}

# Failures that the user can fix keep their exit code and all their lines, such as a table of taps.
_USER_ERRORS: dict[str, type[UserErrors]] = {
    FailureKind.CONFIG: ConfigError,
    FailureKind.DATA: DataError,
}


def failure(name: str, kind: str, text: str) -> AttnFDError:
    """Return the error that the driver raises for a failed job.

    It is a user error, with exit code 2, if the user can fix the cause. `name` is the id of the
    trial.
    """
    if kind in _USER_ERRORS:
        return _USER_ERRORS[kind](text.splitlines())
    if kind == FailureKind.INTERRUPTED:
        return Interrupted("interrupted after the running epochs")
    if kind == FailureKind.STORE:
        return StoreError(text)
    return RunFailed(f"{name}: {kind}: {text}")


class FailureBudget:
    """Counts the failures of one call of a command, up to `limit` (`tune.max_failures`; None: any).

    `again` is the command that tries the failed trials again.
    """

    def __init__(self, limit: int | None, *, again: str) -> None:
        self._limit = limit
        self._again = again
        self._kinds: Counter[str] = Counter()
        self._first = ("", "")

    def add(self, name: str, kind: str, text: str) -> AttnFDError | None:
        """Count the failure of a trial; return the error that ends the command, or None."""
        policy = POLICIES[kind]
        if policy.ends:
            return failure(name, kind, text)
        if policy.counts:
            if not self._kinds:
                self._first = (name, text)
            self._kinds[kind] += 1
        if self._limit is None or self._kinds.total() < self._limit:
            return None
        return self._exhausted()

    def _exhausted(self) -> AttnFDError:
        """Return the error of a budget that is used up."""
        total = self._kinds.total()
        kinds = ", ".join(f"{count} {kind}" for kind, count in self._kinds.most_common())
        failed = f"{total} of this command's trials failed ({kinds})"
        if total == 1:
            failed = f"a trial failed ({kinds})"
        stopped = f"stopped: {failed}, which is tune.max_failures"
        way_out = (
            f"fix that and run `{self._again}`, or allow more with --set tune.max_failures=N "
            "(null: any number)"
        )
        name, text = self._first
        # a user error only if nothing else failed: several kinds have no common exit code
        if len(self._kinds) == 1:
            (kind,) = self._kinds
            if kind in _USER_ERRORS:
                last_line = f"{stopped}, the first of them {name}; {way_out}"
                return _USER_ERRORS[kind]([*text.splitlines(), last_line])
        first_line = text.partition("\n")[0]
        return RunFailed(f"{stopped}; the first, {name}: {first_line}; {way_out}")
