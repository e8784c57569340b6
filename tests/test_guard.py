"""What a proposal may not be."""

from __future__ import annotations

import ast
import base64
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import attempt, git, judged

from pytest_autoresearch.core.errors import Refused
from pytest_autoresearch.core.experiment import Experiment, Proposal, Status
from pytest_autoresearch.core.file_change import FileChange
from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.source import guard, information
from pytest_autoresearch.source.editable import Editable, is_trusted

quick = settings(deadline=None)
IDEA = Proposal("Twice the rate")
EDITABLE = Editable(("train.py", "model/*.py"))


def changed(path: str = "train.py", kind: str = "M", regular: bool = True) -> FileChange:
    return FileChange(path, kind, regular)


def refused(changes: list[FileChange], editable: Editable = EDITABLE) -> str:
    with pytest.raises(Refused) as raised:
        guard.check_changes(IDEA, changes, editable)
    assert raised.value.proposal is IDEA
    assert raised.value.crash.reason == "refused"
    return str(raised.value)


def test_a_plain_edit_of_an_editable_file_passes() -> None:
    guard.check_changes(IDEA, [changed(), changed("model/layers.py", "A"), changed("model/old.py", "D")], EDITABLE)


def test_an_edit_that_changes_nothing_is_refused() -> None:
    assert refused([]) == "it changes nothing"


@pytest.mark.parametrize(
    "path",
    ["harness/scorer.py", "experiments/test_val_bpb.py", "conftest.py", ".gitattributes", "sub/train.py", "train.py.py",
     "TRAIN.py", "model/notes.md", "train.py\n", " train.py", "model/deep/er.py", "train.py\x1b[2J",
     "model/conftest.py", "model/sitecustomize.py", "model/Conftest.py"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["A", "M", "D", "T"])
def test_an_edit_of_any_other_path_is_refused_by_name(path: str, kind: str) -> None:
    said = refused([changed(), changed(path, kind)])
    shown = path.replace("\n", "?").replace("\x1b", "?")
    assert said == f"it changes {shown}; only train.py, model/*.py may change"


def test_a_link_a_mode_or_a_nested_repository_is_refused_even_where_text_may_change() -> None:
    said = refused([changed(regular=False)])
    assert said == "it changes the kind or the mode of train.py; only its text may change"


def test_a_file_may_not_become_a_folder_of_programs() -> None:
    """`python train.py` would run the `__main__.py` in it."""
    said = refused([changed("train.py", "D"), changed("train.py/__main__.py", "A")])
    assert said == "it makes train.py a folder; only its text may change"


@pytest.mark.parametrize("path", ["harness/metric.py", "experiments/test_val_bpb.py"])
def test_what_is_frozen_is_not_let_in_by_a_glob(path: str) -> None:
    guard.check_changes(IDEA, [changed(path)], Editable(("**/*.py",)))
    with pytest.raises(Refused, match=f"it changes {path}"):
        guard.check_changes(IDEA, [changed(path)], Editable(("**/*.py",), ("harness", "experiments")))


@pytest.mark.parametrize(
    ("path", "twin", "said"),
    [
        ("Train.py", "train.py", "it adds Train.py, the same name as train.py on some systems: use another name"),
        ("tr\u0430in.py", "", "it adds a file named 'tr\\u0430in.py': use plain ASCII letters"),
        ("torch\n.py", "", "it adds a file named 'torch\\n.py': use plain ASCII letters"),
        ("random.py", "", "it adds random.py, which would be imported instead of Python's random"),
    ],
)
def test_a_new_file_has_a_name_that_means_one_thing(path: str, twin: str, said: str) -> None:
    with pytest.raises(Refused) as raised:
        guard.check_changes(IDEA, [FileChange(path, "A", True, 10, twin)], Editable(("*.py",)))
    assert str(raised.value) == said
    guard.check_changes(
        IDEA, [FileChange("model/random.py", "A", True)], Editable(("model",))
    )  # of a package: model.random


def test_a_change_too_large_to_read_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refused, match=r"^train.py has 20,000,000 bytes; the limit is 524,288$"):
        guard.check_changes(IDEA, [FileChange("train.py", "M", True, 20_000_000)], EDITABLE)


