"""The command line: parse, call, print. One file per command; no torch and no ray at import."""

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
    """Distil a large segmentation network into a small one, and search for how to do it best.

    One YAML file describes an experiment: `train` runs it as it stands, `tune` varies it as its
    `search:` section says, `confirm` runs the best again over fresh seeds, `report` tells what came
    out, `picture` draws it.
    """


for command in (check, train, tune, confirm, report, picture, explain, data, teacher, gc):
    cli.add_command(command)


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2, never a
    traceback.
    """
    # a user's own `module:Class` lies beside the file that names it, and comes after all that is
    # installed
    sys.path.append(str(Path.cwd()))
    install_signal_handlers()
    try:
        # click's own handling would turn Ctrl-C into exit code 1
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
