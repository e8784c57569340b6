"""Repositories that know nothing of us: no configuration, no rule, another metric."""

from __future__ import annotations

import re

import pytest
from repo import PROPOSE, Repo, with_one_and_two_lanes

UPSTREAM = """
import time
VAL_BPB = 0.9979
for step in range(3):
    print(f"\\rstep {step:05d} ({step / 3:.1%}) | loss: {3.0 - step:.6f} | dt: 1ms | remaining: 9s", end="", flush=True)
print()
print("---")
print(f"val_bpb:          {VAL_BPB:.6f}")
print("training_seconds: 300.1")
print("total_seconds:    325.9")
print("peak_vram_mb:     45060.2")
print("mfu_percent:      39.80")
print("total_tokens_M:   499.6")
print("num_steps:        953")
print("num_params_M:     50.3")
print("depth:            8")
"""

SORT = """
import random
GAP = 1
comparisons = 0

def less(a, b):
    global comparisons
    comparisons += 1
    return a < b

values = random.Random(0).sample(range(500), 500)
for gap in [1]:
    for i in range(gap, len(values)):
        while i >= gap and less(values[i], values[i - gap]):
            values[i], values[i - gap] = values[i - gap], values[i]
            i -= gap
assert values == sorted(values)
print(f"METRIC comparisons={comparisons}")
print(f"METRIC score={1e6 / comparisons}")
"""


def bare(repo: Repo, text: str, editable: str = "train.py") -> None:
    """Turn the repository into one without any trace of us but a way to propose."""
    for name in (
        "pytest.ini",
        "experiments/test_val_bpb.py",
        "tests/test_ordinary.py",
        "tests/conftest.py",
        "train.py",
    ):
        (repo.path / name).unlink()
    repo.write(editable, text)
    repo.commit("Knows nothing")


def test_an_upstream_repository_runs_without_configuration(repo: Repo) -> None:
    bare(repo, UPSTREAM)
    repo.write(
        "conftest.py",
        """
        from pytest_autoresearch import Proposal
        def pytest_autoresearch_propose(context):
            value = {1: 0.9971, 2: 1.0021}[context.number]
            train = context.folder / "train.py"
            train.write_text("".join(
                f"VAL_BPB = {value}\\n" if line.startswith("VAL_BPB") else line
                for line in train.read_text().splitlines(keepends=True)))
            return Proposal(f"set {value}")
        """,
    )
    repo.commit("Proposals")
    result = repo.run("--max", "2", "--autoresearch-lanes", "1")
    assert result.ret == 0, result.stdout.str()
    commits = [row.pop(0) for row in repo.rows()]
    assert all(re.fullmatch("[0-9a-f]{7}", commit) for commit in commits)
    assert (repo.path / "results.tsv").read_text().splitlines()[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert [row[1:] for row in repo.rows()] == [
        ["0.997900", "44.0", "keep", "baseline"],
        ["0.997100", "44.0", "keep", "set 0.9971"],
        ["1.002100", "44.0", "discard", "set 1.0021"],
    ]
    run = repo.records()[0].runs[0]
    assert run.metrics["num_steps"] == 953
    assert run.metrics["mfu_percent"] == 39.8
    assert run.reported == 0.9979
    assert {case.get("classname") for case in repo.cases().values()} == {"test_metric"}


@pytest.mark.parametrize(("metric", "direction"), [("comparisons", "minimize"), ("score", "maximize")])
@pytest.mark.parametrize("own_rule", [False, True])
def test_any_metric_in_either_direction(repo: Repo, metric: str, direction: str, own_rule: bool) -> None:
    bare(repo, SORT, "sort.py")
    repo.write("program.md", "Sort with fewer comparisons.\n")
    repo.write(
        "pytest.ini",
        f"""
        [pytest]
        autoresearch_command = python -S sort.py
        autoresearch_editable = sort.py
        autoresearch_metric = {metric}
        autoresearch_direction = {direction}
        """,
    )
    if own_rule:
        sign = "<" if direction == "minimize" else ">"
        repo.write(
            "experiments/test_sort.py",
            f"def test_sort(experiment):\n    assert experiment.{metric} {sign} experiment.best\n",
        )
    repo.write(
        "conftest.py",
        """
        from pytest_autoresearch import Proposal
        def pytest_autoresearch_propose(context):
            gaps = {1: "[1, 1]", 2: "[57, 23, 10, 4, 1]"}[context.number]
            sort = context.folder / "sort.py"
            sort.write_text(sort.read_text().replace("in [1]:", f"in {gaps}:"))
            return Proposal(f"gaps {gaps}")
        """,
    )
    repo.commit("A metric")
    result = repo.run("--max", "2")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep"}, result.stdout.str()
    first, _, last = repo.records()
    assert (last.metric < first.metric) == (direction == "minimize")
    assert (repo.path / "results.tsv").read_text().splitlines()[0].split("\t")[1] == metric
    assert last.verdict is not None
    assert last.verdict.gain is not None
    assert last.verdict.gain > 0


@with_one_and_two_lanes
def test_a_root_in_a_subfolder_of_the_repository(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo.path / "sub").mkdir()
    for name in ("train.py", "program.md", "conftest.py", "experiments", "pytest.ini", "tests"):
        repo.git("mv", name, f"sub/{name}")
    repo.write("sub/conftest.py", PROPOSE.replace('context.root / ".git"', 'context.root.parent / ".git"'))
    repo.commit("Down")
    repo.plan(0.9)
    monkeypatch.chdir(repo.path / "sub")
    result = repo.run("--max", "1")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert repo.statuses() == {0: "keep", 1: "keep"}
    assert (repo.path / "sub/results.tsv").exists()


@with_one_and_two_lanes
def test_a_rule_is_bundled_where_the_repository_has_none(repo: Repo) -> None:
    (repo.path / "experiments/test_val_bpb.py").unlink()
    repo.write("pytest.ini", "[pytest]\npython_files = check_*.py\nautoresearch_command = python -S train.py\n")
    repo.commit()
    repo.plan(0.9, 1.5)
    repo.run("--max", "2")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    text = str(repo.case(2).find("failure").get("message"))  # type: ignore[union-attr]
    assert "where -0." in text  # the assertion is explained: it was rewritten
    assert "<experiment 0002>.gain" in text


def searched(repo: Repo, editable: str, **files: str) -> str:
    """What a search in a repository with these editable files says; it makes two experiments if it can."""
    repo.write("conftest.py", "UNUSED = 4.0\n")
    for name, text in files.items():
        repo.write(f"{name.replace('_', '/')}.py", text)
    repo.write(
        "pytest.ini", f"[pytest]\nautoresearch_command = python -S train.py\nautoresearch_editable = {editable}\n"
    )
    repo.commit("Editable files")
    result = repo.spawn("--max", "2", "--autoresearch-proposer", "search")  # NumPy cannot be imported twice
    return result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("editable", "files", "changed"),
    [
        ("src", {"src_model": "WIDTH = 64\n", "src_conftest": "RATE = 0.5\n"}, {"src/model.py"}),
        ("*.py", {"setup": "DEPTH = 8\n", "loop": "WIDTH = 64\n"}, {"loop.py"}),
        ("**", {"experiments_rule": "MARGIN = 0.5\n", "a_b": "WIDTH = 64\n"}, {"a/b.py"}),
    ],
)
def test_the_search_changes_only_what_the_guard_accepts(
    repo: Repo, editable: str, files: dict[str, str], changed: set[str]
) -> None:
    said = searched(repo, editable, **files)
    assert len(repo.records()) == 3, said
    for record in repo.records()[1:]:
        assert record.refusal is None, said
        assert set(repo.git("diff", "--name-only", record.base, record.commit).split()) == changed


