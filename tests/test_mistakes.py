"""What a user's mistake gets: one sentence that says what to type, exit status 4, and nothing changed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from places import attempt, git, judged
from repo import Repo

from pytest_autoresearch.core.experiment import Direction, Proposal
from pytest_autoresearch.core.run import Limits
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.ledger.ratchet import Ratchet

pytestmark = pytest.mark.timeout(20)  # a mistake that is not seen may run for ever


def state(repo: Repo) -> dict[str, object]:
    """All that a session could have changed."""
    there = (repo.path / ".git").exists()
    ignored = (".git", "__pycache__", ".pytest_cache")
    return {
        "checkout": repo.checkout_hash(),
        "files": sorted(str(path) for path in repo.path.rglob("*") if not any(part in ignored for part in path.parts)),
        "refs": (repo.path / ".git/HEAD").exists() and git(repo.path, "for-each-ref"),
        "lanes": sorted(path.name for path in (repo.path / ".git/autoresearch").glob("*") if path.is_dir()),
        "worktrees": sorted(path.name for path in (repo.path / ".git/worktrees").glob("*")) if there else [],
    }


def sentence(result: pytest.RunResult) -> str:
    """The one sentence of a run that ended with a mistake."""
    lines = [*result.outlines, *result.errlines]
    text = "\n".join(lines)
    assert result.ret == pytest.ExitCode.USAGE_ERROR, text
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text
    said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    assert len(said) == 1, text
    if said[0].startswith("usage: "):  # argparse's form, as for any option of pytest
        (said,) = ([line.partition(": error: ")[2]] for line in result.errlines if ": error: " in line)
        return said[0]
    after = result.errlines[result.errlines.index(f"ERROR: {said[0]}") + 1 :]
    assert not any(after), text  # one line, whole
    return said[0]


def mistake(repo: Repo, *arguments: str) -> str:
    """What a command line gets that is a mistake, or is given in a repository that has one."""
    before = state(repo)
    said = sentence(repo.pytester.runpytest_inprocess(*repo.arguments(*arguments)))
    assert state(repo) == before
    return said


def ini(repo: Repo, *lines: str) -> None:
    """Add to pytest.ini, committed."""
    with (repo.path / "pytest.ini").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    repo.commit("A setting")


def types(repo: Repo, said: str) -> None:
    """Type what the sentence says in backquotes, where the user is."""
    subprocess.run(said.split("`")[1], shell=True, cwd=repo.path, check=True, capture_output=True)


def ready(repo: Repo) -> None:
    """Nothing is wrong any more."""
    result = repo.pytester.runpytest_inprocess(*repo.arguments("--collect-only", "-q"))
    assert result.ret == 0, result.stderr.str()


# ----------------------------------------------------------------------------------------------- the command line

ARGUMENTS = {
    "--max -1": "argument --max: -1: give a whole number, 0 for no limit",
    "--max x": "argument --max: x: give a whole number, 0 for no limit",
    "--max 1.5": "argument --max: 1.5: give a whole number, 0 for no limit",
    "--max ''": "argument --max: : give a whole number, 0 for no limit",
    "--autoresearch-total 0": "argument --autoresearch-total: 0: give a whole number, 1 or more",
    "--autoresearch-total x": "argument --autoresearch-total: x: give a whole number, 1 or more",
    "--autoresearch-lanes 0": "argument --autoresearch-lanes: 0: give a whole number, 1 or more, or auto",
    "--autoresearch-budget 0": "argument --autoresearch-budget: 0: give a number of seconds, more than 0",
    "--autoresearch-budget -5": "argument --autoresearch-budget: -5: give a number of seconds, more than 0",
    "--autoresearch-budget nan": "argument --autoresearch-budget: nan: give a number of seconds, more than 0",
    "--autoresearch-budget 5m": "argument --autoresearch-budget: 5m: give a number of seconds, more than 0",
    "--autoresearch-hours 0": "argument --autoresearch-hours: 0: give a number of hours, more than 0",
    "--autoresearch-target low": "argument --autoresearch-target: low: give a number of the metric's unit",
    "--autoresearch-vram nan": "argument --autoresearch-vram: nan: give a number of gigabytes, more than 0",
    "--autoresearch-vram inf": "argument --autoresearch-vram: inf: give a number of gigabytes, more than 0",
    "--autoresearch-vram 0": "argument --autoresearch-vram: 0: give a number of gigabytes, more than 0",
    "--autoresearch-proposer commits:nowhere..": "--autoresearch-proposer commits:nowhere..: there is no commit "
    "nowhere here: see `git branch --all` for what there is, or fetch it first",
    "--autoresearch-proposer claude": "argument --autoresearch-proposer: claude: choose auto, anthropic, "
    "command:COMMAND, queue, commits:A..B, checkout, search, search:cmaes or mix:NAME=SHARE,NAME=SHARE",
    "--autoresearch-cost 0": "argument --autoresearch-cost: 0: give a number of US dollars, more than 0",
    "--autoresearch-cost 5": "--autoresearch-cost limits the cost of the Anthropic API or of an agent, but the "
    "proposer is search: leave it out, or type --autoresearch-proposer anthropic",
    "--autoresearch-repairs -1": "argument --autoresearch-repairs: -1: give a whole number, 0 for never",
    "--autoresearch-agent-seconds soon": "argument --autoresearch-agent-seconds: soon: give a number of seconds, more "
    "than 0",
    "--autoresearch-proposer command:": "--autoresearch-proposer command: names no program: type, for example, "
    '"command:claude -p"',
    "--autoresearch-discard pass": "argument --autoresearch-discard: invalid choice: pass (choose from fail, xfail)",
    "--autoresearch-racing no": "argument --autoresearch-racing: invalid choice: no (choose from auto, on, off)",
    "--autoresearch-confirm twice": "argument --autoresearch-confirm: 'twice' is neither off, lean, standard, strict "
    "nor a number of confirmations (1 or more)",
    "--autoresearch-propser queue": "there is no option --autoresearch-propser: did you mean "
    "--autoresearch-proposer?",
    "--autoresearch-budegt 5": "there is no option --autoresearch-budegt: did you mean --autoresearch-budget?",
    "--autoresearch-tags x": "there is no option --autoresearch-tags: did you mean --autoresearch-tag?",
    "--autorsearch-hours 5": "there is no option --autorsearch-hours: did you mean --autoresearch-hours?",
    "--budget 5": "there is no option --budget: did you mean --autoresearch-budget?",
    "--autoresearch-colour 5": "unrecognized arguments: --autoresearch-colour",
    "--mx 5": "unrecognized arguments: --mx",
    "--autoresearch_total=3": "there is no option --autoresearch_total: did you mean --autoresearch-total?",
    "-n 4": "--autoresearch cannot be combined with -n: experiments run on their own lanes, not on xdist's workers: "
    "leave it out",
    "--reruns 2": "--autoresearch cannot be combined with --reruns: an experiment is judged once: leave it out",
    "-f": "--autoresearch cannot be combined with -f: a campaign continues by itself: leave it out",
    "--tx 2*popen --dist load": "--autoresearch cannot be combined with --tx: experiments run on their own lanes, not "
    "on xdist's workers: leave it out",
    "--lf": "--autoresearch cannot be combined with --lf: a number is never used twice, so there is nothing to rerun: "
    "leave it out",
    "--ff": "--autoresearch cannot be combined with --ff: a number is never used twice, so there is nothing to run "
    "first: leave it out",
    "--nf": "--autoresearch cannot be combined with --nf: experiments run by number: leave it out",
    "--sw": "--autoresearch cannot be combined with --sw: a discard is a result, and the next number continues "
    "after it: leave it out",
    "--pdb": "--autoresearch cannot be combined with --pdb: a campaign runs unattended: leave it out",
    "--trace": "--autoresearch cannot be combined with --trace: a campaign runs unattended: leave it out",
    "--junitxml=report.html": "--junitxml and the page of the session would both write report.html: give --junitxml "
    "another file name",
    "--log-file=./results.tsv": "--log-file and the table of experiments would both write ./results.tsv: give "
    "--log-file another file name",
    "--junitxml=a --log-file=a": "--log-file and --junitxml would both write a: give --log-file another file name",
    "--log-file=results.xml": "--log-file and --junitxml would both write results.xml: give --log-file another file "
    "name",
    "train.py": "--autoresearch runs only the rules in experiments/: leave out train.py",
    "tests": "--autoresearch runs only the rules in experiments/: leave out tests",
    "tests/test_ordinary.py": "--autoresearch runs only the rules in experiments/: "
    "leave out tests/test_ordinary.py",
}  # fmt: skip


@pytest.mark.parametrize("given", ARGUMENTS)
def test_a_wrong_argument(repo: Repo, given: str) -> None:
    # From Python 3.12 on, argparse puts no quotes around choices.
    assert mistake(repo, *shlex.split(given)).replace("'", "") == ARGUMENTS[given].replace("'", "")


@pytest.mark.parametrize(
    "tag", ["a b", "..", "a..b", "-x", "x.lock", "x/y", "x.", ".x", "é", "x\n", "@{", "refs/heads/x", "x" * 300]
)
def test_a_tag_that_can_name_no_branch(repo: Repo, tag: str) -> None:
    before = state(repo)
    said = sentence(repo.pytester.runpytest_inprocess("--autoresearch", f"--autoresearch-tag={tag}"))
    assert state(repo) == before
    assert said.startswith("--autoresearch-tag ")
    assert "use letters, digits, '.', '_' and '-'" in said


def test_a_part_of_several_tests(repo: Repo) -> None:
    repo.rule("def test_a(experiment): pass\ndef test_b(experiment): pass\n")
    (repo.path / "results.xml").touch()  # pytest's own, which it writes in any case
    said = mistake(repo, "-k", "test_a", "--junitxml=results.xml")
    assert said.startswith("experiment 0000: only 1 of its 2 tests are selected, but they decide together: select")


CONFIGURED = {
    "-n 4": ("-n: experiments run on their own lanes, not on xdist's workers", "-n 0"),
    "--reruns 2": ("--reruns: an experiment is judged once", "--reruns 0"),
    "--lf": ("--lf: a number is never used twice, so there is nothing to rerun", ""),
    "--ff": ("--ff: a number is never used twice, so there is nothing to run first", ""),
    "--sw": ("--sw: a discard is a result, and the next number continues after it", ""),
    "--pdb": ("--pdb: a campaign runs unattended", ""),
}


@pytest.mark.parametrize("given", CONFIGURED)
def test_an_excluded_option_in_the_configuration(repo: Repo, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is right for ordinary tests, so the sentence says what to type beside it."""
    why, undo = CONFIGURED[given]
    said = f"--autoresearch cannot be combined with {why}: "
    ini(repo, f"addopts = {given}")
    place = "addopts in pytest.ini"
    more = (
        f"{place} has it, so type `{undo}` as well"
        if undo
        else f"take it out of {place}, or type `-o addopts=` as well"
    )
    assert mistake(repo) == said + more
    undone = repo.arguments("--collect-only", *shlex.split(undo or "-o addopts="))
    assert repo.pytester.runpytest_inprocess(*undone).ret == 0
    assert mistake(repo, *shlex.split(given)) == f"{said}leave it out"  # typed as well
    monkeypatch.setenv("PYTEST_ADDOPTS", given)
    more = f"PYTEST_ADDOPTS has it, so type `{undo}` as well" if undo else "take it out of PYTEST_ADDOPTS"
    assert mistake(repo) == said + more


