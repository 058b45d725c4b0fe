"""What can go wrong, each with the exit code of the command. Imports nothing of the package.

A message is one line: where, what came, what is needed, the way out. The command line prints it
without a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class AttnFDError(Exception):
    """An error that the user should read; the command ends with `exit_code`."""

    exit_code: ClassVar[int] = 1


class RunFailed(AttnFDError):
    """A run that started and failed."""


class Diverged(RunFailed):
    """The loss became NaN or infinite."""


class Interrupted(AttnFDError):
    """The user interrupted a command that can be resumed; the command line adds how."""

    exit_code: ClassVar[int] = 130


class NoMetric(RunFailed):
    """Nothing could be scored."""


class UserError(AttnFDError):
    """A mistake in the input, which the user can correct."""

    exit_code: ClassVar[int] = 2


class UserErrors(UserError):
    """Input with one or more mistakes; `problems` has one line for each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        if isinstance(problems, str):
            problems = [problems]
        self.problems = [one_line(text) for text in problems]
        super().__init__(self.problems)  # the argument from which unpickling builds it again

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConfigError(UserErrors):
    """A settings file that cannot be used."""


class DataError(UserErrors):
    """A dataset that is missing, broken or different from what the settings need."""


class ClusterError(UserErrors):
    """Nodes, disks or software that cannot run an experiment as they are."""


class CheckpointError(UserError):
    """Weights or a training state that cannot be loaded."""


class StoreError(UserError):
    """A results directory that is not a store, or cannot be read or written."""


class CapacityError(UserError):
    """More processors or accelerators were requested than the cluster has."""


def one_line(text: str) -> str:
    r"""Return the text with line ends and other control characters escaped.

    >>> print(one_line("a\nb"))
    a\nb
    """
    return "".join(_printable(char) for char in text)


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return repr(char)[1:-1]
