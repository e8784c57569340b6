"""The values of a program that a search may vary, and the ranges that its comments state for them.

In Python: names in capitals, and defaults of command-line options. In YAML and TOML: every key. A comment behind a
value, `# search: 1e-4..1e-1 log`, states its range; with it, a name at the top level needs no capitals. Pure.
"""

from __future__ import annotations

import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from pytest_autoresearch.source import arguments, config_values, constants
from pytest_autoresearch.source.constants import Constant, Value
from pytest_autoresearch.source.syntax import parse

SUFFIXES = (".py", *config_values.YAML, *config_values.TOML)
_COMMENT = re.compile(r"#\s*search:(.*)")


@lru_cache(maxsize=256)  # each proposal reads all files, and few have changed
def find(path: str, text: str) -> tuple[tuple[Constant, ...], tuple[str, ...]]:
    """The values of a file, in its order, and the lines with a stated range behind which nothing can be varied.

    Raises:
        SyntaxError: Python cannot parse the file.
    """
    starts = constants.line_starts(text)
    if path.endswith(".py"):
        tree = parse(text)
        found = constants.assigned(tree, text) + arguments.find(tree, text, starts)
        stated = dict(_python_comments(text)) if _COMMENT.search(text) else {}
    else:
        found, stated = config_values.find(path, text), {}
        for one in found:
            line = bisect_right(starts, one.start)
            if said := _COMMENT.search(text[one.end : starts[line]].rstrip("\r\n")):
                stated[line] = said[1].strip()
    found = [replace(one, stated=stated.pop(bisect_right(starts, one.start), one.stated)) for one in found]
    chosen = sorted((one for one in found if one.stated or _is_open(path, one)), key=lambda one: one.start)
    return tuple(chosen), tuple(f"{path}, line {line}: # search: {said}" for line, said in stated.items())


def edit(path: str, text: str, changes: Iterable[tuple[Constant, Value]]) -> str:
    """The file's text with new values; every other character stays."""
    return constants.replaced(text, changes, config_values.yaml_text if path.endswith(config_values.YAML) else None)


def _is_open(path: str, one: Constant) -> bool:
    """Whether the value may be varied without a stated range."""
    return not isinstance(one.value, str) and (not path.endswith(".py") or bool(one.flags) or one.name.isupper())


def _python_comments(text: str) -> Iterator[tuple[int, str]]:
    """The stated ranges behind code, by line."""
    for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
        said = _COMMENT.fullmatch(token.string) if token.type == tokenize.COMMENT else None
        if said and token.line[: token.start[1]].strip():
            yield token.start[0], said[1].strip()
