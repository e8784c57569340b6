"""`report.html` as a file: what is in it, how large it may become, when it is written, and what it leaves alone."""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from repo import Repo

from benchmarks.page import campaign
from pytest_autoresearch.cli import main
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Decision, Direction, Experiment, Proposal, Reason, Status, Verdict
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.reports.page import About, Artifact, PageWriter, gather, page
from pytest_autoresearch.reports.page.artifacts import shortened
from pytest_autoresearch.reports.page.curves import curve
from pytest_autoresearch.reports.page.writer import check

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028"


@pytest.fixture(scope="module")
def pictures() -> None:
    """Has matplotlib loaded before `repo`, which unloads what a test has loaded, and half of a library is none."""
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install '.[report]'")
    for name in ("backends.backend_agg", "figure", "patheffects"):
        importlib.import_module(f"matplotlib.{name}")


def known(text: str) -> dict[str, Any]:
    """The campaign as the page has it."""
    found = re.search(r'<script type="application/json" id="campaign">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    return document


def details(text: str) -> list[dict[str, Any]]:
    """What each experiment's own page shows."""
    packs = re.findall(r'<script type="text/plain" class="pack">([^<]*)</script>', text)
    return [one for pack in packs for one in json.loads(gzip.decompress(base64.b64decode(pack)))]


def judged(number: int, metric: float | None, status: Status, **more: Any) -> Experiment:
    runs = (Run(42, metric),) if metric is not None else ()
    like = Experiment(number, "t", f"{number:040x}", f"{0:040x}", "t", Proposal(f"idea {number}"), runs, **more)
    return like.judged(Verdict(status, "why", "because", None), 100.0 + number)


# ---------------------------------------------------------------------------------------------------- what is in it


def test_a_page_refers_to_nothing_outside_itself() -> None:
    text = page(*campaign(6))
    assert re.findall(r'(?:src|href)="(?!#|data:,")[^"]*"', text) == []
    assert "default-src 'none'" in text
    assert re.findall(r"@import|url\((?!data:)", text) == []


def test_hostile_text_is_never_markup() -> None:
    records, artifacts = campaign(3)
    hostile = replace(
        records[1], tag=HOSTILE, proposal=Proposal(HOSTILE, HOSTILE, HOSTILE, area=HOSTILE), notes=HOSTILE,
        verdict=Verdict(Status.DISCARD, HOSTILE, HOSTILE, 0.0), metric_name=HOSTILE,
        decision=replace(records[1].decision, evidence=""),
    )  # fmt: skip
    artifact = Artifact(f"+{HOSTILE}", HOSTILE, artifacts[1].curves)
    text = page([replace(records[0], tag=HOSTILE, metric_name=HOSTILE), hostile], {0: artifact, 1: artifact})
    text = re.sub(r"<title>[^<]*</title>", "", text)
    assert "alert(1)" not in text.replace("\\u003cscript\\u003ealert(1)\\u003c/script\\u003e", "")
    assert "<img" not in text
    assert text.count("<script") == 2 + len(re.findall('class="pack"', text))
    assert "\u2028" not in text
    assert details(text)[1]["log"] == HOSTILE.replace("\u2028", "⟨U+2028⟩")
    assert known(text)["rows"]["text"][1].startswith("</script><script>")


def test_a_proposal_cannot_turn_or_hide_what_it_changes() -> None:
    records, _ = campaign(1)
    acts = "\x1b]0;owned\x07\x1b[2Jcle\u202ean\x00"
    hostile = replace(
        records[1], proposal=Proposal(acts, acts, acts, expected=acts, area=acts), notes=acts,
        decision=replace(records[1].decision, evidence=acts),
        verdict=Verdict(Status.DISCARD, acts, acts, 0.0), metric_name=acts,
    )  # fmt: skip
    shown = page([records[0], hostile], {1: Artifact(f"@@\n-a\tb\r\n+{acts}\u2069\ufeff", f"said {acts}")})
    one = details(shown)[1]
    assert [one[name] for name in ("text", "hypothesis", "expected", "area", "notes", "evidence")] == ["clean"] * 6
    assert one["proposer"].startswith("clean")
    assert known(shown)["rows"]["text"][1] == "clean"
    seen = "⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[2Jcle⟨U+202E⟩an⟨U+0000⟩"
    assert one["diff"] == f"@@\n-a\tb⟨U+000D⟩\n+{seen}⟨U+2069⟩⟨U+FEFF⟩"
    assert one["log"] == f"said {seen}"


def test_what_is_not_in_any_encoding_does_not_stop_the_page(tmp_path: Path) -> None:
    records, _ = campaign(1)
    text = page([replace(records[0], proposal=Proposal("half \ud800 a pair"))], {0: Artifact(log="\udcff")})
    (tmp_path / "page.html").write_text(text, "utf-8")


def test_the_summary_counts_as_the_terminal_does() -> None:
    records, artifacts = campaign(40)
    head = known(page(records, artifacts))["head"]
    statuses = [record.verdict.status for record in records[1:] if record.verdict]
    assert (head["kept"], head["discarded"], head["crashed"], head["tried"]) == (
        *(statuses.count(status) for status in (Status.KEEP, Status.DISCARD, Status.CRASH)), 40,
    )  # fmt: skip
    kept = [one for one in records[1:] if one.verdict and one.verdict.status is Status.KEEP]
    assert head["nothing"] == pytest.approx(sum(1 - (one.decision.probability or 0.0) for one in kept))
    assert head["runs"] == sum(len(record.runs) for record in records)


def test_time_and_money_add_up_to_the_records() -> None:
    records, artifacts = campaign(30)
    document = known(page(records, artifacts))
    seconds = sum(record.seconds for record in records)
    assert sum(document["time"]["stage"].values()) == pytest.approx(seconds, rel=1e-4)
    assert sum(document["time"]["kind"].values()) == pytest.approx(seconds, rel=1e-4)
    assert sum(document["money"]["kind"].values()) == pytest.approx(
        sum(one.usage.cost_usd or 0 for one in records), rel=1e-4
    )


def test_a_campaign_of_a_metric_to_maximize_and_of_numbers_that_are_none_makes_a_page() -> None:
    up = {"direction": Direction.MAXIMIZE, "metric_name": "score"}
    records = [
        judged(0, 10.0, Status.KEEP, **up),
        judged(1, float("inf"), Status.DISCARD, decision=Decision(10.0, float("inf")), **up),
        judged(2, None, Status.CRASH, **up),
        judged(3, 0.0, Status.DISCARD, decision=Decision(float("nan")), **up),
    ]
    document = known(page(records, {}))
    assert document["rows"]["metric"] == [10, None, None, 0]
    assert document["direction"] == "maximize"
    assert document["limits"][0] < 0 < 10 < document["limits"][1]


def test_a_run_that_racing_ended_is_counted_as_saved() -> None:
    run = Run(43, None, training_seconds=100.0, hopeless="its loss was too far behind")
    record = judged(1, None, Status.DISCARD)
    text = page(
        [judged(0, 1.0, Status.KEEP), replace(record, runs=(run,), decision=Decision(decided=Reason.HOPELESS))], {}
    )
    assert known(text)["head"]["saved"] == 200
    assert known(text)["head"]["stopped"] == 1
    assert "stopped after 100 of 300 training seconds, which saved 200 s" in details(text)[1]["sentence"]


def test_records_without_a_verdict_are_left_out_and_none_at_all_is_an_error() -> None:
    records, artifacts = campaign(2)
    assert known(page([*records, replace(records[1], number=9, verdict=None)], artifacts))["rows"]["number"] == [
        0,
        1,
        2,
    ]
    with pytest.raises(ValueError, match="at least one"):
        page([], {})


def test_the_same_records_make_the_same_page() -> None:
    assert page(*campaign(5)) == page(*campaign(5))


# ------------------------------------------------------------------------------------------------------ how large


@pytest.mark.night
def test_a_thousand_experiments_stay_under_three_megabytes_whatever_they_print() -> None:
    records, artifacts = campaign(20)
    chance = Random(1)
    noise = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(200_000))
    many, left = [], {}
    for number in range(1001):
        like = records[1 + number % 20] if number else records[0]
        said = noise[number * 100 : number * 100 + 4000]
        many.append(replace(like, number=number, proposal=Proposal(f"{'<' * 300}{said}", said)))
        left[number] = replace(artifacts[like.number], diff=said * 4, log=said)
    size = len(page(many, left).encode())
    assert 2_500_000 < size < 3_000_000


