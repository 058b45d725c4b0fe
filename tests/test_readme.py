"""The README and the pages of docs/: what they name exists, and what they show can be read.

Pure Python, so that a broken link is found without mkdocs.
"""

import re
import shlex
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from test_architecture import ARROWS

from attnfd_ray import registry
from attnfd_ray.cli import cli
from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import DataSettings, ScalingSettings
from attnfd_ray.data.datasets.folder_layout import FILE, read_layout
from attnfd_ray.store.schema import EPOCHS, TRIALS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
OURS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
# what else a reader meets, the dated pages of benchmarks/ included
TEXTS = [*OURS, ROOT / "CHANGELOG.md", *ROOT.glob("benchmarks/*.md"), ROOT / "cluster/README.md"]
BASE = {"config", "registry", "errors", "terms", "ids", "run_files", "atomic"}
# what tools leave behind
MADE = {"__pycache__"}
ENVIRONMENT = {"CAMVID_ROOT": "/data/CamVid", "VOC_ROOT": "/data/VOCdevkit", "TEACHER": "/t.pth"}
# what an example that shows a few sections is read with
AROUND: dict[str, Any] = {
    "experiment": "example",
    "data": {"name": "camvid", "root": "/data/CamVid", "crop": [360, 360]},
    "teacher": {"backbone": "resnet101", "checkpoint": "/t.safetensors"},
    "student": {"backbone": "resnet18"},
    "method": {"name": "attnfd"},
}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def section(path: Path, title: str) -> str:
    """Return what stands under a heading of the second level."""
    return text_of(path).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, indented ones too, without their indent."""
    pattern = rf"^( *)```{language}(?: [^\n]*)?\n(.*?)^ *```$"
    return [
        re.sub(rf"^{indent}", "", block, flags=re.M)
        for indent, block in re.findall(pattern, text_of(path), re.M | re.S)
    ]


def prose(path: Path) -> str:
    """Return a text without its fenced blocks."""
    return re.sub(r"^( *)```.*?^ *```$", "", text_of(path), flags=re.M | re.S)


def code_spans(path: Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(path))]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of every table in a text, the heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [number for number, line in enumerate(lines) if re.match(r"\|( -+ \|)+$", line)]
    skipped = {number for head in heads for number in (head - 1, head)}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if number not in skipped
    ]


# The tree.


@cache
def tree() -> dict[str, str]:
    """Return path -> description, as docs/architecture.md has them."""
    found: dict[str, str] = {}
    folder = ""
    for line in section(DOCS / "architecture.md", "The file tree").splitlines():
        if heading := re.fullmatch(r"### `(\S+)`", line):
            folder = heading[1].removeprefix(".")
        elif line.startswith("- "):
            match = re.fullmatch(r"- `(\S+)`: (.+)", line)
            assert match, f"not `path`: words. {line!r}"
            path = f"{folder}{match[1]}"
            assert path not in found, f"{path} stands there twice"
            found[path] = match[2]
    return found


def files_in(folder: str, pattern: str) -> set[str]:
    return {
        name_of(path)
        for path in (ROOT / folder).glob(pattern)
        if path.is_file() and not MADE & set(path.parts)
    }


def test_everything_listed_in_the_tree_is_there():
    listed = tree()
    assert len(listed) > 200
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert [path for path in listed if (ROOT / path).is_dir() != path.endswith("/")] == []


@pytest.mark.parametrize(
    ("folder", "pattern", "at_least"),
    [
        ("attnfd_ray", "**/*.py", 90),
        ("search_spaces", "*", 3),
        ("cluster", "*", 4),
        ("benchmarks", "*.py", 3),
        ("benchmarks", "*.md", 3),
        ("docs", "*", 10),
    ],
)
def test_everything_there_is_listed_in_the_tree(folder, pattern, at_least):
    there = files_in(folder, pattern)
    assert len(there) >= at_least
    assert there - tree().keys() == set()


def test_a_description_in_the_tree_is_a_sentence_that_ends():
    listed = tree()
    assert [path for path, words in listed.items() if not words.endswith(".")] == []
    assert [path for path, words in listed.items() if not words[0].islower()] == []


# The README and the pages.


def test_the_readme_is_short_enough_to_be_read_at_once():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 130


def test_a_line_of_text_is_at_most_120_characters_wide():
    """A row of a table and a line of a fenced block are as wide as they have to be."""
    for path in OURS:
        lines = prose(path).splitlines()
        wide = [line for line in lines if len(line) > 120 and not line.startswith("|")]
        assert wide == [], name_of(path)


def nav_files(nav: Any) -> Iterator[str]:
    for entry in nav:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else nav_files(target)


def test_the_navigation_has_every_page_once():
    settings = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))
    listed = list(nav_files(settings["nav"]))
    assert len(listed) > 10
    assert sorted(listed) == [path.name for path in PAGES]


def slug(heading: str) -> str:
    """Return the anchor of a heading, as Python-Markdown makes it."""
    plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore")
    words = re.sub(r"[^\w\s-]", "", plain.decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(path), re.M)}


def links(path: Path) -> list[str]:
    """Return the targets of a text's links and images that are no addresses."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(path)))
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_a_link_leads_somewhere(path):
    for link in links(path):
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        # the site is made of docs/ alone
        assert path.parent != DOCS or target.is_relative_to(DOCS), link
        assert not anchor or anchor in anchors(target), link


