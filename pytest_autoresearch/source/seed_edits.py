"""Finds the seeds of a program in its syntax trees and replaces them by a placeholder.

After that, two programs that differ only in their seeds have equal trees. A seed is a value that is used only to seed:
in a call that seeds, as a parameter or argument named seed, or in a variable named seed that nothing else reads. A
value that is also used for something else is not a seed, whatever its name. Pure: modifies the trees.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"(.*_)?(seed|random_state)", re.IGNORECASE)
_BLIND = "@seed"
# Calls whose first argument is a seed. These two names only count after `random.`, as in `np.random.seed`.
_SEEDS_OF_RANDOM = frozenset({"seed", "key"})
_SEEDS_ALONE = frozenset({"default_rng", "Random", "RandomState", "SeedSequence"})  # without an argument: random
# Calls that seed a global generator; their result is not used.
_GLOBAL = frozenset({"manual_seed", "manual_seed_all", "seed", "set_seed", "seed_everything"})
_SEEDS = (_GLOBAL - {"seed"}) | _SEEDS_ALONE | {"PCG64", "Philox", "MT19937", "PRNGKey"}
_ORDER = ("harness", "batches", 3)  # the position of the shuffle's seed in `harness.batches`
_PURE_CALLS = frozenset({"int", "abs", "hash", "str"})
_PURE_READS = frozenset({"os.getenv", "os.environ.get", "time.time", "time.time_ns", "os.getpid"})
_READS_NAMES = frozenset({"eval", "exec", "globals", "locals", "vars"})

_MOST_STEPS = 50  # rounds through names that are assigned to names; real programs need two or three

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in a tree where an expression is used as a seed.

    Attributes:
        holder: The node, or the list of nodes, that contains the expression.
        key: The field or the index of the expression in `holder`.
        name: The variable or parameter that receives the seed; empty if the expression goes directly into a call.
    """

    holder: Any
    key: str | int
    name: str = ""

    @property
    def expression(self) -> ast.expr:
        found = getattr(self.holder, self.key) if isinstance(self.key, str) else self.holder[self.key]
        assert isinstance(found, ast.expr)
        return found

    def put(self, expression: ast.expr) -> None:
        """Replace the expression."""
        if isinstance(self.key, str):
            setattr(self.holder, self.key, expression)
        else:
            self.holder[self.key] = expression


def blind(trees: list[ast.Module]) -> None:
    """Replace every seed of one program by a placeholder, in place; also undo a row order that a shuffle follows."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    program = _Program(nodes)
    slots = program.slots()
    for slot in _sound(slots, nodes, program):
        slot.put(_blinded(slot.expression, program))
    for call in program.calls:
        if program.is_order(call):
            call.args[0] = _rows(call.args[0])
    _drop_seeding(trees, program)


def _sound(slots: list[_Slot], nodes: list[ast.AST], program: _Program) -> list[_Slot]:
    """The slots whose seed is used for nothing else: its name is read only inside slots."""
    reads = {id(node): name for node in nodes if (name := program.read(node))}
    left = [slot for slot in slots if not (slot.name and program.is_open)]
    for _ in range(_MOST_STEPS):
        pure = [part for slot in left for part in _pure_parts(slot.expression, program)]
        covered = {id(node) for part in pure for node in ast.walk(part)}
        loose = {name for node, name in reads.items() if node not in covered}
        sound = [slot for slot in left if slot.name not in loose]
        if len(sound) == len(left):
            return sound
        left = sound
    return [slot for slot in slots if not slot.name]


def _pure_parts(node: ast.expr, program: _Program) -> Iterator[ast.expr]:
    """The parts of an expression that are only seeds: all of it, some summands, or some entries of a sequence."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if program.is_pure(one):
            yield one
        else:
            waiting += _parts(one)


