"""The workflows are valid and safe, and what their steps type works, as a runner types it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from repo import UNUSED, Repo

pytestmark = pytest.mark.flow

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
OURS = ROOT / ".github" / "workflows" / "autoresearch.yml"
TESTS = ROOT / ".github" / "workflows" / "tests.yml"
TEMPLATE = ROOT / "pytest_autoresearch" / "templates" / "autoresearch.yml"
ACTION = ROOT / "action.yml"
GITLAB = ROOT / "docs" / "ci" / "gitlab-ci.example.yml"
ALL = [OURS, TESTS, TEMPLATE, ACTION]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(path: Path) -> Iterator[dict[str, Any]]:
    document = load(path)
    for job in document.get("jobs", {"": document.get("runs", {})}).values():
        yield from job.get("steps", ())


def step(path: Path, name: str) -> dict[str, Any]:
    return next(one for one in steps(path) if one.get("name") == name)


def checked(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ what they are


def test_zizmor_finds_nothing() -> None:
    checked(str(BIN / "zizmor"), "--offline", "--strict-collection", "--persona=pedantic", *map(str, ALL))


@pytest.mark.parametrize(
    ("schema", "paths", "more"),
    [
        ("vendor.github-workflows", [OURS, TESTS, TEMPLATE], []),
        ("vendor.github-actions", [ACTION], []),
        ("vendor.gitlab-ci", [GITLAB], ["--data-transform", "gitlab-ci"]),
        ("custom.github-workflows-require-timeout", [OURS, TESTS, TEMPLATE], []),
    ],
)
def test_each_is_what_its_schema_says(schema: str, paths: list[Path], more: list[str]) -> None:
    checked(str(BIN / "check-jsonschema"), "--builtin-schema", schema, *more, *map(str, paths))


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it() -> None:
    used = [line for path in ALL for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    used = [line for line in used if "#" not in line.split("uses:")[0]]
    assert len(used) >= 9
    for line in used:
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_no_expression_stands_in_a_script() -> None:
    assert not [one["run"] for path in ALL for one in steps(path) if "${{" in one.get("run", "")]


def test_a_strangers_pull_request_never_reaches_the_gpu() -> None:
    for path in (OURS, TEMPLATE):
        triggers = load(path)[True]  # YAML reads the key `on` as a truth value
        assert set(triggers) == {"workflow_dispatch", "schedule"}
        assert load(path)["concurrency"]["cancel-in-progress"] is False


def test_the_token_is_in_no_step_that_runs_experiments() -> None:
    for path in (OURS, TEMPLATE):
        assert step(path, "Run experiments")["env"].keys() == {"ANTHROPIC_API_KEY", "TAG", "MAX", "HOURS"}
        checkout = next(one for one in steps(path) if "checkout" in one.get("uses", ""))
        assert checkout["with"]["persist-credentials"] is False


def test_this_repositorys_workflow_is_the_templates_but_for_what_is_installed() -> None:
    ours, template = load(OURS), load(TEMPLATE)
    for document in (ours, template):
        night = document["jobs"]["night"]
        night["steps"] = [s for s in night["steps"] if s.get("name") not in ("Install", "Prepare the data")]
    assert ours == template


def test_the_shell_of_every_step_parses() -> None:
    scripts = [one["run"] for path in ALL for one in steps(path) if "run" in one]
    scripts += load(GITLAB)["autoresearch"]["before_script"] + load(GITLAB)["autoresearch"]["script"]
    scripts += load(GITLAB)["autoresearch"]["after_script"]
    scripts += re.findall(r"'''(.*?)'''", (ROOT / "docs" / "ci" / "Jenkinsfile.example").read_text(), re.DOTALL)
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


# ------------------------------------------------------------------------------------------------ what they do


def runner(
    tmp_path: Path, given: dict[str, Any], repo: Repo, venv: str = "venv", **values: str
) -> subprocess.Popen[str]:
    """The step of a workflow, started as a runner starts it: its script in a file, its expressions replaced."""
    (tmp_path / venv).mkdir(exist_ok=True)
    if not (tmp_path / venv / "bin").exists():
        (tmp_path / venv / "bin").symlink_to(BIN)
    script = tmp_path / "script.sh"
    text = given["run"].replace("--autoresearch-sandbox=require", "--autoresearch-sandbox=off")
    script.write_text(text.replace("--autoresearch ", f"--autoresearch {' '.join(UNUSED)} -p no:hypothesispytest ", 1))
    known = {"github.token": "sesame", "github.server_url": "https://github.com"}
    variables = {
        name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: values.get(found[1], known.get(found[1], "")), str(value))
        for name, value in given.get("env", {}).items()
    }
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = os.environ | variables | files | {"RUNNER_TEMP": str(tmp_path), "GITHUB_ACTIONS": "true"}
    return subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], cwd=repo.path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture
def night() -> dict[str, str]:
    return {"inputs.tag || vars.AUTORESEARCH_TAG": "t", "inputs.max || '0'": "9", "inputs.hours || '8'": "8"}


def test_the_signal_that_cancels_a_job_reaches_pytest_and_every_report_is_written(
    repo: Repo, tmp_path: Path, night: dict[str, str]
) -> None:
    repo.plan(0.9, "hang")
    process = runner(tmp_path, step(TEMPLATE, "Run experiments"), repo, **night)
    repo.wait_for(lambda: len(repo.rows()) == 2 and repo.training(), seconds=60)
    try:
        said = repo.end(process, signal.SIGINT)
    finally:
        for left in repo.training():
            os.kill(left, signal.SIGKILL)  # pytest ends with the last experiment of its plan
    assert process.returncode == 2, said
    assert "val&#95;bpb 1.000000 → 0.900000" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert "kept=1\n" in (tmp_path / "GITHUB_OUTPUT").read_text()
    assert len(repo.cases()) == 2
    assert repo.training() == []


def test_a_campaign_goes_to_the_remote_and_another_runner_goes_on_with_it(
    repo: Repo, tmp_path: Path, night: dict[str, str]
) -> None:
    remote = tmp_path / "remote.git"
    repo.git("init", "-q", "--bare", str(remote))
    repo.git("remote", "add", "origin", str(remote))
    pull = step(TEMPLATE, "Take over what other runners have done")
    none = runner(tmp_path, pull, repo, **night)
    assert none.communicate(timeout=60)[0] == ""
    assert none.returncode == 0
    repo.plan(0.9)
    ran = runner(tmp_path, step(TEMPLATE, "Run experiments"), repo, **night | {"inputs.max || '0'": "1"})
    said = ran.communicate(timeout=60)[0]
    assert ran.returncode == 0, said
    push = runner(tmp_path, step(TEMPLATE, "Push the campaign"), repo, **night)
    said = push.communicate(timeout=60)[0]
    assert push.returncode == 0, said
    there = repo.git("ls-remote", "origin")
    assert "refs/heads/autoresearch/t" in there
    assert "refs/autoresearch/t/0001" in there
    for ref in ("refs/heads/autoresearch/t", "refs/autoresearch/t/0000", "refs/autoresearch/t/0001"):
        repo.git("update-ref", "-d", ref)
    shutil.rmtree(repo.path / ".git" / "autoresearch", ignore_errors=True)
    other = runner(tmp_path, pull, repo, **night)
    said = other.communicate(timeout=60)[0]
    assert other.returncode == 0, said
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_a_remote_that_cannot_be_reached_ends_the_job_before_the_night(
    repo: Repo, tmp_path: Path, night: dict[str, str]
) -> None:
    repo.git("remote", "add", "origin", str(tmp_path / "nowhere.git"))
    step_ = runner(tmp_path, step(TEMPLATE, "Take over what other runners have done"), repo, **night)
    step_.communicate(timeout=60)
    assert step_.returncode == 1


@pytest.mark.parametrize(("host", "password"), [("github.com", "sesame"), ("elsewhere.example", None)])
def test_the_token_is_told_to_the_host_of_the_repository_alone(
    repo: Repo, tmp_path: Path, host: str, password: str | None
) -> None:
    given = {**step(TEMPLATE, "Push the campaign"), "run": "GIT_TERMINAL_PROMPT=0 GIT_ASKPASS= git credential fill"}
    given["run"] = f"printf 'protocol=https\\nhost={host}\\n\\n' | {given['run']} 2>/dev/null || true"
    said = runner(tmp_path, given, repo).communicate(timeout=30)[0]
    assert ("password=sesame" in said) is (password is not None)


def test_the_action_takes_quoted_arguments_and_gives_every_output(repo: Repo, tmp_path: Path) -> None:
    repo.plan(0.9)
    values = {
        "inputs.tag": "t", "inputs.max": "1", "inputs.hours": "8", "inputs.proposer": "auto", "inputs.sandbox": "off",
        "inputs.arguments": "--autoresearch-confirm off --autoresearch-description 'two words'",
    }  # fmt: skip
    process = runner(tmp_path, step(ACTION, "Run experiments"), repo, "autoresearch", **values)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert repo.records()[1].proposal.description.startswith("two words")
    given = dict(line.split("=", 1) for line in (tmp_path / "GITHUB_OUTPUT").read_text().splitlines())
    asked = {str(output["value"]) for output in load(ACTION)["outputs"].values()}
    night = {found[1] for value in asked if (found := re.search(r"steps\.night\.outputs\.([\w-]+)", value))}
    assert night == given.keys()
    assert given["best"] == "0.900000"


def test_an_action_without_arguments_gives_pytest_none(repo: Repo, tmp_path: Path) -> None:
    repo.plan(0.9)
    values = {"inputs.tag": "", "inputs.max": "0", "inputs.hours": "8", "inputs.proposer": "queue",
              "inputs.sandbox": "off", "inputs.arguments": ""}  # fmt: skip
    repo.write("experiments/queue/README.md", "Nothing yet.\n")
    process = runner(tmp_path, step(ACTION, "Run experiments"), repo, "autoresearch", **values)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said


def test_the_workflow_of_the_documentation_is_valid_and_uses_what_the_action_has(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "workflow.yml"
    path.write_text(block)
    checked(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path))
    action = load(ACTION)
    (used,) = [one for one in steps(path) if "OWNER" in one.get("uses", "")]
    assert set(used["with"]) <= set(action["inputs"])
    assert set(re.findall(r"steps\.night\.outputs\.([\w-]+)", block)) <= set(action["outputs"])
    inputs = page.split("| input | default | meaning |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", inputs, re.MULTILINE) == list(action["inputs"])
    assert all(f"`{name}`" in page for name in action["outputs"])


def test_the_citation_is_what_its_schema_says() -> None:
    checked(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.citation-file-format", "CITATION.cff")