def test_the_walk_finds_links():
    assert sum(len(links(path)) for path in PAGES) > 30
    assert len(links(ROOT / "README.md")) > 15


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_a_file_that_a_text_names_is_there(path):
    folders = "attnfd_ray|tests|benchmarks|search_spaces|cluster|docs"
    named = [span for span in code_spans(path) if re.fullmatch(rf"({folders})/[\w./-]*", span)]
    assert [name for name in named if not (ROOT / name).exists()] == []


# Commands.


def shell_lines(path: Path) -> list[str]:
    """Return the commands of a text: in its blocks, in its sentences, at the head of a YAML."""
    if path.suffix == ".yaml":
        return re.findall(r"^#   (.*)$", text_of(path), re.M)
    typed = "\n".join(blocks(path, "console")).replace("\\\n", " ")
    return [*re.findall(r"^\$ (.*)$", typed, re.M), *code_spans(path)]


def calls(path: Path) -> list[list[str]]:
    """Return the words after each `attnfd-ray` of a text."""
    found = []
    for line in shell_lines(path):
        for part in re.split(r"&&|\|\||;|\||\s#", line):
            try:
                words = shlex.split(part)
            except ValueError:  # an apostrophe in a sentence
                continue
            if "attnfd-ray" in words:
                found.append(words[words.index("attnfd-ray") + 1 :])
    return found