# -------------------------------------------------------------------------------------------------------- settings

SETTINGS = {
    "autoresearch_direction = sideways": "autoresearch_direction = sideways: choose minimize or maximize",
    "autoresearch_max = many": "autoresearch_max = many: give a whole number, 0 for no limit",
    "autoresearch_audit = perhaps": "autoresearch_audit = perhaps: give true or false",
    "autoresearch_exit = zero": "autoresearch_exit = zero: choose session, progress or strict",
    "autoresearch_comand = python train.py": "pytest.ini: there is no ini key autoresearch_comand: did you mean "
    "autoresearch_command?",
    "autoresearch_budegt = 5": "pytest.ini: there is no ini key autoresearch_budegt: did you mean autoresearch_budget?",
    "autoreserch_max = 5": "pytest.ini: there is no ini key autoreserch_max: did you mean autoresearch_max?",
    "autoresearch_colour = 5": "pytest.ini: there is no ini key autoresearch_colour: `pytest --help` lists all",
    "autoresearch_proposer = claude": "autoresearch_proposer = claude: choose auto, anthropic, command:COMMAND, "
    "queue, commits:A..B, checkout, search, search:cmaes or mix:NAME=SHARE,NAME=SHARE",
    "autoresearch_editable = model.py": "there is no model.py: write and commit one, or name the file that "
    "experiments may change in the ini key autoresearch_editable",
    "autoresearch_editable = train.py conftest.py": "autoresearch_editable names conftest.py, but the verdict "
    "depends on that file and no proposal may change it: remove it from the list",
    "autoresearch_metric = best": "autoresearch_metric = best: an experiment has another attribute of this name: "
    "choose another",
    "autoresearch_describe = no-such-program --json": "autoresearch_describe: No such file or directory "
    "(no-such-program --json): correct it in the configuration",
    "autoresearch_describe = python -c 'raise SystemExit(3)'": "autoresearch_describe failed (see above): run "
    "`python -c 'raise SystemExit(3)'` until it prints JSON",
    "autoresearch_describe = python -c '": "autoresearch_describe = \"python -c '\" cannot be split into words (No "
    "closing quotation): check its quotes",
}  # fmt: skip


