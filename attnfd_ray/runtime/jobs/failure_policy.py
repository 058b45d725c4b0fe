"""What follows from each kind of failure: one table, and the count that stops a command. No torch,
no ray.
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
from attnfd_ray.store.rows import TrialState


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What becomes of a job that failed in one way.

    `state` is how its trial stands then; RUNNING is still to be done, by the same command. `tries`
    is how often in a row it is begun by itself before that, None for any number. `counts` is
    whether it counts toward `tune.max_failures`, `ends` whether it ends the command at once,
    `traced` whether its traceback is worth a file.
    """

    why: str
    state: TrialState = TrialState.FAILED
    tries: int | None = 1
    counts: bool = True
    ends: bool = False
    traced: bool = False

    def retries(self, failures: int) -> bool:
        """Return whether a job that failed so often in a row, without an epoch in between, is begun
        again.
        """
        return self.tries is None or failures < self.tries


_AT_FAULT, _TO_BE_DONE = TrialState.INFEASIBLE, TrialState.RUNNING

POLICIES: dict[str, Policy] = {
    "OOM": Policy(
        why="the settings need more memory than there is",
        state=_AT_FAULT,
        counts=False,
        traced=True,
    ),
    "NAN": Policy(why="the settings make the loss diverge", state=_AT_FAULT, counts=False),
    "NO_METRIC": Policy(why="nothing could be scored: no pixel of the split counts"),
    "NODE_LOST": Policy(
        why="a machine went away, which says nothing of the job: on from its checkpoint, free of "
        "charge",
        state=_TO_BE_DONE,
        tries=None,
        counts=False,
    ),
    "WORKER_LOST": Policy(why="its processes died without finishing an epoch in between", tries=3),
    "TIMEOUT": Policy(
        why="a training step took far longer than the others, and so again", tries=2, traced=True
    ),
    "DATA": Policy(why="files are missing, broken or not what the settings say"),
    "CONFIG": Policy(why="the settings do not fit what they met"),
    "RUN": Policy(why="the run could not go on", traced=True),
    "USER_CODE": Policy(why="code raised what is none of our errors", traced=True),
    "STORE": Policy(
        why="the disk is full or refuses: no other job could write either",
        state=_TO_BE_DONE,
        counts=False,
        ends=True,
    ),
    "INTERRUPTED": Policy(
        why="Ctrl-C: the same command goes on with it", state=_TO_BE_DONE, counts=False, ends=True
    ),
}

# what a user can mend keeps its exit code, and each of its lines: a table of taps, or all that is
# wrong with a list
_MENDED: dict[str, type[UserErrors]] = {"CONFIG": ConfigError, "DATA": DataError}


def failure(name: str, kind: str, text: str) -> AttnFDError:
    """Return the error that a failed job is in the driver: one of the user's where the user can
    mend it.
    """
    if kind in _MENDED:
        return _MENDED[kind](text.splitlines())
    if kind == "INTERRUPTED":
        return Interrupted("interrupted after the last epoch that had begun")
    return StoreError(text) if kind == "STORE" else RunFailed(f"{name}: {kind}: {text}")


class FailureBudget:
    """The failures of one call of a command; `limit` is `tune.max_failures`, `again` the command
    that tries again.
    """

    def __init__(self, limit: int | None, *, again: str) -> None:
        self._limit, self._again = limit, again
        self._kinds: Counter[str] = Counter()
        self._first = ("", "")

    def add(self, name: str, kind: str, text: str) -> AttnFDError | None:
        """Take the failure of a job; return what ends the command with it, or None to go on."""
        policy = POLICIES[kind]
        if policy.ends:
            return failure(name, kind, text)
        if policy.counts:
            self._first = self._first if self._kinds else (name, text)
            self._kinds[kind] += 1
        if self._limit is None or self._kinds.total() < self._limit:
            return None
        return self._too_many()

    def _too_many(self) -> AttnFDError:
        total = self._kinds.total()
        kinds = ", ".join(f"{count} {kind}" for kind, count in self._kinds.most_common())
        name, text = self._first
        failed = (
            f"{total} of this command's trials failed ({kinds})"
            if total > 1
            else f"a trial failed ({kinds})"
        )
        stopped = f"stopped: {failed}, which is tune.max_failures"
        way_out = f"mend that and run `{self._again}`, or allow more with --set tune.max_failures=N (null: any number)"
        # ours only if nothing else failed: of several kinds none says what the command ends with
        mended = _MENDED.get(next(iter(self._kinds))) if len(self._kinds) == 1 else None
        if mended:
            return mended([*text.splitlines(), f"{stopped}, the first of them {name}; {way_out}"])
        return RunFailed(f"{stopped}; the first, {name}: {text.partition(chr(10))[0]}; {way_out}")
