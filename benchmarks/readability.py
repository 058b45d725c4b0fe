"""Measures how dense the package's code is: tokens a code line, and conditional expressions.

    python -m benchmarks.readability [DIRECTORY]

A code line is a line that holds a token which is neither a comment nor part of a docstring. Names,
numbers, strings and operators count as tokens.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "attnfd_ray"
_COUNTED = {tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP}


@dataclass(frozen=True, kw_only=True)
class Density:
    """Counts over some files."""

    code_lines: int
    tokens: int
    conditional_expressions: int

    @property
    def tokens_per_line(self) -> float:
        """Tokens a code line."""
        return self.tokens / self.code_lines

    @property
    def conditionals_per_1000_lines(self) -> float:
        """Conditional expressions (`a if b else c`) in 1,000 code lines."""
        return 1000 * self.conditional_expressions / self.code_lines


def measure(files: Iterable[Path]) -> Density:
    """Return the counts over Python files."""
    sources = [file.read_text(encoding="utf-8") for file in files]
    counts = [_lines_and_tokens(source) for source in sources]
    nodes = (node for source in sources for node in ast.walk(ast.parse(source)))
    return Density(
        code_lines=sum(lines for lines, _ in counts),
        tokens=sum(tokens for _, tokens in counts),
        conditional_expressions=sum(isinstance(node, ast.IfExp) for node in nodes),
    )


def _lines_and_tokens(source: str) -> tuple[int, int]:
    docstrings = _docstring_lines(source)
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in _COUNTED and token.start[0] not in docstrings
    ]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return len(lines), len(tokens)


def _docstring_lines(source: str) -> set[int]:
    found = set[int]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def main() -> None:
    """Print the density of the package, or of another directory."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    rooms = sorted({file.parent for file in directory.rglob("*.py")})
    for room in [directory, *(room for room in rooms if room != directory)]:
        files = directory.rglob("*.py") if room == directory else room.glob("*.py")
        density = measure(files)
        print(
            f"{room.relative_to(directory.parent)}: {density.code_lines} code lines, "
            f"{density.tokens_per_line:.2f} tokens a line, "
            f"{density.conditionals_per_1000_lines:.1f} conditional expressions in 1,000 lines"
        )


if __name__ == "__main__":
    main()
