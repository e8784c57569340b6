"""What a proposer sees of an earlier experiment, and what its notes become."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.campaign.digest import curve, looked_at
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.campaign.proposer_session import MOST_NOTES_BYTES, ExperimentSession
from pytest_autoresearch.core.artifacts import Artifacts
from pytest_autoresearch.core.experiment import Experiment, Proposal, Repair, Status, Usage, Verdict
from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Run


def record(number: int, **changes: object) -> Experiment:
    given = {
        "proposal": Proposal("halve the batch", "more steps", expected="-0.01", area="batch"),
        "runs": (Run(42, 1.2, metrics={"val_bpb": 1.2, "num_steps": 300.0}, training_seconds=15.0),),
        "verdict": Verdict(Status.DISCARD, "not-improved", "val_bpb 1.2, best 1.1 (+0.1)"),
        **changes,
    }
    return Experiment(number, "t", f"c{number}", "b", "t", **given)  # type: ignore[arg-type]


class Heard:
    """An experiment and its session."""

    def __init__(self, folder: Path, *records: Experiment) -> None:
        self.spent: list[Usage] = []
        self.said: list[str] = []
        self.flight = InFlight(7, place=0)
        self.session = ExperimentSession(
            self.flight,
            records,
            lambda record: f"diff of {record.number}",
            Artifacts(folder),
            self.spent.append,
            self.said.append,
        )


def test_a_look_shows_the_record_the_diff_the_curve_and_the_end_of_the_log() -> None:
    log = "".join(f"step {n:05d} (1.0%) | loss: {5 - n / 100:.6f} | dt: 40ms\n" for n in range(200)) + "val_bpb: 1.2\n"
    said = looked_at(
        record(3, repairs=(Repair(Stage.PREFLIGHT, Crash(CrashClass.EXIT, "NameError: x", 1)),)), "-a\n+b", log
    )
    assert "experiment 0003: halve the batch" in said
    assert "verdict: discard: val_bpb 1.2, best 1.1 (+0.1)" in said
    assert "expected: -0.01" in said
    assert "repaired after preflight: exit 1: NameError: x" in said
    assert "num_steps 300" in said
    assert "-a\n+b" in said
    assert "loss by step: 0 5, " in said
    assert ", 199 3.01" in said
    assert said.endswith("val_bpb: 1.2")


@given(st.text(max_size=300), st.text(max_size=300), st.integers(1, 200))
def test_a_look_is_bounded_whatever_was_printed(diff: str, log: str, times: int) -> None:
    proposal = Proposal(diff * times, log * times, expected=log * times, area=diff * times)
    verdict = Verdict(Status.DISCARD, "r", log * times)
    assert len(looked_at(record(3, proposal=proposal, verdict=verdict), diff * times, log * times)) <= 12_000


def test_a_curve_is_drawn_from_few_points_with_the_first_and_the_last() -> None:
    points = curve("\n".join(f"step {n} loss: {n}" for n in range(1000)))
    assert len(points) == 20
    assert (points[0], points[-1]) == ((0, 0.0), (999, 999.0))
    assert curve("nothing of the kind\nstep x loss: y\nstep 3 loss: 1e") == []


def test_a_crash_shows_its_log_where_the_file_is_gone(tmp_path: Path) -> None:
    crashed = record(2, runs=(Run(42, None, crash=Crash(CrashClass.EXIT, "no", 1), log="Traceback: no"),))
    assert "Traceback: no" in Heard(tmp_path, crashed).session.look(2)


def test_nothing_that_the_scorer_said_is_shown(tmp_path: Path) -> None:
    (tmp_path / "0003").mkdir()
    log = "step 1 loss: 2\n--- scoring ---\nvalidation text\n--- scoring ---\nmore of it\n"
    (tmp_path / "0003" / "train.log").write_text(log)
    said = Heard(tmp_path, record(3)).session.look(3)
    assert "step 1 loss: 2" in said
    assert "diff of 3" in said
    assert "validation text" not in said
    assert "more of it" not in said


def test_a_number_that_is_none_is_answered_with_those_that_are(tmp_path: Path) -> None:
    assert (
        Heard(tmp_path, record(0), record(3)).session.look(9) == "there is no experiment 0009: there are 0000 to 0003"
    )
    assert Heard(tmp_path).session.look(1) == "there is no experiment 0001: there are none yet"


def test_notes_are_rewritten_cut_and_known_to_the_next(tmp_path: Path) -> None:
    first = Heard(tmp_path, record(0))
    first.session.note("x" * 10)
    first.session.note("ä" * MOST_NOTES_BYTES)
    assert first.flight.notes == "ä" * (MOST_NOTES_BYTES // 2)
    assert Heard(tmp_path, record(0)).session.known_notes == first.flight.notes
    assert Heard(tmp_path, record(0)).flight.notes == ""


def test_notes_come_from_the_records_where_the_file_is_gone_and_from_a_person_where_it_was_edited(
    tmp_path: Path,
) -> None:
    records = record(0), record(1, notes="depth does not pay"), record(2, notes="")
    assert Heard(tmp_path, *records).session.known_notes == "depth does not pay"
    (tmp_path / "notes.md").write_text("by hand\n")
    assert Heard(tmp_path, *records).session.known_notes == "by hand"


def test_usage_adds_up_and_is_told_at_once(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    heard.session.spent(Usage("m", 1, 100, 10, 5, 0, 0.25))
    heard.session.spent(Usage("m", 1, 100, 10, 5, 7, 0.5))
    assert heard.flight.usage == Usage("m", 2, 200, 20, 10, 7, 0.75)
    assert heard.flight.usage.tokens == 237
    assert len(heard.spent) == 2
    heard.session.spent(Usage("n", 1, 1, cost_usd=None))
    assert heard.flight.usage.cost_usd is None


def test_what_is_left_for_people_lies_with_the_experiment(tmp_path: Path) -> None:
    Heard(tmp_path).session.keep("agent.log", "it said\ud800 this")
    assert (tmp_path / "0007" / "agent.log").read_text() == "it said? this"
