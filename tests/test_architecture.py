"""Which way the arrows point (architecture.md), and what no file of the package may contain: read
from the source.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "attnfd_ray"
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return `runtime.jobs` for a file in that folder; a file of the package itself is a room."""
    *folders, name = path.relative_to(PACKAGE).parts
    return ".".join(folders) or name.removesuffix(".py")


def top(path: Path) -> str:
    """Return the outermost folder of a file."""
    return room_of(path).split(".")[0]


ROOMS = sorted({room_of(path) for path in FILES})

_BASE = {"config", "registry", "errors", "terms", "ids", "atomic", "run_files"}
_FILES = {"data"} | _BASE
_READING = {"data.datasets", "data.storage"} | _FILES
# room -> the rooms it may import from, at any level of a file; `attnfd_ray` alone is the version
ARROWS = {
    "__init__": {"config", "data.datasets", "distill", "models", "store"},  # on first use
    "__main__": {"cli"},
    "errors": set(),
    "terms": set(),
    "ids": set(),
    "run_files": set(),
    "atomic": set(),
    "registry": {"errors"},
    "config": {"registry", "errors"},
    "models": _BASE,
    "data": _BASE,
    "data.storage": _FILES,
    "data.datasets": {"data.storage"} | _FILES,
    "data.loading": _READING,
    "data.checker": {"data.loading"} | _READING,
    "data.generate": {"data.loading"} | _READING,
    "distill": {"models"} | _BASE,
    "testing": {"models", "distill", "data.datasets"} | _BASE,
    "train": {"models", "distill", "data.datasets", "data.loading"} | _BASE,
    "search": _BASE,
    "store": _BASE,
    "analysis": {"store"} | _BASE,
    "report": {"analysis", "store"} | _BASE,
    "runtime.files": {"analysis", "search", "store", "models", "distill"} | _BASE,
    "runtime.cluster": {"runtime.files", "store", "data.storage"} | _BASE,
    "runtime.jobs": {"runtime.cluster", "runtime.files", "train", "search", "store"}
    | {"models", "distill", "data.datasets", "data.loading"}
    | _BASE,
    "runtime": {"runtime.jobs", "runtime.cluster", "runtime.files", "train", "search", "store"}
    | {"analysis", "models", "distill", "data.checker", "data.loading"}
    | _READING,
    "cli": {"runtime", "runtime.jobs", "runtime.cluster", "runtime.files", "report", "analysis"}
    | {"store", "data.checker", "data.generate", "models"}
    | _FILES,
}
# library -> the rooms that may import it
HOMES = {
    "ray": {"runtime"},
    "torch": {"models", "data", "distill", "testing", "train", "runtime"},
    "torchvision": {"models", "data", "distill", "train", "runtime"},
    "scipy": {"data", "analysis"},
    "pycocotools": {"data"},
    "segmentation_models_pytorch": {"models"},
    "timm": {"models"},
    "huggingface_hub": {"models"},
    "safetensors": {"models"},
    "optuna": {"search"},
    "fsspec": {"data"},
    "pyarrow": {"data", "store", "analysis"},
    "pydantic": {"config", "data", "models", "distill", "analysis"},
    "pydantic_core": {"config", "data"},
    "yaml": {"config", "report"},
    "rich": {"cli", "report"},
    "click": {"cli"},
    "PIL": {"data", "testing"},
    "numpy": {"data", "models", "testing", "train", "search", "store", "analysis", "report"},
}
# rooms that `cli` may only import inside a function, so that help comes at once
LAZY_FOR_COMMANDS = {"runtime", "analysis", "report", "store", "data", "config", "models"}
COMMANDS = [
    "__init__",
    "check",
    "confirm",
    "data",
    "data_check",
    "data_page",
    "data_voc_aug",
    "signals",
    "explain",
    "gc",
    "options",
    "picture",
    "report",
    "teacher",
    "train",
    "tune",
]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """Yield `package.module` for everything a file imports, under TYPE_CHECKING and in functions
    too.
    """
    for node in ast.walk(tree_of(path)):
        yield from imported_by(node, path)