def _parts(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [left, right]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return parts
    return []


def _blinded(node: ast.expr, program: _Program) -> ast.expr:
    """The expression with its seeds replaced. Other parts stay: in `seed + epoch`, the epoch matters."""
    mark = ast.Name(_BLIND, ast.Load())
    if program.is_pure(node):
        return mark
    if isinstance(node, ast.List | ast.Tuple):
        return ast.Tuple([*(_blinded(one, program) for one in node.elts if not program.is_pure(one)), mark], ast.Load())
    summands, waiting = list[ast.expr](), [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Add):
            waiting += [one.right, one.left]
        elif not program.is_pure(one):
            summands.append(one)
    return ast.Set([*summands, mark])  # a set, because no real seed is written as a set


class _Program:
    """Facts about the whole program that are needed to read one call.

    Attributes:
        calls: Every call.
        is_open: Whether the program looks up names as strings, so that any name may be read.
    """

    def __init__(self, nodes: list[ast.AST]) -> None:
        self._nodes = nodes
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        defined = [node for node in nodes if isinstance(node, _Function | ast.ClassDef)]
        times = Counter(node.name for node in defined)
        self._defined = {node.name: node if times[node.name] == 1 else None for node in defined}
        self._of_harness = {
            alias.asname or alias.name: alias.name
            for node in nodes if isinstance(node, ast.ImportFrom) and node.module == _ORDER[0] for alias in node.names
        }  # fmt: skip
        self.is_open = any(isinstance(node, ast.Name) and node.id in _READS_NAMES for node in nodes)
        self.imported = {
            (alias.asname or alias.name).partition(".")[0]
            for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
        }  # fmt: skip
        self._taken = {one.arg for node in nodes if isinstance(node, ast.arguments) for one in _all(node)}
        self._called = {id(call.func) for call in self.calls}

    def slots(self) -> list[_Slot]:
        """Every place where an expression is used as a seed."""
        found: list[_Slot] = []
        for node in self._nodes:
            match node:
                case ast.Call():
                    found += self._of_call(node)
                case ast.FunctionDef(args=given) | ast.AsyncFunctionDef(args=given) | ast.Lambda(args=given):
                    found += _of_parameters(given)
                case ast.Assign(targets=[target]) if name := _called(target):
                    found.append(_Slot(node, "value", name))
                case ast.AnnAssign(target=target, value=ast.expr()) if name := _called(target):
                    found.append(_Slot(node, "value", name))
        return found

    def _of_call(self, call: ast.Call) -> Iterator[_Slot]:
        path = dotted(call.func)
        own = self._defined.get(path)
        for keyword in call.keywords:
            if keyword.arg and _seed_name(keyword.arg):
                yield _Slot(keyword, "value", keyword.arg if keyword.arg in self._taken else "")
        if path.endswith(".add_argument") and call.args and (name := _option(call.args[-1])):
            yield from (_Slot(keyword, "value", name) for keyword in call.keywords if keyword.arg == "default")
        plain = next((at for at, one in enumerate(call.args) if isinstance(one, ast.Starred)), len(call.args))
        if path in self._defined:
            for at, name in enumerate(_parameters(own)[:plain]):
                if _seed_name(name):
                    yield _Slot(call.args, at, name)
        elif self.is_order(call):
            if plain > _ORDER[2]:
                yield _Slot(call.args, _ORDER[2])
        elif _seeds(path) and plain:
            yield _Slot(call.args, 0)
        elif path.rpartition(".")[2] in _SEEDS_ALONE and _seeds(path) and not call.args and not call.keywords:
            call.args.append(ast.Constant(None))
            yield _Slot(call.args, 0)

    def is_order(self, call: ast.Call) -> bool:
        """Whether the call asks the harness for rows in random order."""
        return bool(call.args) and self._harness(call.func) == _ORDER[1]

    def _harness(self, function: ast.expr) -> str:
        """The function's name in the harness; empty if it is not from the harness."""
        path = dotted(function)
        module, _, name = path.rpartition(".")
        return name if module == _ORDER[0] else self._of_harness.get(path, "")

    def read(self, node: ast.AST) -> str:
        """The name of a seed that is read here, else empty. A string counts, since it may name an attribute."""
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()) if (
                id(node) not in self._called
            ):
                return _seed_name(name)
            case ast.Constant(value=str(name)):
                return _seed_name(name)
            case ast.alias(name=name, asname=str(other)) if not _seed_name(other):
                return _seed_name(name)
        return ""

    def is_pure(self, node: ast.expr) -> bool:
        """Whether the expression is only a seed: constants, other seeds, and values from the environment or clock."""
        match node:
            case ast.Constant():
                return True
            case ast.Name() | ast.Attribute():
                return bool(self.read(node)) and not dotted(node).startswith(".")
            case ast.UnaryOp(operand=inner):
                return self.is_pure(inner)
            case ast.BinOp(left=left, right=right):
                return self.is_pure(left) and self.is_pure(right)
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                return all(self.is_pure(part) for part in parts)
            case ast.Subscript(value=whole, slice=ast.Constant()):
                return dotted(whole) == "os.environ"
            case ast.Call(func=function, args=parts, keywords=[]):
                path = dotted(function)
                known = path in _PURE_READS or (path in _PURE_CALLS and path not in self._defined)
                return (known and all(self.is_pure(part) for part in parts)) or (
                    not parts and self._harness(function) == "seed"
                )
        return False