def unknown_in(words: list[str]) -> list[str]:
    """Return what a call has that the command line does not know."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[:1]
        command, words = command.commands[words[0]], words[1:]
    known = {"-h", "--help"} | {option for each in command.params for option in each.opts}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [option for option in options if option not in known]


COMMANDED = [*TEXTS, *sorted(ROOT.glob("search_spaces/*.yaml"))]


@pytest.mark.parametrize("path", COMMANDED, ids=name_of)
def test_a_command_and_its_options_exist(path):
    for words in calls(path):
        assert unknown_in(words) == [], words
        files = [word for word in words if re.match(r"(search_spaces|benchmarks)/", word)]
        assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_walk_finds_commands_and_what_is_wrong_with_one():
    assert sum(len(calls(path)) for path in COMMANDED) > 80
    assert unknown_in(["tune", "FILE", "--tune-baseline", "8"]) == []
    assert unknown_in(["tune", "FILE", "--tune-baselines", "8"]) == ["--tune-baselines"]
    assert unknown_in(["data", "chek", "FILE"]) == ["chek"]


def test_every_command_is_described_on_some_page():
    described = {tuple(words[:1]) for path in PAGES for words in calls(path)}
    assert {name for name in cli.commands if (name,) not in described} == set()


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_a_target_of_make_exists(path):
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.M))
    lines = [line for line in shell_lines(path) if re.match(r"make [a-z]", line)]
    words = [word for line in lines for word in line.partition("#")[0].split()[1:]]
    assert set(words) <= targets


# Examples.


def examples() -> list[Any]:
    return [
        pytest.param(path, block, id=f"{name_of(path)}-{number}")
        for path in (ROOT / "README.md", *PAGES)
        for number, block in enumerate(blocks(path, "yaml"))
    ]


@pytest.mark.parametrize(("path", "block"), examples())
def test_an_example_of_settings_can_be_read(path, block, tmp_path):
    tree = yaml.safe_load(block)
    if "classes" in tree:
        (tmp_path / FILE).write_text(block, encoding="utf-8")
        assert len(read_layout(tmp_path).classes) >= 2
        return
    if "mypackage." in block:
        return  # of the reader's own: tests/test_guides.py runs these
    file = tmp_path / "example.yaml"
    whole = tree if "experiment" in tree else AROUND | tree
    file.write_text(block if "experiment" in tree else yaml.safe_dump(whole), encoding="utf-8")
    settings = load_experiment(file, environ=ENVIRONMENT)
    assert settings.experiment == whole["experiment"]


# Tables.


@pytest.mark.parametrize(
    ("page", "title", "kind"),
    [
        ("methods.md", "All methods", "method"),
        ("data.md", "Supported datasets", "dataset"),
        ("search.md", "Samplers", "sampler"),
        ("search.md", "Early stopping", "early_stopping"),
    ],
)
def test_a_page_lists_every_part_that_a_short_name_stands_for(page, title, kind):
    listed = {cells[0].strip("`") for cells in rows(section(DOCS / page, title))}
    assert listed == set(registry.TABLES[kind])


def value_of(cell: str) -> Any:
    """Return the value that a cell of a table shows."""
    value = yaml.safe_load(cell.replace("`", ""))
    return value.split(", ") if isinstance(value, str) and ", " in value else value


def test_the_page_on_methods_has_their_layers_and_weights():
    stages = "stage1, stage2, stage3, stage4"
    for name, _, layers, weight in rows(section(DOCS / "methods.md", "All methods")):
        kind = registry.load("method", name.strip("`"))
        fields = kind.Settings.model_fields
        if "loss_weight" in fields:
            assert float(weight) == fields["loss_weight"].get_default(), name
        told = layers.replace("stage1 to stage4", stages).split(", ")
        if "layers" in fields:
            assert told == fields["layers"].get_default(), name
        elif "terms" not in fields:
            assert tuple(told) == (kind.taps(kind.Settings()) or ("none",)), name


@pytest.mark.parametrize(
    ("page", "title", "record"),
    [
        ("data.md", "What the network sees", DataSettings),
        ("data.md", "Faster reading", DataSettings),
        ("cluster.md", "How much one trial takes", ScalingSettings),
        ("methods.md", "AttnFD", "attnfd"),
    ],
)
def test_a_table_of_settings_has_their_defaults(page, title, record):
    if isinstance(record, str):
        record = registry.load("method", record).Settings
    shown = {name.strip("`"): cell for name, cell, _ in rows(section(DOCS / page, title))}
    assert len(shown) >= 3
    for name, cell in shown.items():
        field = record.model_fields[name]
        if field.is_required():
            assert cell == "required", name
            continue
        default = field.get_default()
        assert value_of(cell) == (list(default) if isinstance(default, tuple) else default), name
    if page == "methods.md":
        assert shown.keys() == record.model_fields.keys() - {"name"}


def test_the_page_on_the_store_has_every_column():
    page = DOCS / "store.md"
    both, epochs, trials = (
        [cells[0].strip("`") for cells in rows(section(page, title))]
        for title in ("Columns of both tables", "Columns of `epochs`", "Columns of `trials`")
    )
    assert both + epochs == EPOCHS.names
    assert both + trials == TRIALS.names


def test_the_page_on_the_architecture_has_the_arrows_that_are_allowed():
    told = {
        cells[0].strip("`"): set(re.findall(r"`([\w.]+)`", cells[2]))
        for cells in rows(section(DOCS / "architecture.md", "Rooms and arrows"))
    }
    allowed = {
        room: others if room in BASE or room == "__main__" else others - BASE
        for room, others in ARROWS.items()
        if room != "__init__"
    }
    assert told == allowed
