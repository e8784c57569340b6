"""`autoresearch demo`, as a stranger types it: the campaign, and what it says to type next."""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.cli import main

SURE = {0, 1, 2, 4, 6, 11}


def typed(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A line as typed in that folder, by somebody whom git does not know, with the plugin of this checkout."""
    command = shlex.split(line)
    if command[0] == "autoresearch":
        command[:1] = [sys.executable, "-c", "import sys; from pytest_autoresearch.cli import main; sys.exit(main())"]
    told = {
        **os.environ, "HOME": str(folder), "GIT_CONFIG_GLOBAL": os.devnull,
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }  # fmt: skip
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False)


@pytest.mark.flow
@pytest.mark.timeout(400)  # 33 runs on a busy machine
def test_a_stranger_sees_a_campaign_and_what_to_type_next(tmp_path: Path) -> None:
    done = typed(tmp_path, "autoresearch demo 'my demo'")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "my demo"
    with (folder / "results.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    kept = {at for at, row in enumerate(rows) if row["status"] == "keep"}
    assert kept >= SURE, "seeds are random, and ideas that gain less may drown in their noise"
    assert len(kept) >= 7
    assert not kept & {3, 5, 8, 12}
    assert [row["status"] for row in rows].count("crash") == 1
    assert float(rows[11]["bits_per_byte"]) < 0.7 * float(rows[0]["bits_per_byte"])
    assert str(folder / "report.html") in done.stdout
    assert (folder / "report.html").stat().st_size > 10_000
    assert typed(folder, "git status --porcelain").stdout == "", "what a session writes is ignored"
    after = done.stdout.partition("Next:\n")[2].splitlines()
    assert after[0] == "cd 'my demo'"
    assert [line.partition("  ")[0] for line in after[1:]] == ["autoresearch results", "autoresearch init"]
    steps = done.stdout.partition("\nnext:\n")[2].splitlines()
    commands = [line.strip().partition("  ")[0] for line in steps[:2]]
    assert steps[2].strip().startswith("autoresearch audit  ")
    for line in (after[1].partition("  ")[0], *commands):
        said = typed(folder, line)
        assert said.returncode == 0, said.stderr
    assert "\n+" in typed(folder, commands[0]).stdout
    assert typed(folder, "git branch --show-current").stdout.startswith("best/")


def test_a_folder_with_files_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "autoresearch-demo" / "mine"
    mine.parent.mkdir()
    mine.write_text("precious")
    assert main(["demo"]) == 2
    assert "autoresearch-demo exists already: type `autoresearch demo autoresearch-demo-2`" in capsys.readouterr().err
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]


def test_a_file_in_the_way_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", str(tmp_path / "file" / "demo")]) == 2
    assert "cannot be written (Not a directory): name another folder" in capsys.readouterr().err