@quick
@given(st.lists(st.text(max_size=8), max_size=4), st.lists(st.text(max_size=8), max_size=4))
def test_with_plain_names_exactly_those_are_editable(names: list[str], others: list[str]) -> None:
    names = [name for name in names if name and not set(name) & set("*?[./") and not is_trusted(name)]
    for path in (*names, *others):
        expected = path.partition("/")[0] in names and not any(map(is_trusted, path.split("/")))
        assert (path in Editable(tuple(names))) == expected


@pytest.mark.parametrize(
    ("path", "pattern", "editable"),
    [
        ("model/a.py", "model/*.py", True),
        ("model/a.py", "model", True),
        ("modelling/a.py", "model", False),
        ("train.py", "./train.py", True),
        ("model/a.txt", "model/*.py", False),
        ("a.py", "model/*.py", False),
        ("other/model/a.py", "model/*.py", False),
        ("model/A.py", "model/a.py", False),
        ("layer3.py", "layer[0-9].py", True),
        ("[x].py", "[x].py", True),
        ("harness/metric.py", "*.py", False),
        ("a/b/c.py", "**/*.py", True),
        ("c.py", "**/*.py", True),
        ("models/a.py", "model*", True),
        ("conftest.py", "*.py", False),
        ("conftest.py", "conftest.py", False),
        ("a/b/evil.pth", "a", False),
        (".gitattributes", "*", False),
        ("model/.git/config", "model", False),
    ],
)
def test_a_glob_is_read_as_a_glob(path: str, pattern: str, editable: bool) -> None:
    assert (path in Editable((pattern,))) == editable


# ----------------------------------------------------------------------------------------------------------- texts


def text_refused(path: str, text: bytes) -> Refused:
    with pytest.raises(Refused) as raised:
        guard.check_texts(IDEA, {path: text})
    return raised.value


@pytest.mark.parametrize(
    "text",
    [
        b"def f(:\n",
        b"x = 1\n  y = 2\n",
        b"\0",
        b"# -*- coding: no-such-thing -*-\n",
        b"'\xff'",
        b"(" * 1000,
        b"x = '\n",
    ],
)
def test_python_that_does_not_parse_is_a_syntax_crash(text: bytes) -> None:
    error = text_refused("train.py", text)
    assert error.crash.reason == "syntax"
    assert str(error).startswith("train.py does not parse, ")
    assert "\n" not in str(error)


def test_the_refusal_says_the_line_for_whoever_repairs_it() -> None:
    assert "line 2: " in str(text_refused("train.py", b"x = 1\ny = = 2\n"))


def test_only_python_is_parsed() -> None:
    guard.check_texts(IDEA, {"config.yaml": b"def f(:\n", "train.py": b"x = '\\d'  # an escape that Python warns of\n"})


def test_a_hidden_data_set_is_refused_by_its_size() -> None:
    guard.check_texts(IDEA, {"train.py": b"#" * guard.MOST_BYTES})
    error = text_refused("train.py", b"#" * (guard.MOST_BYTES + 1))
    assert str(error) == "train.py has 524,289 bytes; the limit is 524,288"
    assert error.crash.reason == "refused"


TEXT = b"rate = 1\n" * 20_000


def test_a_program_may_be_long_and_may_not_become_so_at_once() -> None:
    guard.check_texts(IDEA, {"train.py": TEXT + b"# one\n"}, {"train.py": TEXT})
    guard.check_texts(IDEA, {"train.py": b"x = 1\n"}, {"train.py": TEXT})
    with pytest.raises(Refused, match=r"^it adds 180,000 bytes; the limit is 65,536 a proposal$"):
        guard.check_texts(IDEA, {"train.py": b"x = 1\n", "model/a.py": TEXT}, {"train.py": b"x = 1\n"})


