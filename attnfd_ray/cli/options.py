"""Options and steps that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from attnfd_ray.config.schema import ExperimentSettings

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

file_argument = click.argument("file", type=click.Path(path_type=Path))
store_argument = click.argument("store", envvar="ATTNFD_STORE", default="./results")


def set_option(example: str = "train.epochs=3") -> Decorator:
    """Return the option --set, with an example for its help."""
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="PATH=VALUE",
        help=f"Change a setting: --set {example}. May be given several times.",
    )


def progress_options(command: Command) -> Command:
    """Add the options that choose what a running command prints."""
    decorators = [
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event."),
        click.option(
            "-v", "--verbose", is_flag=True, help="Also print the output of Ray and of the workers."
        ),
    ]
    return _decorated(command, decorators)


def experiment_options(command: Command) -> Command:
    """Add FILE and the options of a command that runs an experiment."""
    decorators: list[Decorator] = [
        file_argument,
        set_option(),
        click.option(
            "--show", is_flag=True, help="Print the settings with all defaults, and run nothing."
        ),
        click.option("--fresh", is_flag=True, help="Start over instead of resuming."),
        progress_options,
    ]
    return _decorated(command, decorators)


def wait_options(command: Command) -> Command:
    """Add the options for waiting until a cluster has scaled up."""
    decorators = [
        click.option(
            "--wait-timeout",
            type=click.FloatRange(min=0),
            default=0.0,
            metavar="S",
            help="Wait up to S seconds for capacity, on a cluster that scales up. By default, too "
            "little capacity is an error at once.",
        ),
        click.option(
            "--expect-nodes",
            type=click.IntRange(min=1),
            default=1,
            metavar="N",
            help="Start only with N nodes or more; with --wait-timeout, wait for them.",
        ),
    ]
    return _decorated(command, decorators)


def _decorated(command: Command, decorators: Sequence[Decorator]) -> Command:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def read_settings(
    file: Path, sets: tuple[str, ...], *, show: bool, as_json: bool
) -> ExperimentSettings | None:
    """Return the settings of the experiment; with `show`, print them and return None."""
    from attnfd_ray.config.loader import dump_yaml, load_experiment

    settings = load_experiment(file, sets=sets)
    if not show:
        return settings
    if as_json:
        click.echo(json.dumps(settings.model_dump(mode="json")))
    else:
        click.echo(dump_yaml(settings), nl=False)
    return None