@pytest.mark.parametrize("line", SETTINGS)
def test_a_wrong_setting(repo: Repo, line: str) -> None:
    ini(repo, line)
    assert mistake(repo) == SETTINGS[line]


@pytest.mark.parametrize("command", ["no-such-program train.py", "./train.sh", "/no/such/python train.py"])
def test_a_training_command_that_starts_no_program(repo: Repo, command: str) -> None:
    repo.write("pytest.ini", f"[pytest]\nautoresearch_command = {command}\n")
    repo.commit()
    assert mistake(repo) == (
        f"the training command {command!r} starts no program on PATH: correct the ini key autoresearch_command"
    )


@pytest.mark.parametrize("words", ["PYTHONPATH=. python train.py", "A=1 B='x y' python train.py"])
def test_a_training_command_that_only_a_shell_understands(repo: Repo, words: str) -> None:
    repo.write("pytest.ini", f"[pytest]\nautoresearch_command = {words}\n")
    repo.commit()
    said = mistake(repo)
    assert said == (
        f"the training command begins with {words.split()[0]}, which only a shell understands: set "
        f"autoresearch_command = env {shlex.join(shlex.split(words))}"
    )
    repo.write("pytest.ini", f"[pytest]\n{said.partition(': set ')[2]}\n")
    repo.commit()
    ready(repo)