NOISE = base64.b85encode(random.Random(1).randbytes(64 * 1024))  # with as many bits as bytes * 6.4


@pytest.mark.parametrize(
    "hidden",
    [
        lambda data: b"# " + data + b"\n",
        lambda data: b"TEXT = '" + data.replace(b"'", b"").replace(b"\\", b"") + b"'\n",
        lambda data: b"".join(b"x%s = 1\n" % data[at : at + 20].hex().encode() for at in range(0, len(data), 20)),
    ],
    ids=["in a comment", "in a string", "in names"],
)
def test_data_in_a_program_are_refused_by_their_information(hidden: Callable[[bytes], bytes]) -> None:
    before = {"train.py": b"x = 1\n"}

    def adds(count: int) -> None:
        guard.check_information(IDEA, {"train.py": b"x = 1\n" + hidden(NOISE[:count])}, before, before)

    adds(15_000)
    with pytest.raises(Refused, match=r"bytes of information.*limit is 16,384 a proposal: propose code, not data"):
        adds(24_000)


def test_a_campaign_carries_little_more_than_a_proposal() -> None:
    first = {"train.py": b"x = 1\n"}
    now = {"train.py": b"x = 1\n# " + NOISE[:30_000]}
    with_more = {"train.py": now["train.py"] + NOISE[30_000:45_000]}
    guard.check_information(IDEA, with_more, now, now)
    with pytest.raises(Refused, match=r"the baseline has not, compressed; the limit is 32,768 a campaign: take out"):
        guard.check_information(IDEA, with_more, now, first)


def test_code_that_moves_or_that_repeats_itself_is_no_information() -> None:
    source = Path(guard.__file__).read_bytes()
    assert information.added({"a.py": source}, {"a.py": source}) == 0
    assert information.added({"a.py": source}, {"b.py": source}) < 100
    assert information.added({"a.py": source}, {"a.py": source * 3}) < 200
    assert information.added({}, {"a.py": source}) > 1000


@pytest.mark.parametrize("data", ["'" + "a" * 40_000 + "'", "b'" + "a" * 40_000 + "'", "[" + "7.," * 5_000 + "]"])
def test_data_in_a_program_are_refused_by_their_size(data: str) -> None:
    before = {"train.py": b"x = 1\n"}
    with pytest.raises(
        Refused, match=r"bytes of strings and numbers; the limit is 32,768 a proposal: propose code, not"
    ):
        guard.check_texts(IDEA, {"train.py": f"x = {data}\n".encode()}, before)
    with_data = {"train.py": f"x = {data}\n".encode()}
    guard.check_texts(IDEA, {"train.py": with_data["train.py"] + b"y = 1\n"}, with_data)  # they were there before


def test_an_editable_file_that_was_never_python_is_nobodys_fault() -> None:
    old = {"train.py": b"x = 1\n", "old.py": b"print 'x'\n"}
    guard.check_texts(IDEA, old | {"train.py": b"x = 2\n"}, old)


@quick
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_python_or_a_refusal(text: bytes) -> None:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        assert text_refused("train.py", text).crash.reason == "syntax"
    else:
        guard.check_texts(IDEA, {"train.py": text})


# -------------------------------------------------------------------------------------------------------- effect


def test_an_edit_without_effect_or_of_the_seed_alone_is_refused() -> None:
    before = {"train.py": b"import torch\ntorch.manual_seed(1)\nRATE = 1\n"}
    guard.check_effect(IDEA, before, {"train.py": b"import torch\ntorch.manual_seed(2)\nRATE = 2\n"})
    with pytest.raises(Refused, match=r"^it changes only comments, layout or names: the program stays the same$"):
        guard.check_effect(IDEA, before, {"train.py": before["train.py"] + b"# a remark\n"})
    with pytest.raises(Refused, match=r"^it changes only the seed or the order of the data, which the harness sets$"):
        guard.check_effect(IDEA, before, {"train.py": before["train.py"].replace(b"1)", b"2)")})


