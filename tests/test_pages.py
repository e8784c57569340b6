"""What the documents show is true: their commands are typed, their files are quoted, their code does what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ELSEWHERE, PAGES, ROOT, Block, Clone, blocks, commands, script
from repo import PROPOSE, RULE, TRAIN, Repo

EXAMPLES = ("sorting", "test-suite-time")
LANGUAGES = {"", "bash", "python", "ini", "toml", "yaml", "json", "markdown", "groovy", "text"}
# What own-metric.md types is what the examples' READMEs say, which test_examples.py types.
TYPED = [page for page in PAGES if commands(page) and page.stem != "own-metric"]
QUOTED = re.compile(r"# ((?:examples|experiments)/[\w./-]+)\n")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("pages"))


@pytest.mark.typed
@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.stem))
def test_the_commands_of_a_page_can_be_typed(page: Path, clone: Clone, tmp_path: Path) -> None:
    Clone(tmp_path, like=clone).type(script(page))


def test_the_page_on_the_examples_types_what_their_readmes_say() -> None:
    shown = [block.text.removesuffix("cd -\n") for block in blocks(ROOT / "docs" / "own-metric.md", "bash")]
    assert shown == [blocks(ROOT / "examples" / name / "README.md", "bash")[0].text for name in EXAMPLES]


def test_what_no_test_types_is_a_short_list_and_each_line_of_it_is_on_a_page() -> None:
    typed = {line for page in PAGES for block in blocks(page, "bash") for line in block.text.splitlines()}
    assert ELSEWHERE.keys() - typed == set()
    assert len(ELSEWHERE) <= 25


def test_a_command_of_a_page_is_in_a_block_that_is_typed() -> None:
    for page in PAGES:
        found = {block.language for block in blocks(page)}
        assert found <= LANGUAGES, f"{page.name} has a block of another kind: name commands bash"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_block_that_names_a_file_is_in_it(page: Path) -> None:
    for block in blocks(page):
        if quoted := QUOTED.match(block.text):
            text = block.text[quoted.end() :]
            assert text in (ROOT / quoted[1]).read_text() or block.language == "ini", f"{quoted[1]}:\n{text}"
            assert set(text.splitlines()) <= set((ROOT / quoted[1]).read_text().splitlines())


def code(page: str, word: str) -> list[Block]:
    return [block for block in blocks(ROOT / "docs" / page, "python") if word in block.text]


def test_the_rules_that_the_page_shows_keep_and_discard(repo: Repo) -> None:
    rules = [block.text for block in code("acceptance-rule.md", "def test_")]
    assert len(rules) >= 5
    repo.write("train.py", TRAIN.replace('print("---")', 'print("---")\n    print("num_params_M: 50.3")'))
    repo.rule("\n\n".join(rules))
    repo.plan(0.9, 1.5, 0.89999)
    repo.run("--max", "3")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "discard"}
    assert len(repo.cases()) == 4 * len(re.findall(r"^def test_", "\n".join(rules), re.MULTILINE))


def test_the_hooks_that_the_pages_show_can_be_used_as_they_stand(repo: Repo) -> None:
    hooks = [block.text for page in ("acceptance-rule.md", "trackers.md") for block in code(page, "def pytest_")]
    assert len(hooks) == 3
    repo.write("conftest.py", "\n\n".join([PROPOSE, *hooks]))
    repo.commit("Hooks")
    repo.plan(0.9, "do:import torchvision", "crash")
    result = repo.run("--max", "3", "--autoresearch-repairs", "0")
    result.stdout.no_fnmatch_line("*raised*")
    assert repo.reasons() == {0: "baseline", 1: "improved", 2: "refused", 3: "exit 1"}
    lines = [json.loads(line) for line in (repo.path / "campaign.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["keep", "keep", "crash", "crash"]


def test_the_rule_on_the_pages_is_the_rule_of_this_repository() -> None:
    for name in ("README.md", "docs/acceptance-rule.md"):
        assert RULE.strip() in (ROOT / name).read_text()


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None:
        pytest.skip("MkDocs Material is not installed: pip install -c constraints.txt -e '.[docs]'")
    # Not --quiet, which hides warnings from --strict too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    given = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert pages >= {page.stem for page in (ROOT / "docs").glob("*.md")}
    text = (tmp_path / "site" / "index.html").read_text()
    fetched = re.findall(r"(?:src|href)=[\"']?(https?://[^\"'\s>]+)", text)
    assert [url for url in fetched if "fonts" in url or url.endswith((".js", ".css"))] == []
