"""Capital-letter constants are found and replaced, and not one other character of the source changes."""

from __future__ import annotations

import ast
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch.source import constants

BYSTANDERS = [
    "import math",
    'text = "日本 FAKE = 3 \x0c"',
    '"""A docstring:\nFAKE = 4  # é\n"""',
    "def f():\n    LOCAL = 5\n    return LOCAL",
    "TUPLE = (0.8, 0.95)",
    'NAME = "ü"; lower = 6',
    "TWICE = 1\nTWICE = 2",
    "\x0c",
    "",
]
LITERALS = [
    *(
        "0",
        "7",
        "-3",
        "- 4",
        "262_144",
        "0x10",
        "2**18",
        "(2 ** 19)",
        "1 << 4",
        "64  *  1024",
        "(1)+2",
        "True",
        "False",
    ),
    *("0.6", "3e-4", "-2.5E+3", "1_000.5", ".5", "1.", "1e-3 * 2"),
]
comments = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(
    st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 40).map(lambda power: 2**power),
)  # fmt: skip


@st.composite
def sources(draw: st.DrawFn) -> tuple[str, int]:
    """A source of a few constants among other statements, and how many constants it has."""
    count = draw(st.integers(1, 6))
    lines = []
    for number in range(count):
        lines += draw(st.lists(st.sampled_from(BYSTANDERS), max_size=2))
        name = f"{draw(st.sampled_from(['LR', 'BETA_', 'Ü', '_N']))}{number}"
        annotation = draw(st.sampled_from(["", ": float", " :  'é'"]))
        equals = draw(st.sampled_from(["=", " = ", "  =\t", " = \\\n  "]))
        comment = draw(st.sampled_from(["", " # " + draw(comments), ";", "; é = 'ß'"]))
        lines.append(f"{name}{annotation}{equals}{draw(st.sampled_from(LITERALS))}{comment}")
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    return "\n".join(lines).replace("\n", end) + draw(st.sampled_from(["", end])), count


def between(source: str) -> list[str]:
    """The source without its constants: what must never change."""
    found = constants.find(source)
    ends = [0, *(constant.end for constant in found)]
    starts = [*(constant.start for constant in found), len(source)]
    return [source[end:start] for end, start in zip(ends, starts, strict=True)]


@settings(deadline=None)  # a busy machine is no failure
@given(sources(), st.data())
def test_editing_gives_the_new_values_and_leaves_every_other_character(
    made: tuple[str, int], data: st.DataObject
) -> None:
    source, count = made
    before = constants.find(source)
    assert len(before) == count
    names = data.draw(st.lists(st.sampled_from([constant.name for constant in before]), unique=True))
    values = {name: data.draw(numbers) for name in names}

    edited = constants.edit(source, values)

    after = constants.find(edited)
    assert between(edited) == between(source)
    assert [constant.name for constant in after] == [constant.name for constant in before]
    for old, new in zip(before, after, strict=True):
        value = values.get(old.name, old.value)
        assert (type(new.value), new.value) == (type(value), value)
        assert new.name in values or new.text == old.text


@settings(deadline=None)  # a busy machine is no failure
@given(sources())
def test_what_is_found_is_what_python_computes(made: tuple[str, int]) -> None:
    source, _ = made
    module: dict[str, object] = {"é": None}
    exec(source.replace("import math", ""), module)
    for constant in constants.find(source):
        assert module[constant.name] == constant.value
        assert type(module[constant.name]) is type(constant.value)


def test_a_commented_table_of_hyperparameters_keeps_its_shape() -> None:
    source = (
        "# Überschrift\r\n"
        "DEPTH      = 8       # Schichten → größer\r\n"
        "BATCH      = 2**18   # tokens\r\n"
        "WARM_ROWS  = 10_000\r\n"
        "LR: float  = 3e-4\r\n"
        "TIED       = True\r\n"
    )
    values = {"DEPTH": 9, "BATCH": 2**17, "WARM_ROWS": 12_000, "LR": 0.00041, "TIED": False}

    assert constants.edit(source, values) == (
        "# Überschrift\r\n"
        "DEPTH      = 9       # Schichten → größer\r\n"
        "BATCH      = 2**17   # tokens\r\n"
        "WARM_ROWS  = 12_000\r\n"
        "LR: float  = 0.00041\r\n"
        "TIED       = False\r\n"
    )


@pytest.mark.parametrize(
    "source",
    [
        "lower = 1",
        "A = B = 1",
        "A, B = 1, 2",
        "A = 'x'",
        "A = 1j",
        "A = 1e999",
        "A = None",
        "A: int",
        "A = not True",
        "A = 2 * lower",
        "A = 9**9**9",
        "A = 1 << 10**9",
        "A = 1 / 0",
        "A = (-8) ** 0.5",
        "A = (2  # two\n     * 3)",
        "__A__ = 1",
        "if True:\n    A = 1",
        "A = 1\nif A:\n    A = 2",
        "A = 1\nA += 1",
        "A = 1\nfor A in range(3): pass",
        "A = 1\ndef f():\n    global A\n    A = 2",
        "class C:\n    A = 1",
    ],
)
def test_what_is_no_single_number_is_left_out(source: str) -> None:
    assert constants.find(source) == ()


def test_a_local_name_does_not_hide_the_constant_of_the_module() -> None:
    assert [constant.value for constant in constants.find("B = 4\ndef f(x):\n    B, T = x.shape\n")] == [4]


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0.0031, "3e-4", "0.0031"),
        (1e-5, "0.1", "1e-05"),
        (200000.0, "10000.0", "200000.0"),
        (20000.0, "10_000.0", "20_000.0"),
        (131072, "262_144", "131_072"),
        (131072, "262144", "131072"),
        (512, "1 << 8", "1 << 9"),
        (513, "2**9", "513"),
        (0.5, "2**9", "0.5"),
        (True, "2**9", "True"),
        (-1, "1", "-1"),
    ],
)
def test_a_number_is_written_as_a_person_would(value: constants.Value, like: str, text: str) -> None:
    assert constants.written(value, like) == text
    assert ast.literal_eval(text) == value if "<" not in text else True


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_without_a_literal_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="literal"):
        constants.edit("A = 1.0", {"A": value})


def test_a_source_that_python_cannot_parse_is_a_syntax_error() -> None:
    for source in ("A = = 1", "A = 1\0", "def f(:\n"):
        with pytest.raises(SyntaxError):
            constants.find(source)


def test_an_invalid_escape_in_somebodys_string_is_no_error_where_warnings_are() -> None:
    assert [constant.name for constant in constants.find("A = 1\npattern = '\\d'\n")] == ["A"]