def _option(node: ast.expr) -> str:
    """The attribute name of a command-line option if it is a seed's name, else empty."""
    text = node.value if isinstance(node, ast.Constant) else None
    return _seed_name(text.lstrip("-").replace("-", "_")) if isinstance(text, str) else ""


def _of_parameters(given: ast.arguments) -> Iterator[_Slot]:
    """The defaults of parameters named seed."""
    plain = [*given.posonlyargs, *given.args]
    for at, one in enumerate(plain[len(plain) - len(given.defaults) :]):
        if _seed_name(one.arg):
            yield _Slot(given.defaults, at, one.arg)
    for at, one in enumerate(given.kwonlyargs):
        if _seed_name(one.arg) and given.kw_defaults[at] is not None:
            yield _Slot(given.kw_defaults, at, one.arg)


def _all(given: ast.arguments) -> list[ast.arg]:
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def _parameters(defined: ast.AST | None) -> list[str]:
    """The names of the positional parameters of a function, or of a class's `__init__`."""
    match defined:
        case ast.FunctionDef(args=given) | ast.AsyncFunctionDef(args=given):
            return [one.arg for one in (*given.posonlyargs, *given.args)]
        case ast.ClassDef(body=body):
            made = next((one for one in body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
            return _parameters(made)[1:]
    return []


def _called(target: ast.expr) -> str:
    """The name of a seed that is bound here, else empty."""
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _seed_name(name)
    return ""


def _seed_name(name: str) -> str:
    """The name if it is a seed's name, else empty."""
    return name if _NAME.fullmatch(name) else ""


def dotted(node: ast.expr) -> str:
    """A dotted name such as `torch.cuda.manual_seed`; only `.manual_seed` if the left side is not a name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name() | ast.Attribute() as left, attr=name):
            return f"{dotted(left)}.{name}"
        case ast.Attribute(attr=name):
            return f".{name}"
    return ""


def _seeds(path: str) -> bool:
    parts = path.split(".")
    return parts[-1] in _SEEDS or (len(parts) > 1 and parts[-2] == "random" and parts[-1] in _SEEDS_OF_RANDOM)


def _rows(node: ast.expr) -> ast.expr:
    """The rows without `[::-1]`: they are shuffled anyway."""
    while isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "::-1":
        node = node.value
    return node


def _drop_seeding(trees: list[ast.Module], program: _Program) -> None:
    """Remove statements that seed a generator again at once, and those that seed it once at the program's start.

    A statement that seeds again later or in a loop stays: it makes random numbers repeat, so it matters.
    """

    def seeded(node: ast.AST) -> str:
        """The dotted name of the call if the statement is only a call that seeds, else empty."""
        match node:
            case ast.Expr(value=ast.Call(func=function, args=[ast.Name(id=name)], keywords=[])) if name == _BLIND:
                module, _, last = (path := dotted(function)).rpartition(".")
                known = last in _GLOBAL and path.partition(".")[0] in program.imported
                return path if known and (module or last != "seed") else ""
        return ""

    blocks = [(node, block) for tree in trees for node in ast.walk(tree) for block in _blocks(node)]
    for _, block in blocks:
        kept: list[ast.stmt] = []
        follows = set[str]()  # the seeding calls that follow this statement directly
        for one in reversed(block):
            path = seeded(one)
            if not path or path not in follows:
                kept.append(one)
            follows = follows | {path} if path else set()
        block[:] = reversed(kept)
    times = Counter(path for _, block in blocks for one in block if (path := seeded(one)))
    waiting: list[ast.AST] = [*trees]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.If | ast.Try | ast.With | ast.FunctionDef):
            for block in _blocks(node):
                block[:] = [one for one in block if times[seeded(one)] != 1]
                waiting += [one for one in block if not isinstance(one, ast.FunctionDef) or one.name == "main"]


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block
