"""What a search may vary: values of exactly the editable files, in the ranges that a user states."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import cmaes  # noqa: F401 - numpy cannot be loaded again by each session in this process
import numpy  # noqa: F401
import optuna  # noqa: F401
import pytest
from repo import Repo

from pytest_autoresearch.source import space, stated_ranges
from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.space import Space
from pytest_autoresearch.source.stated_ranges import Choices, Interval, parse

PYTHON = textwrap.dedent("""\
    import argparse
    RATE = 0.1  # search: 1e-4..1e-1 log
    DEPTH = 8  # search: 4..12
    ACT = "relu"  # search: relu, gelu
    NAME = "left alone"
    small = 0.3  # search: 0.1..0.5
    other = 0.3
    SEED = 3  # search: 1..9
    WIDTH = 64  # search: off
    parser = argparse.ArgumentParser()
    parser.add_argument("-b", "--batch-size", type=int, default=32,  # search: 16, 32, 64
                        help="a batch")
    parser.add_argument("--decay", type=float, default=1)
    parser.add_argument("--opt", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--folder", default="data")
    parser.add_argument("--fast", action="store_true")
    """)
YAML = (
    "opt:\n  lr: 3e-4  # search: 1e-5..1e-2 log\n  betas: [0.9, 0.95]\n  on: true\n  name: adam # search: adam, sgd\n"
)
TOML = "[a.b]\nrate = 1e-3 # search: 1e-5..1e-2 log\nname = 'x'\n[c]\ntext = '''\nrate = 1e-3\n'''\n[[d]]\ndepth = 4\n"


def read(source: str, path: str = "train.py", command: str = "python train.py", **table: str) -> Space:
    ranges = {name.replace("_", "-"): parse(said) for name, said in table.items()}
    return space.read({path: source.encode()}, ranges, command.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4..1e-1 log", Interval(1e-4, 1e-1, True)),
        ("4..12", Interval(4, 12)),
        ("-1.0 .. 1", Interval(-1.0, 1)),
        ("2**4..2**8 log", Interval(16, 256, True)),
        ("32, 64, 128", Choices((32, 64, 128))),
        ("relu, 'gelu', \"silu\"", Choices(("relu", "gelu", "silu"))),
        ("true, False", Choices((True, False))),
        ("off", Choices(())),
    ],
)
def test_a_range_is_read_from_its_text(text: str, expected: stated_ranges.Range) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("2..1", "write the smaller number first"),
        ("1..1", "no width"),
        ("0..1 log", "must begin above 0"),
        ("a..b", "is no range"),
        ("1..true", "is no range"),
        ("32", "leaves no choice"),
        ("32,,64", "is no range"),
        ("", "is no range"),
        (3, "is no range"),
        ([], "is no range"),
    ],
)
def test_a_bad_range_is_a_sentence(given: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(given)


def test_python_values_have_the_ranges_of_their_comments() -> None:
    found = read(PYTHON)
    near = found.near
    assert not found.mistakes
    assert near.keys() == {"RATE", "DEPTH", "ACT", "small", "SEED", "--batch-size", "--decay", "--opt"}
    assert (near["RATE"][0], near["RATE"][-1], len(near["RATE"])) == (1e-4, 1e-1, 33)
    assert near["DEPTH"] == tuple(range(4, 13))
    assert (near["ACT"], near["--opt"]) == (("relu", "gelu"), ("adam", "sgd"))
    assert near["--batch-size"] == (16, 32, 64)
    assert near["small"][0] == 0.1
    assert near["small"][-1] == 0.5
    assert all(isinstance(value, float) for value in near["--decay"])
    assert "NAME" not in found.present  # a record has no texts that nothing varies
    assert found.present["WIDTH"] == 64


@pytest.mark.parametrize(
    ("path", "source", "changes", "expected"),
    [
        ("train.py", PYTHON, {"ACT": "gelu", "--batch-size": 64, "--decay": 0.5, "RATE": 5e-4},
         PYTHON.replace('"relu"', '"gelu"').replace("default=32", "default=64").replace("default=1)", "default=0.5)")
         .replace("RATE = 0.1 ", "RATE = 0.0005 ")),
        ("c.yaml", YAML, {"opt.lr": 5e-5, "opt.on": False, "opt.name": "sgd"},
         YAML.replace("3e-4 ", "5.0e-05 ").replace("true", "false").replace("adam #", "sgd #")),
        ("c.toml", TOML, {"a.b.rate": 5e-5}, TOML.replace("1e-3 #", "5e-05 #")),
    ],
)  # fmt: skip
def test_an_edit_changes_these_values_and_nothing_else(
    path: str, source: str, changes: dict[str, Value], expected: str
) -> None:
    found = read(source, path)
    assert changes.keys() <= found.near.keys()
    assert dict(found.edited(changes)) == {path: expected.encode()}
    assert {name: read(expected, path).present[name] for name in changes} == changes


def test_configuration_files_are_searched_without_lists_and_lines_that_only_look_like_keys() -> None:
    assert read(YAML, "c.yml").present == {"opt.lr": 3e-4, "opt.on": True, "opt.name": "adam"}
    assert read(TOML, "c.toml").present == {"a.b.rate": 1e-3}
    assert not read("- a\n- [", "c.yaml").present
    odd = space.read({"c.yaml": b"a: \xff1\n"}, {}, ())
    assert not odd.present
    assert not odd.unreadable


def test_an_option_that_the_training_command_sets_is_left_alone() -> None:
    assert "--decay" not in read(PYTHON, command="python train.py --decay 0.2").near
    assert "--batch-size" not in read(PYTHON, command="python train.py -b=8").near


def test_the_table_goes_before_the_comment() -> None:
    assert read(PYTHON, DEPTH="2, 3").near["DEPTH"] == (2, 3, 8)
    assert "DEPTH" not in read(PYTHON, DEPTH="off").near


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("RATE = 0.1  # search: 2..1\n", r"train\.py: # search: behind RATE: .* smaller number first"),
        ("RATE = True  # search: 1..2\n", r"RATE = True is a switch"),
        ("DEPTH = 8  # search: 0.5..2\n", r"DEPTH = 8 is a whole number"),
        ("DEPTH = 8  # search: relu, gelu\n", r"DEPTH = 8 is a number, and its choices are not"),
        ("def f():\n    x = 1  # search: 1..2\n", r"train\.py, line 2: # search: 1\.\.2: it stands behind no value"),
    ],
)
def test_a_range_that_does_not_fit_is_a_mistake(source: str, why: str) -> None:
    found = read(source)
    assert len(found.mistakes) == 1
    assert re.search(why, found.mistakes[0])


def test_a_comment_on_its_own_line_is_prose() -> None:
    assert not read("# search: the best one\nRATE = 0.1\n").mistakes


def test_a_bad_comment_of_a_kept_edit_leaves_the_suggested_range() -> None:
    assert read("RATE = 0.1  # search: nonsense, \n").near == read("RATE = 0.1\n").near


CONSTANTS = "print('step 1 loss: 2.5')\nprint('---')\nprint('val_bpb:', 1.0)\n"


def prepared(repo: Repo, editable: str, **files: str) -> None:
    for name, text in files.items():
        repo.write(name.replace("__", "/").replace("_py", ".py"), text)
    repo.write("conftest.py", "RATE_OF_CONFTEST = 1.0\n")
    (repo.path / "pytest.ini").write_text(f"[pytest]\nautoresearch_editable = {editable}\n")
    repo.commit("A program in files")


@pytest.mark.parametrize(
    ("editable", "seen"),
    [("src", {"IN_SRC", "IN_MODEL"}), ("*.py", {"IN_TRAIN"}), ("train.py src/*", {"IN_TRAIN", "IN_SRC", "IN_MODEL"})],
)
def test_the_search_reads_exactly_what_the_guard_lets_a_proposal_edit(
    repo: Repo, editable: str, seen: set[str]
) -> None:
    prepared(
        repo, editable, train_py=f"IN_TRAIN = True\n{CONSTANTS}", src__a_py="IN_SRC = True\n",
        src__model__gpt_py="IN_MODEL = True\n", setup_py="IN_SETUP = True\n", experiments__more_py="IN_RULES = True\n",
    )  # fmt: skip
    (repo.path / "link.py").symlink_to("src/a.py")
    repo.commit("With a link")
    repo.run("--max", "1", "--autoresearch-proposer", "search", "--autoresearch-confirm", "off")
    assert repo.records()[1].proposal.parameters.keys() == seen


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('[tool.autoresearch.search]\nRATE = "2..1"\n', "RATE: the range '2..1' has no width"),
        ('[tool.autoresearch.search]\nRATTE = "1..2"\n', "names RATTE, which is no value of the editable files"),
        ('[tool.autoresearch]\nserach = 1\n', "there is no table [tool.autoresearch.serach]"),
        ('[tool.autoresearch]\nsearch = 1\n', "it is no table"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_table_is_told_before_anything_is_touched(repo: Repo, table: str, why: str) -> None:
    prepared(repo, "train.py", train_py=f"RATE = 1.0\n{CONSTANTS}")
    (repo.path / "pyproject.toml").write_text(table)
    repo.commit("A table")
    result = repo.run("--max", "1", "--autoresearch-proposer", "search")
    assert result.ret == 4
    assert why in result.stderr.str() + result.stdout.str()
    assert not (repo.path / "results.tsv").exists()


def test_an_ini_key_states_ranges_and_one_constant_has_one(repo: Repo, tmp_path: Path) -> None:
    prepared(repo, "train.py", train_py=f"RATE = 1.0\nOTHER = 1.0\n{CONSTANTS}")
    ini = "[pytest]\nautoresearch_search =\n  RATE = 5.0, 6.0\n  OTHER = off\n"
    (repo.path / "pytest.ini").write_text(ini)
    repo.commit("Ranges")
    repo.run("--max", "3", "--autoresearch-proposer", "search", "--autoresearch-confirm", "off")
    assert sorted(record.proposal.description for record in repo.records()[1:]) == [
        "RATE 1.0 -> 5.0", "RATE 1.0 -> 6.0"
    ]  # fmt: skip
    (repo.path / "pyproject.toml").write_text('[tool.autoresearch.search]\nRATE = "1..2"\n')
    repo.commit("Twice")
    result = repo.run("--max", "1", "--autoresearch-proposer", "search", "--autoresearch-tag", "u")
    assert "RATE has two ranges: delete one" in result.stderr.str() + result.stdout.str()
