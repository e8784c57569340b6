"""The secret that draws the rows of a campaign: who has it, who has not, and what a machine without it says."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from repo import CONFIG, Repo

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.measure import rows_secret

TRAIN = """
import json, os, socket
ACTION = "1.0"
def main():
    out = os.environ["AUTORESEARCH_OUT"]
    with socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"])) as parent:
        parent.sendall(b"begin\\n")
        parent.recv(8)
    open(out + "/model.pt", "w").write(json.dumps([ACTION, dict(os.environ)]))
if __name__ == "__main__":
    main()
"""
SCORER = """
import json, os
number, told = json.load(open(os.environ["AUTORESEARCH_OUT"] + "/model.pt"))
secret = os.environ.get("AUTORESEARCH_SECRET", "")
with open(".git/told", "a") as file:
    print(json.dumps([secret, [name for name, value in told.items() if secret and secret in value]]), file=file)
print("val_bpb:", number)
"""
DESCRIBE = """
print('{"score": ["python", "-S", "score.py"], "budget_seconds": 20, "secret": true}')
"""


@pytest.fixture
def drawn(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository whose scorer draws its rows with a secret."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(rows_secret.VARIABLE, raising=False)
    repo.write("train.py", TRAIN)
    repo.write("score.py", SCORER)
    repo.write("describe.py", DESCRIBE)
    describe = "autoresearch_describe = python -S describe.py\nautoresearch_frozen = score.py describe.py\n"
    repo.write("pytest.ini", CONFIG + describe)
    repo.commit("A scorer")
    return repo


def told(repo: Repo) -> list[tuple[str, list[str]]]:
    """What each scorer was told, and the variables of training that hold it."""
    return [tuple(json.loads(line)) for line in (repo.path / ".git" / "told").read_text().splitlines()]


def refused(repo: Repo) -> str:
    """The sentence of a session that does not begin."""
    result = repo.run("--max", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    return "\n".join(result.errlines)


def test_a_campaign_has_one_secret_that_its_scorer_alone_knows(drawn: Repo) -> None:
    drawn.plan("0.9", "0.8")
    drawn.run("--max", "1")
    drawn.run("--max", "1")
    (secret, *others) = {secret for secret, _ in told(drawn)}
    assert (len(told(drawn)), len(secret), others) == (3, 64, [])
    assert [seen for _, seen in told(drawn)] == [[], [], []], "training has no such variable"
    (file,) = rows_secret.folder().iterdir()
    assert (file.read_text().strip(), stat.S_IMODE(file.stat().st_mode)) == (secret, 0o600)
    assert stat.S_IMODE(rows_secret.folder().stat().st_mode) == 0o700
    assert {record.setting.rows for record in drawn.records()} == {file.name} == {rows_secret.fingerprint(secret)}
    (drawn.path / ".git" / "told").unlink()
    written = [path for path in drawn.path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert written == []
    assert secret not in drawn.git("log", "--all", "-p") + drawn.git("for-each-ref", "--format=%(contents)")


def test_another_campaign_has_another_secret(drawn: Repo) -> None:
    drawn.plan("0.9", "0.8")
    drawn.run("--max", "1")
    drawn.run("--max", "1", "--autoresearch-tag", "u")
    assert len({secret for secret, _ in told(drawn)}) == 2
    assert len({record.setting.rows for tag in ("t", "u") for record in drawn.records(tag)}) == 2


def test_a_machine_without_the_secret_says_what_to_type(drawn: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn.plan("0.9", "0.8")
    drawn.run("--max", "1")
    ((secret, _), _) = told(drawn)
    shutil.rmtree(rows_secret.folder())
    said = refused(drawn)
    assert "was measured on rows that a secret draws" in said
    assert "set AUTORESEARCH_SECRET to the content of ~/.cache/pytest-autoresearch/secrets/" in said
    monkeypatch.setenv(rows_secret.VARIABLE, "0" * 64)
    assert "was measured on other rows than AUTORESEARCH_SECRET draws" in refused(drawn)
    monkeypatch.setenv(rows_secret.VARIABLE, "hunter2")
    assert "AUTORESEARCH_SECRET is not 64 hexadecimal digits" in refused(drawn)
    monkeypatch.setenv(rows_secret.VARIABLE, secret.upper())
    drawn.run("--max", "1")
    assert drawn.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert [seen for _, seen in told(drawn)] == [[], [], []], "not even where the user's own environment has it"


def test_the_user_s_secret_is_not_passed_on_by_name(drawn: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rows_secret.VARIABLE, "ab" * 32)
    config = drawn.path / "pytest.ini"
    config.write_text(config.read_text() + f"autoresearch_environment = {rows_secret.VARIABLE} AUTORESEARCH_*\n")
    drawn.commit("Names the variable")
    drawn.plan("0.9")
    drawn.run("--max", "1")
    assert told(drawn) == [("ab" * 32, []), ("ab" * 32, [])]
    assert not rows_secret.folder().exists()


def test_a_harness_that_draws_no_rows_has_no_secret(drawn: Repo) -> None:
    (drawn.path / "describe.py").write_text(DESCRIBE.replace(', "secret": true', ""))
    drawn.commit("No secret")
    drawn.plan("0.9")
    drawn.run("--max", "1")
    assert [secret for secret, _ in told(drawn)] == ["", ""]
    assert not rows_secret.folder().exists()
    assert {record.setting.rows for record in drawn.records()} == {""}


def test_sessions_that_begin_a_campaign_together_have_one_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(rows_secret.VARIABLE, raising=False)
    first, second = rows_secret.new(tmp_path, "t"), rows_secret.new(tmp_path, "t")
    assert first == second != rows_secret.new(tmp_path, "u")
    assert rows_secret.of_campaign("t", rows_secret.fingerprint(first)) == first
    rows_secret.begun(tmp_path, "t")
    assert rows_secret.new(tmp_path, "t") != first, "of a later campaign of this name"
    assert rows_secret.of_campaign("t", rows_secret.fingerprint(first)) == first


def test_a_forged_record_reads_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    os.makedirs(rows_secret.folder())
    with pytest.raises(UserError, match="this machine does not have it"):
        rows_secret.of_campaign("t", "../../etc/passwd")