def test_a_long_diff_keeps_its_beginning_and_its_end() -> None:
    text = "\n".join(f"+line {number}" for number in range(5000))
    cut = shortened(text, 2000)
    assert cut.startswith("+line 0\n")
    assert cut.endswith("+line 4999")
    assert "characters left out" in cut
    assert len(cut) < 2100
    assert shortened("+a\n", 10) == "+a"


# ------------------------------------------------------------------------------------------------- curves and artifacts


def test_curves_are_read_from_the_lines_of_our_own_training_script() -> None:
    log = "".join(
        f"step {step:05d} ({step / 10:.1f}%) | loss: {5 - step / 500:.6f} | lrm: 1.00 | dt: 12ms\n"
        for step in range(1, 1001)
    )
    found = curve("train", f"compiled\n{log}---\nval_bpb: 1.0\n", 100)
    assert found is not None
    assert (found.steps[0], found.steps[-1], len(found.steps)) == (1, 1000, 100)
    assert found.shares[-1] == 100.0
    assert found.losses[0] == pytest.approx(4.998)
    assert found.losses[-1] == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize(
    "line", ["step 3 loss: 2.5", "Step 3: train loss 2.5", "step=3, loss=2.5e0", "[2026] step #3 loss 2.5"]
)
def test_curves_are_read_from_other_lines_too(line: str) -> None:
    found = curve("train", line, 100)
    assert found is not None
    assert (list(found.steps), list(found.losses), list(found.shares)) == ([3], [2.5], [])


