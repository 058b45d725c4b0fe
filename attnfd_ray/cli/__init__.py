"""The command line: one file per command. No torch and no ray at import."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from attnfd_ray import __version__
from attnfd_ray.cli.check import check
from attnfd_ray.cli.confirm import confirm
from attnfd_ray.cli.data import data
from attnfd_ray.cli.explain import explain
from attnfd_ray.cli.gc import gc
from attnfd_ray.cli.picture import picture
from attnfd_ray.cli.report import report
from attnfd_ray.cli.signals import (
    ended_by_signal,
    exit_process,
    install_signal_handlers,
    resume_hint,
)
from attnfd_ray.cli.teacher import teacher
from attnfd_ray.cli.train import train
from attnfd_ray.cli.tune import tune
from attnfd_ray.errors import AttnFDError, Interrupted, UserErrors, one_line


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="attnfd-ray")
def cli() -> None:
    """Distil a large segmentation network into a small one, and search for the best settings.

    One YAML file describes an experiment. `train` runs it once, `tune` searches the space in its
    `search:` section, `confirm` runs the best again with fresh seeds, `report` prints the results,
    and `picture` draws predictions.
    """


for command in (check, train, tune, confirm, report, picture, explain, data, teacher, gc):
    cli.add_command(command)


def main() -> None:
    """Run the command line.

    An error that the user can fix is printed to stderr without a traceback, with exit code 2.
    """
    # for a user's own `module:Class` beside the experiment file; installed packages come first
    sys.path.append(str(Path.cwd()))
    install_signal_handlers()
    try:
        # click's standalone mode would turn Ctrl-C into exit code 1
        code = cli.main(prog_name="attnfd-ray", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except UserErrors as error:
        code = _fail("\n".join(error.problems), error.exit_code)
    except Interrupted as error:
        code = _fail(f"{one_line(str(error))}; {resume_hint()}", error.exit_code)
    except AttnFDError as error:
        code = _fail(one_line(str(error)), error.exit_code)
    except click.Abort:  # what click makes of Ctrl-C
        code = _fail(f"interrupted; {resume_hint()}", ended_by_signal())
    exit_process(code or 0)


def _fail(text: str, code: int) -> int:
    click.echo(text, err=True)
    return code
