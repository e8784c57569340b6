"""Compares programs by their syntax trees, without running them.

Pure: bytes in, answer out. Programs that it calls equal do the same; programs that it calls different may still do the
same. One exception on purpose: comments and docstrings are ignored even if the program reads its own source file.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import count

from pytest_autoresearch.source.seed_edits import blind
from pytest_autoresearch.source.syntax import parse

_READS_LOCALS = frozenset({"locals", "vars", "dir", "eval", "exec", "f_locals", "co_varnames"})
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_WORD = re.compile(r"\w+")


class Difference(StrEnum):
    """What an edit changes: nothing, only the seed, or the program."""

    NOTHING = "nothing"
    SEED = "seed"
    PROGRAM = "program"


def change(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Difference:
    """What an edit of these files changes; `before` and `after` are contents by path.

    An added or removed file counts as a change of the program. So does any changed byte of a file that is not Python.
    """
    if digest(before) == digest(after):
        return Difference.NOTHING
    if before.keys() != after.keys():
        return Difference.PROGRAM
    one, other = _trees(before), _trees(after)
    if one is None or other is None:
        return Difference.PROGRAM
    others = [path for path in before if not path.endswith(".py")]
    if any(before[path] != after[path] for path in others):
        return Difference.PROGRAM
    try:
        return Difference.SEED if _blind_digest(one) == _blind_digest(other) else Difference.PROGRAM
    except RecursionError:  # a deeply nested expression is not a seed
        return Difference.PROGRAM


def digest(files: Mapping[str, bytes]) -> str:
    """A fingerprint of 40 hexadecimal digits. Comments, layout, docstrings and names of local variables do not count.

    It is the same in every version of Python that parses the program to the same tree.
    """
    whole = hashlib.sha256()
    for path in sorted(files):
        text = files[path]
        try:
            form = written(parse(text)) if path.endswith(".py") else None
        except SyntaxError:
            form = None
        part = hashlib.sha256(text if form is None else form.encode("utf-8", "surrogatepass"))
        whole.update(f"{path}\0{form is None}\0{part.hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:40]


def size(files: Mapping[str, bytes]) -> int:
    """The size of a program: the number of nodes in its syntax trees plus the characters in its strings.

    Strings count by their length, so that moving code into a string does not make the program smaller. Comments, layout
    and unused docstrings do not count. A file that is not Python counts by its bytes.
    """
    total = 0
    for path, text in files.items():
        try:
            tree = parse(text) if path.endswith(".py") else None
        except SyntaxError:
            tree = None
        if tree is None:
            total += len(text)
            continue
        _drop_idle(tree)
        for node in ast.walk(tree):
            total += 1
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                total += len(node.value)
    return total


def _trees(files: Mapping[str, bytes]) -> dict[str, ast.Module] | None:
    try:
        return {path: parse(text) for path, text in files.items() if path.endswith(".py")}
    except SyntaxError:
        return None


def _blind_digest(trees: dict[str, ast.Module]) -> str:
    for tree in trees.values():
        _drop_idle(tree)
    blind(list(trees.values()))
    text = "\n".join(f"{path}\n{written(trees[path])}" for path in sorted(trees))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------------------------------------------- canonical form


def written(tree: ast.Module) -> str:
    """The program's canonical form: without comments, layout, docstrings and names of local variables.

    Modifies the tree. Not recursive, because a program may nest deeper than Python's own stack.
    """
    _drop_idle(tree)
    _rename_locals(tree)
    said: list[str] = []
    waiting: list[object] = [tree]
    while waiting:
        match waiting.pop():
            case str(text):
                said.append(text)
            case ast.Constant(value=value):
                # hex, because Python refuses to convert an int of several thousand digits to decimal.
                said.append(f"{type(value).__name__} {hex(value) if type(value) is int else repr(value)}")
            case ast.AST() as node:
                parts: list[object] = [f"({type(node).__name__}"]
                for name in node._fields:
                    value = getattr(node, name, None)
                    if value is not None and value != []:  # later versions of Python have more fields
                        parts += [f".{name}", value if isinstance(value, (ast.AST, list)) else repr(value)]
                waiting += [")", *reversed(parts)]
            case list(values):
                listed = [value if isinstance(value, ast.AST) else repr(value) for value in values]
                waiting += ["]", *reversed(listed), "["]
    return "\n".join(said)


def _drop_idle(tree: ast.Module) -> None:
    """Remove statements that do nothing: `pass`, bare constants, and docstrings if nothing mentions `__doc__`."""
    nodes = list(ast.walk(tree))
    named = (getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "value", None) for node in nodes)
    keeps = any(isinstance(name, str) and "__doc__" in name for name in named)
    for node in nodes:
        if isinstance(node, ast.JoinedStr):  # some Python versions put empty strings between the parts
            node.values = [one for one in node.values if getattr(one, "value", None) != ""]
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                block[:] = [one for at, one in enumerate(block) if not _is_idle(one) or (keeps and at == 0)]


def _is_idle(node: ast.AST) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _rename_locals(tree: ast.Module) -> None:
    """Replace the names of local variables by numbers, in each function where the names cannot matter."""
    numbers = count()
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        inside = [node for statement in function.body for node in ast.walk(statement)]
        if not _READS_LOCALS.isdisjoint(_identifiers(inside)):
            continue
        plain = _own_names(function) - _spoken(function, inside)
        new: dict[str, str] = {}
        for node in inside:
            if isinstance(node, ast.Name) and node.id in plain:
                if node.id not in new:
                    new[node.id] = f"@{next(numbers)}"
                node.id = new[node.id]


def _identifiers(nodes: list[ast.AST]) -> set[str]:
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _own_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Plain names that the function itself binds; inner scopes do not count."""
    found = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        if not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)
    return found


def _spoken(function: ast.FunctionDef | ast.AsyncFunctionDef, inside: list[ast.AST]) -> set[str]:
    """Names that may matter outside the function: parameters, imports, attributes of a class, words in strings."""
    found = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    for node in inside:
        if isinstance(node, ast.ClassDef):
            found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(_WORD.findall(node.value))
        if isinstance(node, ast.Attribute | ast.keyword | ast.Name | ast.Constant):
            continue
        for _, value in ast.iter_fields(node):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str):  # names in `def`, `import`, `except … as`, `global`, `case` and so on
                    found |= {one, one.partition(".")[0]}
    return found
