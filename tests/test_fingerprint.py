"""Which programs are the same, and which differ in a seed alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch.source import fingerprint
from pytest_autoresearch.source.fingerprint import Difference

quick = settings(deadline=None, max_examples=25)
SMALL = '''
"""A training script in little."""
import harness, torch
import numpy as np
SEED = 42  # a seed
RATE = 0.1
STEPS = 10
SEED_SHARE = 3
SIZES = {"small": (2, 96), "large": (4, 128)}

@torch.no_grad()
def loss(model, x, scale=2.0):
    """The loss."""
    total = model(x, 5).sum()
    return total / scale

torch.manual_seed(SEED)
noise = np.random.default_rng([7, STEPS])  # a seed
model = torch.nn.Linear(STEPS, 1)
for step, (x, y) in enumerate(harness.batches(harness.begin(), 8, "cpu", harness.seed())):
    if step > STEPS * 2 - SEED_SHARE:
        break
    loss(model, x).backward()
    torch.nn.functional.dropout(x, p=0.5)
print("val_bpb:", 1.0)
'''
TRAIN = (Path(__file__).parent.parent / "train.py").read_text()


def change(before: str, after: str) -> Difference:
    """What an edit of one file comes to."""
    return fingerprint.change({"train.py": dedent(before).encode()}, {"train.py": dedent(after).encode()})


# ------------------------------------------------------------------------------------------------ nothing that runs


@quick
@given(st.data())
def test_comments_blank_lines_and_bare_constants_change_nothing(data: st.DataObject) -> None:
    lines = SMALL.split("\n")
    # Anywhere but before a line that goes on with the one above it.
    places = [at for at in range(2, len(lines)) if not lines[at].startswith((" ", ")", "def loss"))]
    for at in sorted(data.draw(st.lists(st.sampled_from(places), max_size=5, unique=True)), reverse=True):
        lines.insert(
            at, data.draw(st.sampled_from(["# a remark", "", "pass", "'a remark'", "...", "   # \t indented"]))
        )
    edited = "\n".join(lines)
    assert change(SMALL, edited) is Difference.NOTHING
    assert change(SMALL, edited.replace("harness.seed())", "harness.seed() + 1)")) is Difference.SEED
    assert change(SMALL, edited.replace("RATE = 0.1", "RATE = 0.2")) is Difference.PROGRAM


@quick
@given(st.data())
def test_whatever_number_is_changed_it_is_no_seed_but_where_it_seeds(data: st.DataObject) -> None:
    tree = ast.parse(SMALL)
    numbers = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) in (int, float)]
    number = data.draw(st.sampled_from(numbers))
    seeds = "# a seed" in SMALL.split("\n")[number.lineno - 1]
    number.value = data.draw((st.integers() | st.floats(allow_nan=False)).filter(lambda value: value != number.value))
    assert change(SMALL, ast.unparse(tree)) is (Difference.SEED if seeds else Difference.PROGRAM)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "# -*- coding: utf-8 -*-\nx = (1)  # one\n"),
        ("x = 0x10; y = 1_000; z = 'a' 'b'", 'x = 16\ny = 1000\nz = "ab"'),
        ("def f():\n    return 1", "def f():\n    '''One.'''\n    return 1"),
        ("class A: x: int = 1", "class A:\n    'An A.'\n    x: int = 1\n"),
        ("def f(): pass", "def f():\n    ..."),
        ("if a:\n    b()", "if a:\n    b()\nelse:\n    pass"),
        ("def f(n):\n    total = n\n    return total", "def f(n):\n    result = n\n    return result"),
        ("def f():\n    a = 1\n    return lambda: a", "def f():\n    b = 1\n    return lambda: b"),
        ("def f(v):\n    return [i for i in v]", "def f(v):\n    return [j for j in v]"),
    ],
)
def test_these_change_nothing_that_runs(before: str, after: str) -> None:
    assert change(before, after) is Difference.NOTHING


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = 0.0", "x = -0.0"),
        ("x = f'{1}'", "x = '{1}'"),
        ("def f(n): return n", "def f(m): return m"),  # f(n=1)
        ("def f():\n    global a\n    a = 1", "def f():\n    global b\n    b = 1"),
        ("def f():\n    a = 1\n    return locals()", "def f():\n    b = 1\n    return locals()"),
        ("def f():\n    a = 1\n    return b", "def f():\n    b = 1\n    return b"),
        ("def f():\n    a = 1\n    eval('a')", "def f():\n    b = 1\n    eval('a')"),
        ("def f():\n    a = 1\n    query('@a')", "def f():\n    b = 1\n    query('@a')"),
        ("def f():\n    a = 1\n    class C: a = a", "def f():\n    b = 1\n    class C: b = b"),
        ("def f():\n    import a\n    a = a", "def f():\n    import b\n    b = b"),
        ("def f():\n    'one'\nprint(f.__doc__)", "def f():\n    'two'\nprint(f.__doc__)"),
        ("a = b", "b = a"),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
        ("x = [[1], 2]", "x = [[1, 2]]"),
        ("f(a, *b)", "f(a, b)"),
        ("from . import a", "from .. import a"),
    ],
)
def test_these_do(before: str, after: str) -> None:
    assert change(before, after) is Difference.PROGRAM


# --------------------------------------------------------------------------------------------------------- the seed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("torch.manual_seed(0)", "torch.manual_seed(1337)"),
        ("torch.manual_seed(seed=0)", "torch.manual_seed(seed=2**20 - 1)"),
        ("torch.cuda.manual_seed_all(1)", "torch.cuda.manual_seed_all(2)"),
        ("np.random.seed(1)", "np.random.seed(int(time.time()))"),
        ("random.seed('a')", "random.seed('b')"),
        ("r = random.Random(0)", "r = random.Random(1)"),
        ("r = np.random.default_rng()", "r = np.random.default_rng(3)"),
        ("r = np.random.default_rng([3, epoch])", "r = np.random.default_rng([4, epoch])"),
        ("r = np.random.default_rng(3 + epoch)", "r = np.random.default_rng(epoch + 4)"),
        ("g = torch.Generator().manual_seed(0)", "g = torch.Generator().manual_seed(1)"),
        ("k = jax.random.PRNGKey(0)", "k = jax.random.PRNGKey(1)"),
        ("k = jax.random.key(0)", "k = jax.random.key(1)"),
        ("f(x, seed=1)", "f(x, seed=2)"),
        ("f(x, random_state=None)", "f(x, random_state=2)"),
        ("import harness\nb = harness.batches(r, 8, d, harness.seed())",
         "import harness\nb = harness.batches(r, 8, d, 7)"),
        ("b = harness.batches(r, 8, d, s)", "b = harness.batches(r[::-1], 8, d, s)"),
        ("from harness import batches, seed\nb = batches(r, 8, d, seed())",
         "from harness import batches, seed\nb = batches(r, 8, d, seed() * 31 + 1)"),
        ("SEED = 42\ntorch.manual_seed(SEED)", "SEED = 43\ntorch.manual_seed(SEED)"),
        ("SEED = 42\ntorch.manual_seed(SEED + 1)\nnp.random.seed(SEED)",
         "SEED = 7\ntorch.manual_seed(SEED)\nnp.random.seed(SEED)"),
        ("class C:\n    seed: int = 1\ntorch.manual_seed(C.seed)",
         "class C:\n    seed: int = 2\ntorch.manual_seed(C.seed)"),
        ("def f(seed=1): torch.manual_seed(seed)", "def f(seed=2): torch.manual_seed(seed)"),
        ("def f(a, seed): torch.manual_seed(seed)\nf(1, 2)", "def f(a, seed): torch.manual_seed(seed)\nf(1, 3)"),
        ("class T:\n    def __init__(self, seed): self.r = random.Random(seed)\nT(harness.seed())",
         "class T:\n    def __init__(self, seed): self.r = random.Random(seed)\nT(int(os.environ['MINE']))"),
        ("p.add_argument('--seed', type=int, default=1)\na = p.parse_args()\nrandom.seed(a.seed)",
         "p.add_argument('--seed', type=int, default=2)\na = p.parse_args()\nrandom.seed(a.seed)"),
        ("import torch\nmodel()", "import torch\ntorch.manual_seed(7)\nmodel()"),
        ("import torch\ndef main():\n    model()", "import torch\ndef main():\n    torch.manual_seed(7)\n    model()"),
        ("import torch\ndef f():\n    torch.manual_seed(1)",
         "import torch\ndef f():\n    torch.manual_seed(1)\n    torch.manual_seed(2)"),
    ],
)  # fmt: skip
def test_a_seed_alone_is_recognised_in_both_directions(before: str, after: str) -> None:
    assert change(before, after) is Difference.SEED
    assert change(after, before) is Difference.SEED
    assert change(before, f"{after}\nx = 1") is Difference.PROGRAM


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SEED = 1\ntorch.manual_seed(SEED)\nRATE = SEED * 0.1",
         "SEED = 2\ntorch.manual_seed(SEED)\nRATE = SEED * 0.1"),
        ("SEED = 1\nx = words[:SEED]", "SEED = 2\nx = words[:SEED]"),
        ("SEED = 1\nprint(eval('SE' + 'ED'))", "SEED = 2\nprint(eval('SE' + 'ED'))"),
        ("SEED = 1\nx = getattr(train, 'SEED')", "SEED = 2\nx = getattr(train, 'SEED')"),
        ("SEED_LENGTH = 8", "SEED_LENGTH = 9"),
        ("SPEED = 8", "SPEED = 9"),
        ("def f(seed): return seed * rate\nf(1)", "def f(seed): return seed * rate\nf(2)"),
        ("def f(seed=1): return seed * rate", "def f(seed=2): return seed * rate"),
        ("torch.manual_seed(seed)", "torch.manual_seed(train(seed))"),
        ("r = default_rng(seed)", "r = default_rng([seed, epoch])"),  # another order in every epoch
        ("r = default_rng(seed + epoch)", "r = default_rng(seed + 0 * epoch)"),
        ("r = default_rng([epoch, step])", "r = default_rng(epoch + step)"),
        ("import torch\nfor x in y:\n    step()", "import torch\nfor x in y:\n    torch.manual_seed(1)\n    step()"),
        ("import torch\ndef f():\n    step()", "import torch\ndef f():\n    torch.manual_seed(1)\n    step()"),
        ("import torch\ntorch.manual_seed(1)\na()\nb()",
         "import torch\ntorch.manual_seed(1)\na()\ntorch.manual_seed(1)\nb()"),
        ("def set_seed(n): global RATE; RATE = n", "def set_seed(n): global RATE; RATE = n\nset_seed(3)"),
        ("b = harness.batches(r, 8, d, s)", "b = harness.batches(r, 9, d, s)"),
        ("b = harness.batches(r, 8, d, s)", "b = harness.batches(r[:100], 8, d, s)"),
        ("b = other.batches(r, 8, d, 1)", "b = other.batches(r, 8, d, 2)"),
        ("x = random.sample(a, 3)", "x = random.sample(a, 4)"),
        ("torch.manual_seed(1)\nLR = 1", "torch.manual_seed(2)\nLR = 2"),
        ("from a import SEED as s\nx = s", "from a import SEED as t\nx = t"),
    ],
)  # fmt: skip
def test_what_is_more_than_a_seed_is_not_taken_for_one(before: str, after: str) -> None:
    assert change(before, after) is Difference.PROGRAM


@pytest.mark.parametrize(
    "edit",
    [
        ("Trainer(profile, harness.seed())", "Trainer(profile, 1337)"),
        ("Trainer(profile, harness.seed())", "Trainer(profile, harness.seed() + 1)"),
        ("torch.manual_seed(seed)", "torch.manual_seed(seed ^ 0xBEEF)"),
        ("torch.manual_seed(seed)", "torch.manual_seed(seed)  # lucky\n        torch.manual_seed(7)"),
        ("trainer.device, harness.seed())", "trainer.device, 3)"),
    ],
)
def test_another_seed_in_this_repositorys_own_training_script_is_recognised(edit: tuple[str, str]) -> None:
    assert edit[0] in TRAIN
    assert change(TRAIN, TRAIN.replace(*edit)) is Difference.SEED
    assert change(TRAIN, TRAIN.replace(*edit).replace("MLP_RATIO = 4.0", "MLP_RATIO = 3.0")) is Difference.PROGRAM


# ------------------------------------------------------------------------------------------------- files and digests


def test_a_seed_that_another_file_of_the_program_reads_is_followed_there() -> None:
    one = {"train.py": b"SEED = 1\nimport random\nr = random.Random(SEED)\n"}
    reads = {"model.py": b"from train import SEED\nRATE = SEED * 0.1\n"}
    other = {"train.py": one["train.py"].replace(b"1", b"2")}
    assert fingerprint.change(one, other) is Difference.SEED
    assert fingerprint.change(one | reads, other | reads) is Difference.PROGRAM


def test_a_file_that_comes_or_goes_and_any_byte_of_another_kind_of_file_is_a_change() -> None:
    one = {"train.py": b"x = 1\n", "config.yaml": b"a: 1\n"}
    assert fingerprint.change(one, one | {"empty.py": b""}) is Difference.PROGRAM
    assert fingerprint.change(one, {"train.py": b"x = 1\n"}) is Difference.PROGRAM
    assert fingerprint.change(one, one | {"config.yaml": b"a: 1 # one\n"}) is Difference.PROGRAM
    assert fingerprint.change(one, one | {"train.py": b"x = 1 # one\n"}) is Difference.NOTHING


def test_a_digest_is_the_same_in_every_process_and_version() -> None:
    program = {"train.py": b"def f(a, *, b=None) -> int:\n    'An f.'\n    c = f'{a!r:>{b}}'\n    return {**a, 1: c}\n"}
    assert fingerprint.digest(program) == "763d2b49ea0c0d731bd90eab16615c3512a7cf64"
    assert fingerprint.digest({"model.py": program["train.py"]}) != fingerprint.digest(program)


@pytest.mark.parametrize("text", ["x = " + "1 + " * 900 + "1", "x = " + hex(2**50_000), "x = '\\ud800'", "x = '\\d'"])
def test_a_program_that_is_hard_to_read_is_still_compared(text: str) -> None:
    assert change(f"{text}\nfrom random import Random\nRandom(1)", f"{text}\nfrom random import Random\nRandom(2)") in (
        Difference.SEED,
        Difference.PROGRAM,
    )
    assert change(text, f"{text} # said\n") is Difference.NOTHING
    assert change(text, f"{text}\ny = 1") is Difference.PROGRAM


@quick
@given(st.text(max_size=30) | st.from_regex(re.compile(r"(seed|f|=|\(|\)|\[|1|\n|,){1,12}"), fullmatch=True))
def test_any_text_is_compared_without_an_error_and_is_the_same_as_itself(text: str) -> None:
    raw = {"train.py": text.encode("utf-8", "surrogatepass")}
    assert fingerprint.change(raw, raw) is Difference.NOTHING
    assert fingerprint.change(raw, {"train.py": raw["train.py"] + b"\nx = 1\n"}) is Difference.PROGRAM


def test_a_program_is_as_large_as_its_syntax_and_its_strings() -> None:
    def size(text: str) -> int:
        return fingerprint.size({"train.py": text.encode()})

    plain = size("a = 1\nb = a + 2\n")
    assert size('"""A page of words."""\na = 1  # one\n\n\nb = a + 2\n') == plain
    assert size("a = 1\nb = a + 2\nc = 3\n") > plain
    assert size("exec('a = 1; b = a + 2')\n") > plain  # nothing is gained by hiding code in a string
    assert size("a = 'xxxxxxxxxx'") == size("a = 'x'") + 9
    assert fingerprint.size({"notes.txt": b"12345"}) == fingerprint.size({"broken.py": b"def ("}) == 5
