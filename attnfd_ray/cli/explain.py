"""`attnfd-ray explain PRESET`: what a preset sets, and why."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command("explain")
@click.argument("name", metavar="PRESET")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def explain(name: str, as_json: bool) -> None:
    """Say what PRESET sets, and why.

    PRESET is attnfd, attnfd_release or attnfd_paper. A file takes it up by `preset: PRESET`, and
    what the file says itself wins. The method of the same name has the preset's `method` settings
    for its own defaults.
    """
    from attnfd_ray.config.preset import load

    preset = load(name)
    rows = list(preset.rows())
    if as_json:
        click.echo(
            json.dumps(
                {
                    "preset": name,
                    "summary": preset.summary,
                    "settings": rows,
                    "unlike": preset.unlike,
                }
            )
        )
    else:
        _show(preset.summary, rows, preset.unlike)


def _show(summary: str, rows: list[dict[str, Any]], unlike: tuple[str, ...]) -> None:
    """Print a table, each reason on lines of its own below its row: 80 columns hold no fourth
    one.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    table = [("setting", "default", "preset")]
    table += [(row["setting"], _written(row["default"]), _written(row["value"])) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    console.print(Text(summary))
    for cells, row in zip(table, [{"why": "why"}, *rows], strict=True):
        line = "  ".join(
            cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()
        console.print(Text(line, style="" if cells[1] == cells[2] else "bold"), soft_wrap=True)
        console.print(Padding(Text(row["why"]), (0, 0, 0, 4), expand=False))
    for text in unlike:
        console.print(Text(f"unlike what it stands for: {text}"))


def _written(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
