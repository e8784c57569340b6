"""What a scorer is told of the campaign, so that it can be suspicious where it pays, and what becomes of its no."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from repo import Repo

TRAIN = """
import json, os, socket
ACTION = "1.0"
def main():
    out = os.environ["AUTORESEARCH_OUT"]
    with socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"])) as parent:
        parent.sendall(b"begin\\n")
        parent.recv(8)
    told = sorted(name for name in os.environ if "PROBE" in name or "NATS" in name or "BASELINE" in name)
    open(out + "/model.pt", "w").write(json.dumps([ACTION, told]))
if __name__ == "__main__":
    main()
"""

SCORER = """
import json, os, pathlib, sys
action, told = json.load(open(os.environ["AUTORESEARCH_OUT"] + "/model.pt"))
assert told == [], told
names = [name for name in os.environ if "PROBE" in name or "NATS" in name or "BASELINE" in name]
with open(".git/told", "a") as file:
    print(json.dumps({name.removeprefix("AUTORESEARCH_"): os.environ[name] for name in names}), file=file)
number, _, cheats = action.partition(" ")
below = float(os.environ.get("AUTORESEARCH_PROBE_BELOW", "-inf"))
if cheats and float(number) < below:
    sys.exit("harness: rejected: looks ahead: at 7 of 1,008 cuts.")
pathlib.Path(os.environ["AUTORESEARCH_NATS"]).write_text(number)
if os.environ.get("AUTORESEARCH_PROBE_CALIBRATE"):
    print("probe_threshold: 0.002")
    print("load_seconds: 0.5")
print("val_bpb:", number)
"""

DESCRIBED = {"budget_seconds": 20, "scorer_prints": ["probe_cuts"]}


@pytest.fixture
def scored(repo: Repo) -> Repo:
    data = repo.path / ".git" / "validation"
    data.write_text("rows")
    repo.scored_by(SCORER, TRAIN, data_files=[str(data)], **DESCRIBED)
    return repo


def told(repo: Repo) -> list[dict[str, str]]:
    return [json.loads(line) for line in (repo.path / ".git" / "told").read_text().splitlines()]


def test_a_scorer_learns_what_is_to_be_beaten_and_its_no_is_a_crash(scored: Repo) -> None:
    scored.plan("0.9", "0.5 cheats", "1.5 cheats", "0.8")
    scored.run("--max", "4", "--autoresearch-lanes", "1")
    records = scored.records()
    assert [str(record.verdict.status) for record in records if record.verdict] == [
        "keep", "keep", "crash", "discard", "keep",
    ]  # fmt: skip
    rejected = records[2].verdict
    assert rejected is not None
    assert (rejected.reason, rejected.message) == ("rejected", "rejected: looks ahead: at 7 of 1,008 cuts.")
    scored.check_ledger()
    said = told(scored)
    files = [Path(one["NATS"]) for one in said]
    assert [path.stem for path in files] == [record.commit for record in records]
    assert said[0].keys() == {"NATS", "PROBE_CALIBRATE"}
    assert all(float(one["PROBE_THRESHOLD"]) == 0.002 for one in said[1:])
    assert all(float(one["BASELINE_LOAD_SECONDS"]) == 0.5 for one in said[1:])
    assert [float(one["PROBE_BELOW"]) for one in said[1:]] == [1.0, 0.9, 0.9, 0.9]
    best = [str(files[0]), *[str(files[1])] * 3]
    assert [one["INCUMBENT_NATS"] for one in said[1:]] == best
    left = {path for path in files if path.exists()}
    assert left == {files[0], files[1], files[4]}, "the baseline, the best and what it was made from"


def test_a_scorer_that_never_asked_for_it_is_not_told_to_probe(scored: Repo) -> None:
    (scored.path / "score.py").write_text(SCORER.replace("probe_threshold", "something_else"))
    scored.commit("Another scorer")
    scored.plan("0.9 cheats")
    scored.run("--max", "1")
    assert [set(one) for one in told(scored)] == [{"NATS", "PROBE_CALIBRATE"}, {"NATS", "BASELINE_LOAD_SECONDS"}]
    assert scored.statuses() == {0: "keep", 1: "keep"}


SPOOFED = """
    print("---")
    for name in ("probe_threshold", "load_seconds", "evaluation_seconds", "probe_cuts", "probe_leaks", "best", "gain"):
        print(name + ": 1000000")
"""


def test_training_cannot_print_a_number_of_the_scorer(scored: Repo) -> None:
    scored.write("train.py", TRAIN.replace("if __name__", SPOOFED.lstrip("\n") + "if __name__"))
    scored.commit("A program that prints what a scorer prints")
    scored.plan("0.9", "0.5 cheats")
    result = scored.run("--max", "2", "--autoresearch-lanes", "1", "--autoresearch-confirm", "standard")
    assert result.ret == 0, result.stdout.str()
    records = scored.records()
    assert len(records[0].runs) > 1, "only the first run of the baseline is calibrated"
    limited = [one for one in told(scored) if "PROBE_BELOW" in one]
    assert limited
    assert {one["PROBE_THRESHOLD"] for one in limited} == {"0.002"}
    assert {one["BASELINE_LOAD_SECONDS"] for one in limited} == {"0.5"}
    assert not any("BASELINE_EVALUATION_SECONDS" in one for one in limited), "this scorer prints no such number"
    assert [run.scored for run in records[1].runs] == [{"val_bpb": run.metric} for run in records[1].runs]
    assert records[1].runs[0].metrics["probe_leaks"] == 1_000_000
    assert "probe_cuts" not in records[1].runs[0].metrics, "which the harness names as one of its scorer's"
    assert scored.reasons()[2] == "rejected"
    said = {one.get("name"): one.get("value") for one in scored.case(1).iter("property")}
    assert said["best"] == "1.000000"
    assert len(said) == len(list(scored.case(1).iter("property"))), "no name stands there twice"


@pytest.mark.parametrize("name", ["score.py", ".git/validation"])
def test_a_file_that_decides_and_changes_under_way_stops_the_campaign_with_nothing_recorded(
    scored: Repo, name: str
) -> None:
    scored.plan("0.9", "0.8")
    scored.hooks(
        f"""
        def pytest_autoresearch_guard(campaign, context, proposal):
            if context.number == 2 and not (context.root / ".git" / "done").exists():
                (context.root / ".git" / "done").touch()
                path = context.root / {name!r}
                path.write_text(path.read_text() + "\\n# another\\n")
        """
    )
    result = scored.run("--max", "2", "--autoresearch-lanes", "1")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*{name} was changed while the session ran*restore it and rerun the same command*"])
    assert scored.statuses() == {0: "keep", 1: "keep"}
    scored.check_ledger()
    path = scored.path / name
    path.write_text(path.read_text().removesuffix("\n# another\n"))
    scored.run("--max", "1")
    assert scored.records()[2].proposal.description == "action 2: 0.8"
    assert scored.statuses() == {0: "keep", 1: "keep", 2: "keep"}
