"""Options and steps that `train` and `tune` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from attnfd_ray.config.schema import ExperimentSettings


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add FILE and the options of a command that runs an experiment."""
    decorators = [
        click.argument("file", type=click.Path(path_type=Path)),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="PATH=VALUE",
            help="Change a setting: --set train.epochs=3",
        ),
        click.option(
            "--show", is_flag=True, help="Print the settings as they will be used, and run nothing."
        ),
        click.option(
            "--fresh",
            is_flag=True,
            help="Start over instead of going on where the same command stopped.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="One JSON line for everything that happens."
        ),
        click.option(
            "-v", "--verbose", is_flag=True, help="Print what Ray and the workers say too."
        ),
    ]
    return _decorated(command, decorators)


def patience_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how long to wait for a cluster that scales up."""
    decorators = [
        click.option(
            "--wait-timeout",
            type=click.FloatRange(min=0),
            default=0.0,
            metavar="S",
            help="Wait up to S seconds for room, where a cluster scales up; without it, too "
            "little room is an error.",
        ),
        click.option(
            "--expect-nodes",
            type=click.IntRange(min=1),
            default=1,
            metavar="N",
            help="Go only with N nodes or more; with --wait-timeout, wait for them.",
        ),
    ]
    return _decorated(command, decorators)


def _decorated(
    command: Callable[..., Any],
    decorators: Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]],
) -> Callable[..., Any]:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def read_settings(
    file: Path, sets: tuple[str, ...], *, show: bool, as_json: bool
) -> ExperimentSettings | None:
    """Read the experiment; with `show`, print it and return None."""
    from attnfd_ray.config.loader import dump_yaml, load_experiment

    settings = load_experiment(file, sets=sets)
    if not show:
        return settings
    click.echo(
        json.dumps(settings.model_dump(mode="json")) if as_json else dump_yaml(settings), nl=as_json
    )
    return None