def test_a_log_without_steps_has_no_curve() -> None:
    assert curve("train", "loss: nan\nstep one loss two\nstep 1 loss: nan\n", 10) is None


def test_artifacts_are_the_change_the_curves_and_the_end_of_the_log(repo: Repo) -> None:
    repo.plan(0.9, "crash", "do:[print('step', n, 'loss:', 3 - n / 10) for n in range(9)]; block(0.8)")
    repo.run("--max", "3")
    records = repo.records()
    ratchet = Ratchet(repo.path)
    folder = repo.path / "experiments" / "runs" / "t"
    found = {
        one.number: artifact for one, artifact in gather(records, ratchet.git, lambda one: folder / f"{one.number:04d}")
    }
    assert found[0].diff == ""
    assert "+ACTION = '0.9'  # 1" in found[1].diff
    assert found[1].diff.startswith("diff --git a/train.py b/train.py")
    assert "the tensor is sad" in found[2].log
    assert list(found[3].curves[0].steps) == list(range(9))
    nowhere = dict(gather_by_number(records, ratchet.git))
    assert "the tensor is sad" in nowhere[2].log  # the record has it
    assert nowhere[3] == Artifact(diff=found[3].diff)


def gather_by_number(records: list[Experiment], git: Git) -> list[tuple[int, Artifact]]:
    return [(one.number, artifact) for one, artifact in gather(records, git, lambda _: Path("nowhere"))]


def test_a_commit_that_is_gone_takes_no_other_change_with_it(repo: Repo) -> None:
    repo.plan(0.9, 0.8)
    repo.run("--max", "2")
    records = repo.records()
    gone = replace(records[1], commit="f" * 40)
    found = dict(gather_by_number([records[0], gone, records[2]], Ratchet(repo.path).git))
    assert found[1].diff == ""
    assert "+ACTION = '0.8'  # 2" in found[2].diff


# --------------------------------------------------------------------------------------------------- when it is written


def writer(repo: Repo, records: list[Experiment], notices: list[str]) -> PageWriter:
    return PageWriter(repo.path, Git(repo.path), lambda _: repo.path, lambda: (records, ""), notices.append)


def test_a_session_writes_its_page_and_names_it(repo: Repo) -> None:
    repo.plan(0.9, HOSTILE, "crash")
    result = repo.run("--max", "3")
    result.stdout.fnmatch_lines(["*generated page: *report.html*"])
    text = (repo.path / "report.html").read_text()
    assert known(text)["rows"]["number"] == [0, 1, 2, 3]
    assert known(text)["running"] is False
    assert known(text)["left_out"] == 0
    assert "+ACTION = '0.9'  # 1" in details(text)[1]["diff"]
    assert not (repo.path / "progress.png").exists()  # a session of less than half a minute has none
    assert not list(repo.path.glob(".report*"))


def test_a_session_that_is_interrupted_leaves_its_page(repo: Repo) -> None:
    repo.plan(0.9, "hang")
    process = repo.start("--max", "2")
    repo.wait_for(lambda: len(repo.rows()) == 2)
    repo.end(process, 15)  # type: ignore[arg-type]
    assert known((repo.path / "report.html").read_text())["rows"]["number"] == [0, 1]