@pytest.mark.parametrize("where", ["--timeout=60", "timeout = 60"])
def test_a_timeout_that_ends_every_run_before_its_budget(repo: Repo, where: str) -> None:
    arguments = [where] if where.startswith("--") else []
    ini(repo, "autoresearch_budget = 60", *([] if arguments else [where]))
    assert mistake(repo, *arguments) == (
        "pytest-timeout's timeout of 60 s ends a run before its 60 s of training are over: type --timeout 180, or set "
        "a smaller autoresearch_budget"
    )
    repo.plan(0.9)
    assert repo.run("--max", "1", "--timeout", "180").ret == 0


@pytest.mark.parametrize(
    "printed",
    [
        b"", b"hello", b"[1]", b"3", b"null", b"{", b"\xff\xfe", b'{"budget_seconds": "long"}',
        b'{"budget_seconds": 0}', b'{"budget_seconds": NaN}', b'{"memory_limit_mb": -1}', b'{"environment": ["x"]}',
        b'{"score": 3}', b'{"score": "python -m score"}',
    ],
)  # fmt: skip
def test_a_description_that_makes_no_sense(repo: Repo, printed: bytes) -> None:
    (repo.path / "description").write_bytes(printed)
    ini(repo, "autoresearch_describe = cat description")
    said = mistake(repo)
    assert said.startswith("autoresearch_describe: `cat description` printed no JSON description (")


@pytest.mark.parametrize("pattern", ["model/*.py", "train.p[y]"])
def test_a_glob_of_editable_files_is_no_mistake(repo: Repo, pattern: str) -> None:
    repo.write("model/layers.py", "WIDTH = 4\n")
    ini(repo, f"autoresearch_editable = train.py {pattern}")
    ready(repo)


def test_a_glob_that_matches_nothing(repo: Repo) -> None:
    ini(repo, "autoresearch_editable = train.py model/*.py")
    assert mistake(repo).startswith("there is no model/*.py: ")


QUEUE = "the proposer queue takes patches from {}/, which has no *.patch or *.diff file: put one there, such as with "


