"""README.md ends with the tree: every file that matters, one line each, and nothing that is not
there.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# `  name.py   # words`, or with two blanks between; branches of a drawn tree count as blanks
LINE = re.compile(r"(?P<indent>[\s│├└─]*)(?P<path>[^\s#│├└─]\S*)(?:\s+#|\s\s)\s*(?P<words>\S.*)")
# what tools leave behind
MADE = {"__pycache__"}


def tree() -> dict[str, str]:
    """Return path -> description, as the last fenced block of README.md has them."""
    blocks = re.findall(
        r"^```[a-z]*\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in blocks[-1].splitlines():
        match = LINE.fullmatch(line)
        assert match, f"not `path  # words`: {line!r}"
        depth = len(match["indent"])
        parents = [(at, name) for at, name in parents if at < depth]
        path = "".join(name for _, name in parents) + match["path"]
        assert path not in found, f"{path} stands there twice"
        found[path] = match["words"]
        if path.endswith("/"):
            parents.append((depth, match["path"]))
    return found


def files_in(folder: str, pattern: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).glob(pattern)
        if path.is_file() and not MADE & set(path.parts)
    }


def test_everything_listed_is_there():
    listed = tree()
    assert len(listed) > 100
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert [path for path in listed if (ROOT / path).is_dir() != path.endswith("/")] == []


@pytest.mark.parametrize(
    ("folder", "pattern", "at_least"),
    [
        ("attnfd_ray", "**/*.py", 90),
        ("search_spaces", "*", 3),
        ("cluster", "*", 4),
        ("benchmarks", "*.py", 3),
    ],
)
def test_everything_there_is_listed(folder, pattern, at_least):
    there = files_in(folder, pattern)
    assert len(there) >= at_least
    assert there - tree().keys() == set()


def test_a_description_is_not_cut_short():
    """A description may be part of what the file says of itself, but ends where a word ends."""
    listed = {path: words for path, words in tree().items() if path.endswith(".py")}
    assert len(listed) > 90
    cut = []
    for path, words in listed.items():
        said = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
        rest = " ".join(said.split()).removeprefix(words)
        if rest != " ".join(said.split()) and rest[:1].isalnum():
            cut.append(f"{path}: {words}")
    assert cut == []