def test_a_page_of_somebody_else_is_left_alone_and_the_night_goes_on(repo: Repo) -> None:
    (repo.path / "report.html").write_text("<p>mine</p>")
    repo.plan(0.9)
    result = repo.run("--max", "1")
    result.stdout.fnmatch_lines(["note: report.html exists and is not a report of ours*"])
    assert result.ret == 0
    assert (repo.path / "report.html").read_text() == "<p>mine</p>"


def test_a_page_that_cannot_be_written_is_one_notice(repo: Repo) -> None:
    (repo.path / "report.html").mkdir()
    notices: list[str] = []
    pages = writer(repo, campaign(2)[0], notices)
    pages.finish()
    pages.finish()
    assert len(notices) == 1
    assert pages.written is None


def test_pages_take_little_of_a_sessions_time(repo: Repo) -> None:
    records, _ = campaign(20)
    pages = writer(repo, records, [])
    pages.checkpoint()
    assert pages.written is None  # a session of milliseconds waits for its end
    pages._began -= 200  # as if it had been so long
    pages.checkpoint()
    first = (repo.path / "report.html").stat()
    pages._began += 200 - 100 * pages._last  # all of a hundredth is used up
    pages.checkpoint()
    assert (repo.path / "report.html").stat().st_ino == first.st_ino
    pages._began -= 1000
    pages.checkpoint()
    assert (repo.path / "report.html").stat().st_ino != first.st_ino
    assert known((repo.path / "report.html").read_text())["running"] is True


@pytest.mark.usefixtures("pictures")
def test_a_session_of_half_a_minute_ends_with_its_picture_unless_a_signal_ends_it(repo: Repo) -> None:
    pages = writer(repo, campaign(3)[0], [])
    pages.finish()
    pages._began -= 30  # as if it had been so long
    pages.finish(hurried=True)
    assert not (repo.path / "progress.png").exists()
    pages.finish()
    assert (repo.path / "progress.png").exists()


def test_later_pages_take_up_what_earlier_ones_had_no_time_for(repo: Repo) -> None:
    records, _ = campaign(3)
    seen: list[Experiment] = records[:2]
    notices: list[str] = []
    pages = PageWriter(repo.path, Git(repo.path), lambda _: repo.path, lambda: (seen, "audited: fine"), notices.append)
    pages.finish()
    seen = records
    pages.finish()
    document = known((repo.path / "report.html").read_text())
    assert document["with"] == [0, 1, 2, 3]
    assert document["head"]["audit"] == "audited: fine"


# -------------------------------------------------------------------------------------------------- on the command line


@pytest.mark.usefixtures("pictures")
def test_the_command_writes_the_page_of_a_campaign_of_any_name(
    repo: Repo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.plan(0.9, 0.8)
    repo.run("--max", "1")
    repo.run("--max", "2", "--autoresearch-tag", "other")
    monkeypatch.chdir(repo.path)
    capsys.readouterr()
    assert main(["report", "t", "--output", "night.html", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tag"] == "t"
    assert said["experiments"] == 1  # the baseline is none
    assert said["bytes"] == (repo.path / "night.html").stat().st_size
    assert Path(said["picture"]).read_bytes().startswith(b"\x89PNG")
    assert main(["report"]) == 0
    assert known((repo.path / "report.html").read_text())["tag"] == "other"
    assert main(["report"]) == 0  # over its own files


def test_the_command_leaves_other_peoples_files_alone(
    repo: Repo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.plan(0.9)
    repo.run("--max", "1")
    monkeypatch.chdir(repo.path)
    (repo.path / "progress.png").write_bytes(b"\x89PNG of mine")
    assert main(["report"]) == 2
    assert "progress.png exists and is not a report of ours" in capsys.readouterr().err
    assert (repo.path / "progress.png").read_bytes() == b"\x89PNG of mine"
    assert main(["report", "--output", "train.py"]) == 2
    assert "ACTION" in (repo.path / "train.py").read_text()


def test_without_a_campaign_the_command_says_what_to_type(
    repo: Repo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo.path)
    assert main(["report"]) == 2
    assert "pytest --autoresearch" in capsys.readouterr().err


def test_about_says_that_the_session_goes_on() -> None:
    document = known(page(*campaign(1), About(running=True, position="1 of 2", written_at=5.0, left_out=3)))
    assert document["position"] == "1 of 2"
    assert (document["running"], document["written_at"], document["left_out"]) == (True, 5.0, 3)


def test_nobody_is_told_to_overwrite(tmp_path: Path) -> None:
    check(tmp_path / "new.html")
    (tmp_path / "old.html").write_text("old")
    with pytest.raises(UserError, match="is not replaced"):
        check(tmp_path / "old.html")