def imported_by(node: ast.AST, path: Path) -> Iterator[str]:
    """Yield what one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where it leads"
        assert node.module is not None
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_in(names: Iterator[str]) -> set[str]:
    """Return the rooms among imported names; `attnfd_ray.__version__` is in none."""
    inside = {name.removeprefix("attnfd_ray.") for name in names if name.startswith("attnfd_ray.")}
    return {room_named(name) for name in inside - {"__version__"}}


def room_named(name: str) -> str:
    """Return the innermost room of `room.module.attribute`."""
    words = name.split(".")
    found = [room for room in (".".join(words[:2]), words[0]) if room in ROOMS]
    assert found, f"{name} is in no room"
    return found[0]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield (dotted name, call) for every call of a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_walk_finds_the_package():
    assert len(FILES) > 60
    assert set(ARROWS) == set(ROOMS)
    assert sum(len(list(imported(path))) for path in FILES) > 500


def test_the_walk_sees_an_import_wherever_it_stands(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        "import a.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from attnfd_ray.cli "
        "import main\n"
        "def f():\n    try:\n        import ray\n    except ImportError:\n        from attnfd_ray "
        "import train\n"
    )
    found = set(imported(file))
    assert found == {
        "a.b",
        "typing.TYPE_CHECKING",
        "attnfd_ray.cli.main",
        "ray",
        "attnfd_ray.train",
    }
    assert rooms_in(iter(found)) == {"cli", "train"}


def test_a_room_imports_only_from_those_below_it():
    for path in FILES:
        room = room_of(path)
        assert rooms_in(imported(path)) - {room} <= ARROWS[room], path


def test_no_arrow_leads_back():
    def below(room: str, seen: tuple[str, ...] = ()) -> set[str]:
        assert room not in seen, f"{' -> '.join([*seen, room])} is a circle"
        return {room}.union(*(below(other, (*seen, room)) for other in ARROWS[room]))

    for room, others in ARROWS.items():
        assert below(room) >= others


def test_a_library_is_imported_only_where_it_is_at_home():
    for path in FILES:
        libraries = {name.split(".")[0] for name in imported(path)} - {
            "attnfd_ray",
            *sys.stdlib_module_names,
        }
        assert libraries <= HOMES.keys(), path
        assert {library for library in libraries if top(path) not in HOMES[library]} == set(), path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_what_is_heavy_only_when_it_runs(name):
    path = PACKAGE / "cli" / f"{name}.py"
    tree = tree_of(path)
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    lazy |= {
        id(node) for guard in tree.body if isinstance(guard, ast.If) for node in ast.walk(guard)
    }
    eager = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in lazy
    ]
    assert len(eager) >= 3
    found = rooms_in(name for node in eager for name in imported_by(node, path))
    assert {room.split(".")[0] for room in found} & LAZY_FOR_COMMANDS == set()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("attnfd_ray.cli", {"torch", "ray", "pyarrow", "optuna", "pydantic"}),
        ("attnfd_ray.cli.progress", {"torch", "ray", "optuna"}),
        ("attnfd_ray.config.loader", {"torch", "ray", "pyarrow", "optuna"}),
        ("attnfd_ray.report.text", {"torch", "ray"}),
        ("attnfd_ray.search.plan", {"torch", "ray"}),
        ("attnfd_ray.runtime.cluster.environment", {"torch", "ray"}),
        ("attnfd_ray.runtime.cluster.nodes", {"torch"}),
        ("attnfd_ray.runtime.jobs.broker", {"torch", "ray"}),
        ("attnfd_ray.runtime.jobs.tune_trial", {"torch"}),
    ],
)
def test_what_is_light_stays_light_when_it_is_really_imported(module, heavy):
    code = f"import sys, {module}; print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_only_the_command_line_prints():
    printing = {
        "print",
        "click.echo",
        "click.secho",
        "rich.print",
        "Console",
        "sys.stdout.write",
        "sys.stderr.write",
    }
    found = {
        path: [call.lineno for name, call in calls(path) if name in printing] for path in FILES
    }
    assert sum(map(len, found.values())) > 5
    assert {top(path) for path, lines in found.items() if lines} == {"cli"}


def test_private_names_of_ray_are_used_in_two_files_only():
    private = re.compile(r"\bray\._|from ray\S* import \(?\s*_")
    found = {path.name for path in FILES if private.search(path.read_text(encoding="utf-8"))}
    assert found == {"ray_private.py", "ray_private_train.py"}


def test_nothing_is_executed_that_a_file_or_a_user_wrote():
    for path in FILES:
        for name, call in calls(path):
            where = f"{path}:{call.lineno}: {name}"
            values = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert name not in (
                "eval",
                "exec",
                "yaml.load",
                "yaml.full_load",
                "yaml.unsafe_load",
                "os.system",
            ), where
            assert not name.startswith(("pickle.", "cloudpickle.", "marshal.", "shelve.")), where
            assert values.get("weights_only", "True") == "True", where
            assert values.get("shell", "False") == "False", where
            assert name != "torch.load" or "weights_only" in values, where


def test_no_error_is_caught_unseen():
    handlers = [
        (path, node)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
    ]
    assert len(handlers) > 30
    for path, node in handlers:
        assert node.type is not None, f"{path}:{node.lineno}: a bare except takes Ctrl-C too"
        silent = all(isinstance(statement, ast.Pass) for statement in node.body)
        assert not (silent and ast.unparse(node.type) in ("Exception", "BaseException")), (
            f"{path}:{node.lineno}"
        )


def test_nothing_is_set_up_at_import():
    loud = (
        "logging.basicConfig",
        "logging.config",
        "warnings.filterwarnings",
        "warnings.simplefilter",
        "os.environ",
    )
    for path in FILES:
        for node in tree_of(path).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                for call in (child for child in ast.walk(node) if isinstance(child, ast.Call)):
                    assert not ast.unparse(call.func).startswith(loud), f"{path}:{call.lineno}"


def test_a_file_and_a_function_are_short_enough_to_be_read():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno}: {node.name}"


def test_a_file_says_first_what_it_is_for():
    assert [path for path in FILES if not ast.get_docstring(tree_of(path))] == []