@pytest.mark.parametrize("folder", ["experiments", "rules/mine"])
def test_a_queue_without_patches(repo: Repo, folder: str) -> None:
    (repo.path / "conftest.py").write_text("")
    ini(repo, f"autoresearch_experiments = {folder}")
    said = mistake(repo, "--autoresearch-proposer", "queue")
    assert said == QUEUE.format(f"{folder}/queue") + f"`git format-patch -1 -o {folder}/queue YOUR_COMMIT`"
    repo.write(f"{folder}/queue/README.md", "None yet.\n")
    assert mistake(repo, "--autoresearch-proposer", "queue") == said


# ------------------------------------------------------------------------------------------------- the repository


def no_repository(repo: Repo) -> None:
    shutil.rmtree(repo.path / ".git")


def nothing_committed(repo: Repo) -> None:
    shutil.rmtree(repo.path / ".git")
    git(repo.path, "init", "-q", "-b", "main")


def no_train(repo: Repo) -> None:
    repo.git("rm", "-q", "train.py")
    repo.commit()


def train_not_committed(repo: Repo) -> None:
    repo.git("rm", "-q", "--cached", "train.py")
    repo.git("commit", "-qm", "Not in git")


def no_program(repo: Repo) -> None:
    repo.git("rm", "-q", "program.md")
    repo.commit()


STATES: dict[Callable[[Repo], None], str] = {
    no_repository: "{root} is not a git repository: type `git init && git add -A && git commit -m baseline` first",
    nothing_committed: "nothing is committed yet: type `git add -A && git commit -m baseline` first",
    no_train: "there is no train.py: write and commit one, or name the file that experiments may change in the ini "
    "key autoresearch_editable",
    train_not_committed: "train.py is not committed yet: type `git add train.py && git commit -m baseline` first",
    no_program: "there is no program.md, the charter of the research: one line will do, such as "
    "`echo 'Lower val_bpb.' > program.md`",
}


@pytest.mark.parametrize("prepare", STATES, ids=lambda prepare: prepare.__name__)
def test_a_repository_that_is_not_ready(
    repo: Repo, prepare: Callable[[Repo], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    prepare(repo)
    said = mistake(repo)
    assert said == STATES[prepare].format(root=repo.path)
    if "`" in said:
        types(repo, said)
        ready(repo)


def test_a_bare_repository(repo: Repo) -> None:
    repo.git("clone", "-q", "--bare", ".", "bare")
    os.chdir(repo.path / "bare")
    (repo.path / "bare/pytest.ini").write_text("[pytest]\n")
    said = sentence(repo.pytester.runpytest_inprocess(*repo.arguments()))
    assert said == f"{repo.path}/bare is a bare git repository: run pytest in a checkout of it"


def test_a_repository_that_git_cannot_read_is_not_called_none(repo: Repo) -> None:
    """`git init` would be the wrong thing to type, and git knows what is wrong."""
    with (repo.path / ".git/config").open("a") as file:
        file.write("[core\n")
    said = sentence(repo.pytester.runpytest_inprocess(*repo.arguments()))
    assert "bad config line" in said
    assert "is not a git repository" not in said


def test_a_machine_without_git(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repo.path))
    said = sentence(repo.run("--max", "1"))
    assert said == "git is not installed or not on PATH: install it first"


# ------------------------------------------------------------------------------------ what cannot be written


def elsewhere(repo: Repo, *places: str, begin: str = "true") -> tuple[int, str]:
    """The exit status and the sentence of a session with another view of the disk."""
    command = [sys.executable, "-m", "pytest", *repo.arguments("--max", "1"), "-p", "no:cacheprovider"]
    done = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", *places, "sh", "-c", f"{begin} && exec {shlex.join(command)}"],
        cwd=repo.path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert "INTERNALERROR" not in done.stdout
    return done.returncode, done.stderr.strip()


needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None and "CI" not in os.environ, reason="bubblewrap is not installed"
)


@needs_bubblewrap
@pytest.mark.parametrize(("name", "shown"), [(".", ".git"), (".git", ".git"), ("experiments", "experiments")])
def test_a_repository_that_cannot_be_written(repo: Repo, name: str, shown: str) -> None:
    place = str(repo.path / name)
    before = state(repo)
    assert elsewhere(repo, "--ro-bind", place, place) == (
        4,
        f"ERROR: {repo.path / shown} cannot be written (Read-only file system), and a session keeps its records and "
        "reports there: make it writable, or clone the repository to another place",
    )
    assert state(repo) == before


