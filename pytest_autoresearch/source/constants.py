"""Finds the constants of a Python source, and replaces their values: names in capitals at the top level.

Pure: text in, text out. Knows nothing of files or of good values.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pytest_autoresearch.source.syntax import parse

Value = float | int | bool | str

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_LINE_END = re.compile(r"\r\n|\r|\n")  # not str.splitlines, which also splits at form feeds
_POWER_OF_TWO = re.compile(r"(2 *\*\* *|1 *<< *)\d+")
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_MOST_BITS = 64  # larger powers are not computed: 9**9**9 must not hang the session


@dataclass(frozen=True, slots=True)
class Constant:
    """A value in a file that may be given another one, such as `NAME = number` at the top level of a module.

    Attributes:
        name: The name, as the file has it.
        value: An int, a float, a bool or a text.
        text: The value as written, such as `3e-4`, `262_144` or `2**18`.
        start: Offset of the text, in characters from the start of the source.
        stated: The range that the file states for it, as written; empty if it states none.
        flags: The options of a command line that override it.
    """

    name: str
    value: Value
    text: str
    start: int
    stated: str = ""
    flags: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """Offset of the end of the text, in characters from the start of the source."""
        return self.start + len(self.text)


def find(source: str) -> tuple[Constant, ...]:
    """The constants of a module, in file order.

    A constant is a name in capital letters that is bound once: to a number, to `True` or `False`, or to arithmetic of
    plain numbers on one line (`2**18`, `64 * 1024`), which counts as one number. A name that is bound again (in a
    branch, a loop, or a function with `global`) is left out, because editing one of its values may have no effect.

    Raises:
        SyntaxError: Python cannot parse the source.
    """
    tree = parse(source)
    return tuple(one for one in assigned(tree, source) if one.name.isupper() and not isinstance(one.value, str))


def assigned(tree: ast.Module, source: str) -> list[Constant]:
    """Every name of a module that is bound once, at the top level, to a literal on one line."""
    bound = _bindings(tree)
    starts = line_starts(source)
    found = []
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as node):
                pass
            case _:
                continue
        if not name.startswith("__") and bound[name] == 1 and (one := constant(name, node, source, starts)):
            found.append(one)
    return found


def line_starts(source: str) -> list[int]:
    """The offset of each line's first character, and of the end."""
    return [0, *(end.end() for end in _LINE_END.finditer(source)), len(source)]


def constant(name: str, node: ast.expr, source: str, starts: list[int]) -> Constant | None:
    """The literal as a constant of this name; None if it is no literal, or on several lines."""
    value = _value(node)
    # Replacing an expression over several lines could delete comments.
    if value is None or node.lineno != node.end_lineno or node.end_col_offset is None:
        return None
    begin = starts[node.lineno - 1]
    line = source[begin : starts[node.lineno]].encode()[: node.end_col_offset]  # ast counts UTF-8 bytes
    text = line[node.col_offset :].decode()
    return Constant(name, value, text, begin + len(line[: node.col_offset].decode()))


def edit(source: str, values: Mapping[str, Value]) -> str:
    """The source with new values for some of its constants; every other character stays.

    Arithmetic is replaced as a whole; `2**18` stays a power of two if the new number is one.

    Raises:
        KeyError: The source has no constant of this name.
        ValueError: A value is infinite or NaN; Python has no literal for these.
        SyntaxError: Python cannot parse the source.
    """
    found = {one.name: one for one in find(source)}
    return replaced(source, [(found[name], value) for name, value in values.items()])


def replaced(
    source: str, changes: Iterable[tuple[Constant, Value]], finished: Callable[[str], str] | None = None
) -> str:
    """The source with new values in the places of these constants; every other character stays.

    Args:
        finished: What another language than Python makes of the text of a value.
    """
    for one, value in sorted(changes, key=lambda change: change[0].start, reverse=True):
        text = written(value, one.text)
        source = source[: one.start] + (finished(text) if finished else text) + source[one.end :]
    return source


def written(value: Value, like: str = "") -> str:
    """The value as text in the style of `like`: with underscores, as a power such as `2**18`, in the same quotes."""
    if isinstance(value, str):
        return _quoted(value, like)
    if isinstance(value, bool):
        return str(value).lower() if like in ("true", "false") else str(value)
    if not math.isfinite(value):
        raise ValueError(f"there is no literal for {value}")
    if isinstance(value, int) and value > 0 and value.bit_count() == 1 and (power := _POWER_OF_TWO.fullmatch(like)):
        return f"{power[1]}{value.bit_length() - 1}"
    return format(value, "_" if "_" in like else "")


def number_of(text: str) -> float | int | None:
    """The number that a Python source would have for this text; None if it is none."""
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if isinstance(value, bool | str) else value


def _quoted(text: str, like: str) -> str:
    """The text in the quotes of `like`; as it is if `like` has none."""
    quote = like[:1] if like[:1] in ("'", '"') else ""
    if not like or (quote and (quote in text or "\\" in text or not text.isprintable())):
        return json.dumps(text)  # Python, YAML and TOML read it alike
    return f"{quote}{text}{quote}"


def _bindings(tree: ast.Module) -> Counter[str]:
    """How often each name is bound at module level; each `global` declaration in a function counts as one."""
    counts: Counter[str] = Counter()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _SCOPES):
            counts.update(name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names)
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            counts[node.id] += 1
        waiting.extend(ast.iter_child_nodes(node))
    return counts


def _value(node: ast.expr) -> Value | None:
    """The value of a literal or of plain arithmetic, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | str):
        return node.value
    try:
        number = _number(node)
        return number if number is not None and math.isfinite(number) else None
    except ArithmeticError:
        return None


def _number(node: ast.expr) -> float | int | None:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            positive = _number(inner)
            return None if positive is None else -positive
        case ast.BinOp(left=left, op=operation, right=right):
            a, b = _number(left), _number(right)
            return None if a is None or b is None else _combine(a, operation, b)
    return None


def _combine(a: float, operation: ast.operator, b: float) -> float | int | None:
    if isinstance(operation, ast.Pow):
        if not 0 <= a < 2**_MOST_BITS or abs(b) > _MOST_BITS:
            return None
        power: float | int = a**b
        return power
    if isinstance(operation, ast.LShift):
        return a << b if isinstance(a, int) and isinstance(b, int) and 0 <= b <= _MOST_BITS else None
    known = _ARITHMETIC.get(type(operation))
    return None if known is None else known(a, b)
