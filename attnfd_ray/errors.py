"""What can go wrong, each with the exit code it ends the command with. Imports nothing of the
package.

A message is one line: where, what came, what is needed, the way out. The command line prints it
without a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class AttnFDError(Exception):
    """Something the user should read; `exit_code` is what the command ends with."""

    exit_code: ClassVar[int] = 1


class RunFailed(AttnFDError):
    """A run that started well and could not end well."""


class Diverged(RunFailed):
    """The loss became NaN or infinite."""


class Interrupted(AttnFDError):
    """The user ended a command that can go on; the command line adds how."""

    exit_code: ClassVar[int] = 130


class NoMetric(RunFailed):
    """Nothing could be scored."""


class UserError(AttnFDError):
    """The input is at fault, and the user can mend it."""

    exit_code: ClassVar[int] = 2


class UserErrors(UserError):
    """Input with one or more mistakes; carries every problem found, one line each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [
            one_line(text) for text in ([problems] if isinstance(problems, str) else problems)
        ]
        super().__init__(self.problems)  # what pickle makes it from again, on its way from a worker

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConfigError(UserErrors):
    """A settings file that cannot be used."""


class DataError(UserErrors):
    """A dataset that is missing, broken or not what the settings say."""


class ClusterError(UserErrors):
    """Nodes, disks or software that cannot run an experiment as they are."""


class CheckpointError(UserError):
    """Weights or a training state that cannot be loaded."""


class StoreError(UserError):
    """A results directory that is not a store, or cannot be read or written."""


class CapacityError(UserError):
    """More processors or accelerators asked for than there are."""


def one_line(text: str) -> str:
    """Return the text with line ends and other characters that steer a terminal written out, as
    `\\n`.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
