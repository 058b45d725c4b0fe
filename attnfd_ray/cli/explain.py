"""`attnfd-ray explain PRESET`: the settings of a preset, with the reason for each."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command("explain")
@click.argument("name", metavar="PRESET")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def explain(name: str, as_json: bool) -> None:
    """Print the settings of PRESET, and the reason for each.

    PRESET is attnfd, attnfd_release or attnfd_paper. A file uses it with `preset: PRESET`; settings
    in the file itself override those of the preset. The method of the same name has the preset's
    `method` settings as defaults.
    """
    from attnfd_ray.config.preset import load

    preset = load(name)
    rows = list(preset.rows())
    if not as_json:
        _show(preset.summary, rows, preset.differences)
        return
    document = {
        "preset": name,
        "summary": preset.summary,
        "settings": rows,
        "differences": preset.differences,
    }
    click.echo(json.dumps(document))


def _show(summary: str, rows: list[dict[str, Any]], differences: tuple[str, ...]) -> None:
    """Print a table; reasons are on lines of their own, since 80 columns are too few for them."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    table = [("setting", "default", "preset")]
    table += [(row["setting"], _as_text(row["default"]), _as_text(row["value"])) for row in rows]
    reasons = ["why", *(row["why"] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    console.print(Text(summary))
    for cells, reason in zip(table, reasons, strict=True):
        _, default, value = cells
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        text = Text(line.rstrip())
        if default != value:
            text.stylize("bold")
        console.print(text, soft_wrap=True)
        console.print(Padding(Text(reason), (0, 0, 0, 4), expand=False))
    for difference in differences:
        console.print(Text(f"differs from its source: {difference}"))


def _as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return json.dumps(value)
