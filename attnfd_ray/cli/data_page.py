"""The report of a dataset check as one HTML page: tables, and example images of each class."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnfd_ray.data.checker.findings import Split
    from attnfd_ray.data.checker.report import DataReport, SplitReport

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .8rem; text-align: right }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; margin: 0 .5rem .5rem 0 } figcaption { font-size: 12px }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .5em }
.error { color: #a00 } .warning { color: #850 }
"""

ImageOf = Callable[[str, str], str]  # (role, sample id) -> HTML


def page_html(report: DataReport, splits: Sequence[Split]) -> str:
    """Return the page, which loads no other file; `splits` are those of the report."""
    title = escape(f"{report.dataset}: {report.root}")
    scope = "a few files of each split were read; --full reads all"
    if report.full:
        scope = "every file was read"
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
        f"<p>{scope}; data_hash {report.data_hash or 'none while files are missing'}</p>",
        *_findings("error", report.errors),
        *_findings("warning", report.warnings),
        *_findings("note", report.notes),
    ]
    if report.splits:
        lines += [_splits(report), _classes(report, splits)]
    return "\n".join([*lines, "</body></html>\n"])


def _findings(kind: str, texts: Iterable[str]) -> list[str]:
    return [f'<p class="{kind}">{kind}: {escape(text)}</p>' for text in texts]


def _splits(report: DataReport) -> str:
    heads = ("Split", "Images", "Expected", "Read", "Classes seen", "Ignored %")
    return _table(heads, (_split_cells(split) for split in report.splits))


def _split_cells(split: SplitReport) -> list[str]:
    expected = "-"
    if split.num_published is not None:
        expected = str(split.num_published)
    cells = (
        f"{split.role} ({split.split})",
        split.num_images,
        expected,
        split.num_read,
        f"{split.num_classes_seen} of {len(split.classes)}",
        _percent(split.ignored_share),
    )
    return [escape(str(cell)) for cell in cells]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _classes(report: DataReport, splits: Sequence[Split]) -> str:
    """Return the table of the classes, then the images with the most pixels of each."""
    palette = splits[0].dataset.palette
    image_of = _image_renderer(splits)
    rows = []
    sections = []
    for number, name in enumerate(report.class_names):
        colour = "#{:02x}{:02x}{:02x}".format(*palette[number])
        label = f'<span class="swatch" style="background:{colour}"></span>{escape(name)}'
        cells = [label]
        images = []
        for split in report.splits:
            share = split.classes[number]
            cells += [_percent(share.pixel_share), str(share.num_images)]
            images += [image_of(split.role, sample_id) for sample_id in share.examples]
        rows.append(cells)
        content = "".join(images) or "<p>in no image that was read</p>"
        sections.append(f"<h2>{label}</h2>{content}")
    heads = [head for split in report.splits for head in (f"{split.role} %", "images")]
    return _table(["Class", *heads], rows) + "\n".join(sections)


def _image_renderer(splits: Sequence[Split]) -> ImageOf:
    """Return a function that renders a sample with its mask; each sample is read once."""
    from attnfd_ray.data.checker.contact_sheet import example

    datasets = {split.role: split.dataset for split in splits}
    indices = {
        role: {sample_id: index for index, sample_id in enumerate(dataset.ids)}
        for role, dataset in datasets.items()
    }

    @cache
    def image_of(role: str, sample_id: str) -> str:
        source = base64.b64encode(example(datasets[role], indices[role][sample_id])).decode()
        caption = escape(f"{role}: {sample_id}")
        return (
            f'<figure><img src="data:image/jpeg;base64,{source}" alt="">'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    return image_of


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
