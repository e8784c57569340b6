"""The defaults of a program's command-line options: `parser.add_argument("--lr", default=3e-4)`. Pure."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace

from pytest_autoresearch.source.constants import Constant, constant

_CASTS = {"int": int, "float": float, "str": str}


def find(tree: ast.Module, source: str, starts: list[int]) -> list[Constant]:
    """The options that have a literal as their default, by their first long name; a repeated name is left out.

    A number that `type=float` makes a float counts as one, and `choices=[...]` states the range.
    """
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="add_argument"), args=[_, *_]):
                if one := _option(node, source, starts):
                    found.append(one)
    count = Counter(flag for one in found for flag in one.flags)
    return [one for one in found if all(count[flag] == 1 for flag in one.flags)]


def _option(call: ast.Call, source: str, starts: list[int]) -> Constant | None:
    flags = tuple(one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str))
    said = {one.arg: one.value for one in call.keywords}
    if len(flags) != len(call.args) or not flags[0].startswith("-") or "default" not in said or "nargs" in said:
        return None
    name = next((flag for flag in flags if flag.startswith("--")), flags[0])
    one = constant(name, said["default"], source, starts)
    if one is None:
        return None
    kind = said.get("type")
    cast = _CASTS.get(kind.id) if isinstance(kind, ast.Name) else None
    if isinstance(one.value, str) and kind is not None and cast is not str:
        return None  # `type` makes something else of this text
    value = float(one.value) if cast is float and not isinstance(one.value, bool | str) else one.value
    return replace(one, value=value, flags=flags, stated=_choices(said.get("choices")))


def _choices(node: ast.expr | None) -> str:
    """The literal choices of an option as a range is written; empty if there are none."""
    if not isinstance(node, ast.List | ast.Tuple):
        return ""
    values = [one.value for one in node.elts if isinstance(one, ast.Constant)]
    if len(values) < max(2, len(node.elts)) or any(isinstance(one, str) and "," in one for one in values):
        return ""
    return ", ".join(map(repr, values))
