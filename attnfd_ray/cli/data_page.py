"""A checked dataset as a page that needs nothing beside itself: tables, and for each class a few
images under masks.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from attnfd_ray.errors import DataError

if TYPE_CHECKING:
    from attnfd_ray.data.checker.findings import Split
    from attnfd_ray.data.checker.records import DataReport, SplitReport

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .8rem; text-align: right }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; margin: 0 .5rem .5rem 0 } figcaption { font-size: 12px }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .5em }
.error { color: #a00 } .warning { color: #850 }
"""


def write_page(path: Path, report: DataReport, splits: Sequence[Split]) -> None:
    """Write the page, with pictures of the splits that the report is of; DataError where that
    cannot be done.
    """
    write(path, _page(report, splits).encode())


def write(path: Path, content: bytes) -> None:
    """Write the whole file or nothing; DataError where that cannot be done."""
    from attnfd_ray.store.atomic import write_atomic

    try:
        write_atomic(path, content)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); give a file in a directory of yours"
        ) from None


def _page(report: DataReport, splits: Sequence[Split]) -> str:
    title = escape(f"{report.dataset}: {report.root}")
    read = (
        "every file was read"
        if report.full
        else "a few files of each split were read; --full reads all"
    )
    lines = [
        f'<p class="{kind}">{kind}: {escape(line)}</p>'
        for kind, found in (
            ("error", report.errors),
            ("warning", report.warnings),
            ("note", report.notes),
        )
        for line in found
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
            f"<p>{read}; data_hash {report.data_hash or 'none while files are missing'}</p>",
            *lines,
            *([_splits(report), _classes(report, splits)] if report.splits else []),
            "</body></html>\n",
        ]
    )


def _splits(report: DataReport) -> str:
    heads = ("Split", "Images", "Expected", "Read", "Classes seen", "Ignored %")
    return _table(heads, (_split_cells(split) for split in report.splits))


def _split_cells(split: SplitReport) -> list[str]:
    seen = f"{split.num_classes_seen} of {len(split.classes)}"
    expected = "-" if split.num_published is None else str(split.num_published)
    cells = (f"{split.role} ({split.split})", split.num_images, expected, split.num_read, seen)
    return [escape(str(cell)) for cell in (*cells, f"{split.ignored_share * 100:.2f}")]


def _classes(report: DataReport, splits: Sequence[Split]) -> str:
    """Return the table of the classes, then the images with the most of each."""
    from attnfd_ray.data.checker.contact_sheet import example

    datasets = {split.role: split.dataset for split in splits}
    index_of = {
        role: {name: index for index, name in enumerate(dataset.ids)}
        for role, dataset in datasets.items()
    }
    palette = splits[0].dataset.palette

    @cache
    def picture(role: str, sample_id: str) -> str:
        source = base64.b64encode(example(datasets[role], index_of[role][sample_id])).decode()
        caption = escape(f"{role}: {sample_id}")
        return f'<figure><img src="data:image/jpeg;base64,{source}" alt=""><figcaption>{caption}</figcaption></figure>'

    rows, sections = [], []
    for number, name in enumerate(report.class_names):
        colour = "#{:02x}{:02x}{:02x}".format(*palette[number])
        label = f'<span class="swatch" style="background:{colour}"></span>{escape(name)}'
        found = [(split.role, split.classes[number]) for split in report.splits]
        rows.append(
            [
                label,
                *(t for _, c in found for t in (f"{c.pixel_share * 100:.2f}", str(c.num_images))),
            ]
        )
        pictures = [
            picture(role, sample_id) for role, share in found for sample_id in share.examples
        ]
        sections.append(
            f"<h2>{label}</h2>" + ("".join(pictures) or "<p>in no image that was read</p>")
        )
    heads = [head for split in report.splits for head in (f"{split.role} %", "images")]
    return _table(["Class", *heads], rows) + "\n".join(sections)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
