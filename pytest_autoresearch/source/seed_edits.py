"""Where a program seeds its random numbers: found in syntax trees, and made blind so that two seeds look the same.

A seed is found by where it goes: into a call that seeds, into a parameter or an argument called seed, into a name that
says seed and that nothing else reads. A number that goes anywhere else as well is no seed, whatever its name. Pure:
trees in, trees changed.
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
# Calls whose first argument seeds: by their last name; and by their last two, where one name says too little.
_SEEDS_OF_RANDOM = frozenset({"seed", "key"})
_SEEDS_ALONE = frozenset({"default_rng", "Random", "RandomState", "SeedSequence"})  # without an argument, by the clock
# Calls that seed the generator that everything draws from, and give back nothing of use.
_GLOBAL = frozenset({"manual_seed", "manual_seed_all", "seed", "set_seed", "seed_everything"})
_SEEDS = (_GLOBAL - {"seed"}) | _SEEDS_ALONE | {"PCG64", "Philox", "MT19937", "PRNGKey"}
_ORDER = ("harness", "batches", 3)  # the harness shuffles rows: its argument at this place says how
_PURE_CALLS = frozenset({"int", "abs", "hash", "str"})
_PURE_READS = frozenset({"os.getenv", "os.environ.get", "time.time", "time.time_ns", "os.getpid"})
_READS_NAMES = frozenset({"eval", "exec", "globals", "locals", "vars"})

_MOST_STEPS = 50  # from name to name: a person's seed takes two or three

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in a tree where an expression becomes a seed.

    Attributes:
        holder: The node, or the list of nodes, that holds the expression.
        key: Its field there, or its index.
        name: The name that is read later, where the seed goes no further by itself; else empty.
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
        """Replace it."""
        if isinstance(self.key, str):
            setattr(self.holder, self.key, expression)
        else:
            self.holder[self.key] = expression


def blind(trees: list[ast.Module]) -> None:
    """Make every seed of one program the same, in place; and the row order that a shuffle follows upon."""
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
    """The slots whose seed goes nowhere else: no name on its way is read outside of a slot."""
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
    """The parts of a seed that are nothing else: the whole, some summands, some entries of a sequence."""
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
    """A seed without its number. What else it is made of stays: `seed + epoch` is another seed in every epoch."""
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
    return ast.Set([*summands, mark])  # a kind of its own: no seed is written as a set


class _Program:
    """What must be known of the whole program to read one call in it.

    Attributes:
        calls: Every call.
        is_open: Whether it looks names up by their text, so that any of them may be read.
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
        """Every place where something becomes a seed."""
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
        """What the function is called in the harness; empty where it is another's."""
        path = dotted(function)
        module, _, name = path.rpartition(".")
        return name if module == _ORDER[0] else self._of_harness.get(path, "")

    def read(self, node: ast.AST) -> str:
        """The name that says seed and that is read here, else empty. A string may be an attribute's name."""
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
        """Whether the expression is nothing but a seed: numbers, other seeds, and what is read from outside."""
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
    """The attribute that a command line's option becomes, where it says seed; else empty."""
    text = node.value if isinstance(node, ast.Constant) else None
    return _seed_name(text.lstrip("-").replace("-", "_")) if isinstance(text, str) else ""


def _of_parameters(given: ast.arguments) -> Iterator[_Slot]:
    """The defaults of parameters called seed."""
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
    """The names of a function's plain parameters, or of those that a class is made with."""
    match defined:
        case ast.FunctionDef(args=given) | ast.AsyncFunctionDef(args=given):
            return [one.arg for one in (*given.posonlyargs, *given.args)]
        case ast.ClassDef(body=body):
            made = next((one for one in body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
            return _parameters(made)[1:]
    return []


def _called(target: ast.expr) -> str:
    """The name that says seed and that is bound here, else empty."""
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _seed_name(name)
    return ""


def _seed_name(name: str) -> str:
    """The name where it says seed, else empty."""
    return name if _NAME.fullmatch(name) else ""


def dotted(node: ast.expr) -> str:
    """A chain of names as it is written, such as `torch.cuda.manual_seed`; the last name alone behind anything else."""
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
    """The rows, not reversed: they are shuffled next."""
    while isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "::-1":
        node = node.value
    return node


def _drop_seeding(trees: list[ast.Module], program: _Program) -> None:
    """Take out statements that seed what is seeded there already, and those that seed a program once, at its start.

    What seeds again, later or in a loop, makes random numbers repeat: that is more than another seed.
    """

    def seeded(node: ast.AST) -> str:
        """The call that seeds, where the statement is that and nothing else; else empty."""
        match node:
            case ast.Expr(value=ast.Call(func=function, args=[ast.Name(id=name)], keywords=[])) if name == _BLIND:
                module, _, last = (path := dotted(function)).rpartition(".")
                known = last in _GLOBAL and path.partition(".")[0] in program.imported
                return path if known and (module or last != "seed") else ""
        return ""

    blocks = [(node, block) for tree in trees for node in ast.walk(tree) for block in _blocks(node)]
    for _, block in blocks:
        kept: list[ast.stmt] = []
        follows = set[str]()  # what the statements after this one seed, with nothing else between
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
