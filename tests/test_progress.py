"""`progress.png`: a picture that is one, drawn when it is asked for, by a library that nothing else imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from repo import Repo

from benchmarks.page import campaign
from pytest_autoresearch.core.experiment import Direction, Proposal, Status, Verdict
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.reports.page.writer import check
from pytest_autoresearch.reports.progress import MISSING, draw

pytest.importorskip("matplotlib", reason="no matplotlib: pip install '.[report]'")


def colours(path: Path) -> dict[tuple[int, int, int], int]:
    """How many pixels of each colour there are."""
    from PIL import Image

    with Image.open(path) as image:
        assert image.size == (1760, 880)
        found = image.convert("RGB").getcolors(1 << 24)
    assert found is not None
    return {colour: count for count, colour in found}  # type: ignore[misc]


def test_the_picture_shows_keeps_discards_and_crashes(tmp_path: Path) -> None:
    records, _ = campaign(60)
    crashed = replace(records[7], verdict=Verdict(Status.CRASH, "oom", "oom"))
    draw([*records[:7], crashed, *records[8:]], tmp_path / "progress.png")
    seen = colours(tmp_path / "progress.png")
    assert all(seen.get(colour, 0) > 20 for colour in ((0, 105, 172), (180, 184, 191), (181, 71, 8)))
    check(tmp_path / "progress.png")  # ours, to be drawn again
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]


def test_any_campaign_can_be_drawn(tmp_path: Path) -> None:
    records, _ = campaign(8)
    odd = [
        replace(one, direction=Direction.MAXIMIZE, metric_name="$x^", proposal=Proposal("$\\frac{ 数 <b>"))
        for one in records
    ]
    ended = Run(2, None, role=Role.CONFIRM, training_seconds=100.0, hopeless="its loss was too far behind")
    stopped = replace(records[2], runs=(*records[2].runs, ended), verdict=Verdict(Status.DISCARD, "hopeless", ""))
    some_bare = [*records[:2], stopped, *records[3:]]
    for number, some in enumerate((records[:1], odd, [], [replace(records[1], verdict=None)], some_bare)):
        draw(some, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000


def test_without_matplotlib_the_page_is_written_and_a_sentence_says_what_to_install(repo: Repo) -> None:
    repo.plan(0.9)
    repo.run("--max", "1")
    (repo.path / "report.html").unlink()
    hide = "import sys; sys.modules['matplotlib'] = None; from pytest_autoresearch.cli import main"
    command = [sys.executable, "-c", f"{hide}; sys.exit(main(['report', '--json']))"]
    done = subprocess.run(command, cwd=repo.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["picture"] is None
    assert done.stderr == f"autoresearch report: {MISSING}\n"
    assert "pip install" in MISSING
    assert (repo.path / "report.html").exists()


def test_a_session_imports_no_matplotlib(repo: Repo) -> None:
    repo.hooks("import sys\ndef pytest_unconfigure():\n    print('LOADED', 'matplotlib' in sys.modules)\n")
    repo.plan(0.9)
    assert "LOADED False" in repo.spawn("--max", "1", "-s").stdout.str()