@needs_bubblewrap
def test_a_full_disk(repo: Repo, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    places = ("--size", "900000", "--tmpfs", str(disk))
    begin = f"cp -r {repo.path} {disk}/copy && cd {disk}/copy"
    status, said = elsewhere(repo, *places, begin=begin)
    assert status == 4
    assert said == (
        f"ERROR: {disk}/copy/.git cannot be written (No space left on device), and a session keeps its records and "
        "reports there: free some space"
    )


@needs_bubblewrap
def test_a_home_that_cannot_be_written_is_no_mistake(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    repo.plan(0.9)
    assert elsewhere(repo, "--ro-bind", str(home), str(home))[0] == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}


# -------------------------------------------------------------------------------------- what decides is not committed


def touch(repo: Repo, name: str) -> None:
    path = repo.path / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("\n# changed\n")


FROZEN = ["conftest.py", "pytest.ini", "experiments/test_val_bpb.py", "experiments/conftest.py", "harness/metric.py",
          "harness/new.py", "prepare.py"]  # fmt: skip


@pytest.mark.parametrize("staged", [False, True], ids=["", "staged"])
@pytest.mark.parametrize("name", FROZEN)
def test_what_decides_must_be_committed(repo: Repo, name: str, staged: bool) -> None:
    repo.write("harness/metric.py", "METRIC = 1\n")
    repo.write("prepare.py", "DATA = 1\n")
    ini(repo, "autoresearch_frozen = harness prepare.py")
    touch(repo, name)
    if staged:
        repo.git("add", "-A")
    said = mistake(repo)
    assert said == (
        f"{name} decides what is kept and must be committed: type `git add {name} && git commit -m 'Before the "
        "campaign'` first"
    )
    types(repo, said)
    ready(repo)


def test_several_files_that_decide_are_named_together(repo: Repo) -> None:
    for name in ("conftest.py", "pytest.ini", "experiments/test_val_bpb.py", "experiments/b.py"):
        touch(repo, name)
    said = mistake(repo)
    assert " decide what is kept and must be committed" in said
    types(repo, said)
    types(repo, mistake(repo))  # three at a time
    ready(repo)


def test_a_file_that_decides_may_have_a_name_with_a_space(repo: Repo) -> None:
    touch(repo, "experiments/my rule.py")
    types(repo, mistake(repo))
    ready(repo)


def test_a_deleted_rule_is_not_committed_either(repo: Repo) -> None:
    touch(repo, "experiments/other.py")
    repo.commit()
    (repo.path / "experiments/other.py").unlink()
    types(repo, mistake(repo))
    ready(repo)


@pytest.mark.parametrize("name", ["experiments/test_val_bpb.py", "conftest.py", "harness/metric.py"])
def test_a_file_that_decides_and_that_git_ignores_is_not_committed_either(repo: Repo, name: str) -> None:
    repo.write("harness/metric.py", "METRIC = 1\n")
    repo.write("harness/other.py", "")
    ini(repo, "autoresearch_frozen = harness")
    repo.git("rm", "-q", "--cached", name)
    repo.write(".gitignore", f"/{name}\nresults.*\n__pycache__/\n.pytest_cache/\n")
    repo.git("add", ".gitignore")
    repo.git("commit", "-qm", "Ignore it")
    assert name in mistake(repo)


def test_a_frozen_path_that_is_not_there_is_not_committed_either(repo: Repo) -> None:
    ini(repo, "autoresearch_frozen = harnes")
    said = mistake(repo)
    assert "harnes" in said
    assert "autoresearch_frozen" in said


def test_in_a_root_below_the_repositorys_top_the_command_is_right_too(repo: Repo) -> None:
    for name in ("train.py", "program.md", "conftest.py", "pytest.ini", "experiments"):
        repo.git("mv", name, f"sub-{name}")
    (repo.path / "sub").mkdir()
    for name in ("train.py", "program.md", "conftest.py", "pytest.ini", "experiments"):
        repo.git("mv", f"sub-{name}", f"sub/{name}")
    repo.commit()
    touch(repo, "sub/conftest.py")
    os.chdir(repo.path / "sub")
    said = mistake(repo)
    subprocess.run(said.split("`")[1], shell=True, cwd=repo.path / "sub", check=True, capture_output=True)


# ------------------------------------------------------------------------------------------- the campaign is another's


def begun(repo: Repo, **fields: object) -> None:
    """A campaign t whose baseline was recorded in another setting."""
    ratchet = Ratchet(repo.path)
    ratchet.choose("t")
    ratchet.open()
    first = attempt(
        0, commit=ratchet.start, base=ratchet.start, tree=repo.git("rev-parse", "HEAD^{tree}"),
        proposal=Proposal("baseline"), setting=Setting(hardware_key="h", data_hash="d"),
    )  # fmt: skip
    ratchet.record(judged(replace(first, **fields)))  # type: ignore[arg-type]
    ratchet.close()


def describe(repo: Repo, **description: object) -> None:
    """A harness that describes itself so."""
    repo.write("description", json.dumps({"hardware_key": "h", "data_hash": "d", **description}))


OTHERS: dict[str, tuple[dict[str, object], str]] = {
    "hardware": ({"setting": Setting(hardware_key="H100", data_hash="d")}, "hardware (H100, now h)"),
    "no hardware": ({"setting": Setting(data_hash="d")}, "hardware (none, now h)"),
    "data": ({"setting": Setting(hardware_key="h", data_hash="climbmix")}, "data (climbmix, now d)"),
    "harness": ({"setting": Setting(hardware_key="h", data_hash="d", harness_hash="abc")}, "harness (abc, now none)"),
    "metric": ({"metric_name": "loss"}, "metric (loss, now val_bpb)"),
    "direction": ({"direction": Direction.MAXIMIZE}, "direction (maximize, now minimize)"),
    "budget": ({"limits": Limits(60, 30, 180)}, "training seconds (60, now 300)"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_tag_whose_results_cannot_be_compared(repo: Repo, what: str) -> None:
    fields, words = OTHERS[what]
    ini(repo, "autoresearch_describe = cat description")
    describe(repo)
    begun(repo, **fields)
    assert mistake(repo) == (
        f"the campaign t began with other {words} and its results cannot be compared: choose another --autoresearch-tag"
    )


def test_a_tag_is_refused_by_what_its_first_night_recorded(repo: Repo) -> None:
    ini(repo, "autoresearch_describe = cat description")
    describe(repo, data_hash="yesterday's")
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0
    describe(repo, data_hash="today's")
    assert "other data (yesterday's, now today's)" in mistake(repo)


def test_the_campaigns_branch_is_checked_out(repo: Repo) -> None:
    begun(repo, setting=Setting())
    repo.git("checkout", "-q", "autoresearch/t")
    said = mistake(repo)
    assert said == (
        f"the branch autoresearch/t is checked out in {repo.path}, and experiments move it: "
        f"type `git -C {repo.path} switch --detach` first, and name the campaign with --autoresearch-tag t"
    )
    types(repo, said)
    ready(repo)


def test_the_campaigns_branch_is_checked_out_in_another_worktree(repo: Repo, tmp_path: Path) -> None:
    begun(repo, setting=Setting())
    other = tmp_path / "another place"
    repo.git("worktree", "add", "-q", str(other), "autoresearch/t")
    said = mistake(repo)
    assert f"is checked out in {other}, " in said
    types(repo, said)
    ready(repo)


def test_the_campaigns_branch_was_made_by_hand(repo: Repo) -> None:
    repo.git("branch", "autoresearch/t")
    said = mistake(repo)
    assert "autoresearch/t" in said
    types(repo, said)


def test_the_campaigns_branch_was_moved_by_hand(repo: Repo) -> None:
    begun(repo, setting=Setting())
    repo.git("checkout", "-q", "autoresearch/t")
    repo.git("commit", "-q", "--allow-empty", "-m", "By hand")
    repo.git("checkout", "-q", "main")
    said = mistake(repo)
    assert "which no experiment measured" in said
    types(repo, said)


def test_a_record_that_a_newer_version_wrote(repo: Repo) -> None:
    begun(repo, setting=Setting())
    repo.git("tag", "-a", "-m", '{"schema": 99}', "newer", "HEAD")
    repo.git("update-ref", "refs/autoresearch/t/0001", "refs/tags/newer")
    said = mistake(repo)
    assert said == (
        "refs/autoresearch/t/0001 cannot be read (record schema 99: this version of pytest-autoresearch reads 1): "
        "choose another --autoresearch-tag"
    )


def test_a_mistake_is_said_as_it_is_on_a_real_command_line(repo: Repo) -> None:
    before = state(repo)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--autoresearch", "train.py"], cwd=repo.path, text=True, capture_output=True
    )
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.strip() == f"ERROR: {ARGUMENTS['train.py']}"
    assert state(repo) == before