# ------------------------------------------------------------------------------------------------------- novelty


def test_a_program_that_was_tried_is_refused_with_its_number_and_verdict() -> None:
    tried = judged(attempt(7, program="7" * 40), Status.DISCARD)
    guard.check_new(IDEA, "8" * 40, [tried])
    with pytest.raises(Refused, match=r"^the same program was tried as 0007 \(so it is: discard\)$"):
        guard.check_new(IDEA, "7" * 40, [tried])


def test_the_baselines_own_program_is_refused() -> None:
    with pytest.raises(Refused, match="0000"):
        guard.check_new(IDEA, "d" * 40, [judged(attempt(0, program="d" * 40))])


def test_a_program_that_is_under_way_is_refused() -> None:
    with pytest.raises(Refused, match=r"0007 \(under way\)"):
        guard.check_new(IDEA, "7" * 40, [attempt(7, program="7" * 40)])


def test_a_refused_proposal_does_not_stand_for_the_tree_of_its_base() -> None:
    never_run = judged(
        attempt(7, program="7" * 40, refusal=Crash(CrashClass.REFUSED, "it changes nothing")), Status.CRASH
    )
    guard.check_new(IDEA, "7" * 40, [never_run])


def test_a_candidate_may_repeat_the_one_that_it_is_meant_to_repeat_and_no_other() -> None:
    stale = judged(attempt(7, program="7" * 40, commit="c" * 40), Status.DISCARD, "stale")
    guard.check_new(replace(IDEA, repeats="c" * 40), "7" * 40, [stale])
    other: Experiment = replace(stale, number=8, commit="e" * 40)
    with pytest.raises(Refused, match="0008"):
        guard.check_new(replace(IDEA, repeats="c" * 40), "7" * 40, [stale, other])


PATHS = ("train.py", "a.py", "b.txt", "conftest.py", "setup.py", "model/a.py", "model/b.txt", "model/deep/c.py",
         "model/conftest.py", "model/Setup.PY", "x.pth", "frozen/a.py", "frozen.py", "[x].py", "x.py", "modelling/a.py",
         ".gitignore", "model/train.py")  # fmt: skip


def test_git_finds_the_same_files_as_the_rule(tmp_path: Path) -> None:
    """A replayed commit, the header and the guard agree, also below the top of the repository."""
    git(tmp_path, "init", "-q")
    for path in PATHS:
        place = tmp_path / "sub" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    git(tmp_path, "add", "-fA")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x")
    listed = ("diff-tree", "--root", "-r", "--name-only", "--no-commit-id", "HEAD", "--")
    patterns = ("train.py", "./train.py", "model", "model/", "*.py", "**/*.py", "model/*.py", "**", ".", "model*",
                "x.py", "[x].py", "m*/**/c.py", "*/a.py", "conftest.py", "frozen", "missing")  # fmt: skip
    for pattern in patterns:
        rule = Editable((pattern,), ("frozen", "./frozen.py"))
        expected = sorted(path for path in PATHS if path in rule)
        assert git(tmp_path / "sub", *listed, *rule.pathspecs()).splitlines() == [f"sub/{path}" for path in expected], (
            pattern
        )
        below = rule.below(Path("sub"))
        assert sorted(path for path in PATHS if f"sub/{path}" in below) == expected, pattern
        assert git(tmp_path, *listed, *below.pathspecs()).splitlines() == [f"sub/{path}" for path in expected]


@pytest.mark.parametrize("path", ["experiments/test_a.py", "program.md", "harness/metric.py", "harness"])
def test_a_frozen_file_is_editable_under_no_pattern(path: str) -> None:
    frozen = ("harness", "experiments", "program.md")
    assert not any(path in Editable((pattern,), frozen) for pattern in (path, "**", ".", "*", "*/*"))