@pytest.mark.parametrize("editable", ["src", "src/*.py", "conf.yaml"])
def test_a_search_without_a_constant_is_refused_before_the_baseline(repo: Repo, editable: str) -> None:
    """The constants of other files, and those of a version that is not committed, are none."""
    repo.write("conf.yaml", "WIDTH = 64\n")
    repo.write("src/model.py", "width = 64\n")
    repo.commit("Small letters")
    repo.write("src/model.py", "WIDTH = 64\n")
    repo.write("src/new.py", "WIDTH = 64\n")
    repo.git("rm", "-q", "--cached", "-r", "tests")  # searched() commits everything
    repo.git("update-index", "--assume-unchanged", "src/model.py")
    repo.write(".gitignore", "src/new.py\n/tests/\n__pycache__/\nresults.*\n.pytest_cache/\n")
    said = searched(repo, editable)
    assert f"search finds no constant to vary in {editable}: write hyperparameters in capitals" in said
    assert repo.records() == []


@pytest.mark.parametrize(
    ("editable", "link", "target", "named"),
    [
        ("train.py", "train.py", "lib/train.py", "lib/train.py"),
        ("src/train.py", "src", "lib", "lib/train.py"),
        ("src", "src", "lib", "lib"),
    ],
)
def test_a_link_is_no_editable_file_and_the_file_to_name_is_said(
    repo: Repo, editable: str, link: str, target: str, named: str
) -> None:
    (repo.path / "lib").mkdir()
    repo.git("mv", "train.py", "lib/train.py")
    (repo.path / link).symlink_to(target)
    for pattern, status in ((editable, 4), (named, 0)):
        command = f"python -S {'src/' if link == 'src' else ''}train.py"
        ini = f"[pytest]\nautoresearch_command = {command}\nautoresearch_editable = {pattern}\n"
        repo.write("pytest.ini", ini)
        repo.write("conftest.py", PROPOSE.replace('context.folder / "train.py"', 'context.folder / "lib/train.py"'))
        repo.commit("Editable files")
        repo.plan(0.9)
        result = repo.run("--max", "1")
        assert result.ret == status, result.stdout.str()
    first = (
        f"autoresearch_editable names {editable}, which is a link to {named}, and a proposal changes only plain files"
    )
    assert repo.statuses() == {0: "keep", 1: "keep"}
    repo.write("pytest.ini", f"[pytest]\nautoresearch_editable = {editable}\n")
    assert f"{first}: name {named} there instead" in repo.run("--max", "1").stderr.str()
