"""`--autoresearch-dry-run` says what a session would do first, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from messages_server import KEY, serving
from repo import Repo

DRY = "--autoresearch-dry-run"


@pytest.fixture
def plain(repo: Repo) -> Repo:
    """The repository without a hook, with a constant to search and a patch to try."""
    repo.write("conftest.py", "")
    train = repo.path / "train.py"
    train.write_text(train.read_text() + "LEARNING_RATE = 0.1\n")
    repo.commit("A constant")
    train.write_text(train.read_text().replace('ACTION = "1.0"', 'ACTION = "0.9"'))
    repo.write("experiments/queue/01-lower.patch", "")
    repo.git("diff", "--output=experiments/queue/01-lower.patch", "train.py")
    repo.git("checkout", "-q", "train.py")
    repo.commit("A patch")
    return repo


def everything(repo: Repo) -> dict[str, object]:
    """What a session could leave, in the checkout and in git."""
    files = {
        str(path.relative_to(repo.path)): path.read_bytes()
        for path in sorted(repo.path.rglob("*"))
        if path.is_file() and not {".pytest_cache", "__pycache__"} & set(path.parts) and "runpytest" not in str(path)
    }
    objects = [name for name in files if name.startswith(".git/objects")]
    return {
        **{name: text for name, text in files.items() if name not in (*objects, "stdout", "stderr")},
        "refs": repo.git("for-each-ref"),
        "worktrees": repo.git("worktree", "list"),
        "objects": objects,
        "autoresearch": (repo.path / ".git" / "autoresearch").exists(),
    }


def dry(repo: Repo, *arguments: str) -> pytest.RunResult:
    """A dry run that leaves nothing."""
    before = everything(repo)
    # numpy, which a search imports, can be loaded only once in a process.
    searches = any("search" in word for word in arguments)
    result = repo.spawn(DRY, *arguments) if searches else repo.run(DRY, *arguments)
    assert everything(repo) == before
    assert result.ret == 0, result.stderr.str()
    assert "nothing was run or recorded in" in result.outlines[-1]
    return result


@pytest.mark.parametrize(
    ("proposer", "said", "line"),
    [
        ("queue", "then queue proposes, at no cost: lower", '+ACTION = "0.9"'),
        ("search", "then search proposes, at no cost: LEARNING_RATE 0.1 -> *", "+LEARNING_RATE = *"),
        ("search:cmaes", "then search:cmaes proposes, at no cost: *LEARNING_RATE 0.1 -> *", "+LEARNING_RATE = *"),
        ("commits:main..theirs", "then commits proposes, at no cost: Theirs", "+LEARNING_RATE = 0.7"),
        ("mix:queue=1,search=1", "then * proposes, at no cost: *", "+*"),
    ],
)
def test_a_free_proposer_shows_its_first_change(plain: Repo, proposer: str, said: str, line: str) -> None:
    plain.git("checkout", "-qb", "theirs")
    train = plain.path / "train.py"
    train.write_text(train.read_text().replace("RATE = 0.1", "RATE = 0.7"))
    plain.commit("Theirs")
    plain.git("checkout", "-q", "main")
    result = dry(plain, "--max", "3", "--autoresearch-proposer", proposer, "--autoresearch-confirm", "standard")
    result.stdout.fnmatch_lines([
        "autoresearch: campaign t (new), branch autoresearch/t", "  limits:   3 experiments; *",
        "  time:     5 runs of the baseline first*", "  sandbox:  none*", "collected 4 items",
        "*= what would come first =*", "first the baseline: 5 runs of the program as it is", said,
        "diff --git a/train.py b/train.py", line,
    ])  # fmt: skip


def test_the_edit_in_the_checkout_is_shown_and_stays(plain: Repo) -> None:
    train = plain.path / "train.py"
    train.write_text(train.read_text().replace("RATE = 0.1", "RATE = 0.7"))
    plain.git("add", "train.py")  # so that its object exists before
    result = plain.run(DRY, "--autoresearch-proposer", "checkout")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["then checkout proposes, at no cost: edit of train.py*", "+LEARNING_RATE = 0.7"])
    assert "RATE = 0.7" in train.read_text()
    assert plain.git("for-each-ref", "refs/autoresearch", "refs/heads/autoresearch") == ""


def test_a_patch_that_does_not_apply_is_said(plain: Repo) -> None:
    path = plain.path / "experiments/queue/01-lower.patch"
    path.write_text(path.read_text().replace('-ACTION = "1.0"', '-ACTION = "2.0"'))
    result = dry(plain, "--max", "1", "--autoresearch-proposer", "queue")
    result.stdout.fnmatch_lines(
        ["then queue proposes, at no cost: lower", "it is refused: 01-lower.patch does not apply*"]
    )


def test_an_agent_is_not_started(plain: Repo) -> None:
    agent = plain.write("agent.sh", "touch started\n")
    result = dry(plain, "--max", "1", "--autoresearch-proposer", f"command:sh {agent}")
    result.stdout.fnmatch_lines([
        "then command is shown * characters, about * tokens, which begin:", "  | # The rules", "  | ... * lines more",
        "the session's cost has no limit: --autoresearch-cost USD sets one",
    ])  # fmt: skip
    assert not list(Path(plain.path).rglob("started"))
    assert max(len(line) for line in result.outlines if line.startswith("  | ")) < 80


def test_a_model_is_not_asked_and_its_price_is_said(plain: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving("night") as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        anthropic = ("--autoresearch-proposer", "anthropic", "--max", "10")
        result = dry(plain, *anthropic)
        capped = dry(plain, *anthropic, "--autoresearch-cost", "20")
        assert not server.messages
    request = next(line for line in result.outlines if line.startswith("one request costs at most $"))
    dollars = float(request.split("$")[1].split(";")[0])
    assert 32_000 * 40e-6 < dollars < 32_000 * 40e-6 + 0.2  # the longest reply, and a short prompt
    result.stdout.fnmatch_lines([
        "then anthropic is shown * characters*", "10 experiments with one request each cost at most $*",
        "the session's cost has no limit*",
    ])  # fmt: skip
    assert "the session costs at most $20.00 (--autoresearch-cost)" in capped.outlines


def test_a_campaign_that_goes_on_has_no_baseline_before_it_and_keeps_its_reports(repo: Repo) -> None:
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0
    before = (repo.path / "results.xml").read_bytes()
    result = dry(repo, "--max", "1")
    assert (repo.path / "results.xml").read_bytes() == before
    text = result.stdout.str()
    assert "first the baseline" not in text
    assert "then what a hook of a conftest proposes; it is not called here" in text
    assert "best:     val_bpb 0.900000" in text


def test_what_would_refuse_a_session_refuses_a_dry_run(plain: Repo) -> None:
    (plain.path / "program.md").unlink()
    result = plain.run(DRY, "--autoresearch-proposer", "queue")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: there is no program.md*"])
    plain.git("checkout", "-q", "program.md")
    assert plain.run(DRY, "--autoresearch-proposer", "queue", "-k", "nothing").ret == 4
