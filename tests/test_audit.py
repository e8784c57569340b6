"""The final audit: its arithmetic, and whole audits of small campaigns with a noisy trainer."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repo import CONFIG, Repo

from pytest_autoresearch.cli import main
from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Role, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit, AuditSide, Rows, compare, turns
from pytest_autoresearch.ledger.ratchet import Ratchet

MINIMIZE, MAXIMIZE = Direction
samples = st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=8)

# ------------------------------------------------------------------------------------------------------ arithmetic


def test_welchs_test_of_a_table_comes_out_as_by_hand() -> None:
    first, last = [30.02, 29.99, 30.11, 29.97, 30.01, 29.99], [29.89, 29.93, 29.72, 29.98, 30.02, 29.98]
    # Means 30.015 and 29.92; sums of squares 0.01235 and 0.0582; squared errors of the means 0.000411667 and 0.00194;
    # t = 0.095 / sqrt(0.002351667) = 1.9590; freedom 0.002351667^2 / ((0.000411667^2 + 0.00194^2) / 5) = 7.0306; the
    # two-sided p that goes with them is 0.09077.
    found = compare(first, last, MINIMIZE)
    assert found.gain == pytest.approx(0.095)
    assert found.freedom == pytest.approx(7.0306, abs=1e-3)
    assert found.margin == pytest.approx(2.363 * math.sqrt(0.002351667), rel=1e-3)
    assert found.p == pytest.approx(0.09077 / 2, abs=1e-4)
    assert not found.shown


@given(samples, samples, st.integers(-1000, 1000), st.sampled_from([0.001, 0.25, 3.0, 1024.0]))
def test_neither_a_shift_nor_a_scale_nor_the_direction_changes_the_verdict(
    first: list[int], last: list[int], shift: int, scale: float
) -> None:
    plain = compare(first, last, MINIMIZE)
    others = [
        (1.0, compare([x + shift for x in first], [x + shift for x in last], MINIMIZE)),
        (scale, compare([x * scale for x in first], [x * scale for x in last], MINIMIZE)),
        (1.0, compare([-x for x in first], [-x for x in last], MAXIMIZE)),
    ]
    for unit, other in others:
        assert other.gain == pytest.approx(unit * plain.gain, rel=1e-6, abs=1e-6 * unit)
        assert other.margin == pytest.approx(unit * plain.margin, rel=1e-6, abs=1e-6 * unit)
        if plain.margin > 1e-3:
            assert other.p == pytest.approx(plain.p, abs=1e-6)


@given(samples, samples)
def test_a_claim_and_its_interval_agree_and_the_other_way_round_it_is_the_other_way_round(
    first: list[int], last: list[int]
) -> None:
    found, back = compare(first, last, MINIMIZE), compare(last, first, MINIMIZE)
    assert back.gain == -found.gain
    assert back.margin == found.margin
    if found.margin:
        assert found.p + back.p == pytest.approx(1)
        assert (found.p < 0.025) == (found.gain > found.margin) or found.p == pytest.approx(0.025)


def test_runs_that_do_not_differ_at_all_decide_by_themselves() -> None:
    better, worse, same = (compare([2.0] * 5, [last] * 5, MINIMIZE) for last in (1.0, 3.0, 2.0))
    assert (better.gain, better.margin, better.p, better.shown) == (1.0, 0.0, 0.0, True)
    assert (worse.p, worse.shown) == (1.0, False)
    assert (same.gain, same.p, same.shown) == (0.0, 1.0, False)
    one_sided = compare([2.0] * 5, [1.0, 1.1, 0.9, 1.0, 1.0], MINIMIZE)
    assert one_sided.freedom == pytest.approx(4)
    assert one_sided.shown
    huge = compare([1e308, -1e308, 1e308], [1e308, -1e308, -1e308], MINIMIZE)
    assert not huge.shown
    with pytest.raises(ValueError, match="two runs of each commit"):
        compare([1.0], [1.0, 2.0], MINIMIZE)


def test_the_order_cancels_a_drift_and_no_seed_comes_twice() -> None:
    plan = turns(5, [42, 47, 43])
    assert "".join(turn.side[0] for turn in plan) == "fllffllffl"
    assert [turn.seed for turn in plan] == list(range(48, 58))
    drift = {side: [float(at) for at, turn in enumerate(turns(4, [])) if turn.side is side] for side in AuditSide}
    assert sum(drift[AuditSide.FIRST]) == sum(drift[AuditSide.LAST])


# ----------------------------------------------------------------------------------------------------- in words


def made(first: list[float | None], last: list[float | None], rows: Rows = Rows.AUDIT, finished: float = 1.0) -> Audit:
    both = [("a" * 40, metric) for metric in first] + [("b" * 40, metric) for metric in last]
    runs = tuple(
        Run(
            seed,
            metric,
            commit=commit,
            role=Role.AUDIT,
            crash=None if metric is not None else Crash(CrashClass.OOM, "too much"),
        )
        for seed, (commit, metric) in enumerate(both)
    )
    return Audit(
        "t", "a" * 40, "b" * 40, 17, "val_bpb", MINIMIZE, rows, runs, Limits(300.0, 30.0, 600.0), Setting(), finished
    )


GOOD: list[float | None] = [0.9700, 0.9702, 0.9701, 0.9699, 0.9702]
BASE: list[float | None] = [0.9977, 0.9978, 0.9979, 0.9975, 0.9976]


def test_of_runs_that_do_not_differ_nothing_is_said_of_seeds() -> None:
    name = "deterministic, or AUTORESEARCH_SEED is not read"
    first: list[float | None] = [2.0] * 5
    assert audit.sentence(made(first, [1.5] * 5, Rows.VERDICT)) == (
        f"audited on the validation rows that decided: val_bpb lower by 0.5 in each of 5 + 5 runs ({name})"
    )
    assert audit.sentence(made(first, [1.5] * 2)) == (
        f"audited on rows that no verdict used: val_bpb lower by 0.5 in each of 5 + 2 runs ({name}): no improvement is "
        "shown, which takes 5 runs of each"
    )
    assert audit.sentence(made(first, first)).endswith(
        f"val_bpb the same in each of 5 + 5 runs ({name}): no improvement is shown"
    )
    assert audit.claim(made(first, [1.5] * 5)) == f"audited: lower by 0.5 ({name})"


def test_the_sentence_says_the_difference_its_interval_its_p_and_on_what() -> None:
    assert audit.sentence(made(BASE, GOOD)) == (
        "audited on rows that no verdict used: val_bpb lower by 0.02762 ± 0.00021 (95%), p < 0.0001, 5 + 5 runs"
    )
    assert audit.claim(made(BASE, GOOD)) == "audited: lower by 0.02762 ± 0.00021 (p < 0.0001)"
    same = audit.sentence(made(BASE, GOOD, Rows.VERDICT))
    assert same.startswith("audited on fresh seeds, on the validation rows that decided: val_bpb lower by 0.0276")
    assert audit.claim(made(BASE, GOOD, Rows.VERDICT)).endswith("(p < 0.0001, on the validation rows that decided)")


def test_what_shows_nothing_is_said_to_show_nothing() -> None:
    worse = audit.sentence(made(GOOD, BASE))
    assert "val_bpb higher by 0.02762 ± 0.00021 (95%), p = 1.0, 5 + 5 runs: no improvement is shown" in worse
    assert audit.claim(made(GOOD, BASE)) == "the audit shows no gain: higher by 0.02762 ± 0.00021 (p = 1.0)"
    assert audit.claim(None) == "not audited"
    crashed = made(BASE, [0.97, None, 0.9703, None, 0.9701])
    assert audit.sentence(crashed).endswith("5 + 3 runs (2 more crashed, the first by oom: too much)")
    nothing = made(BASE, [0.97, None, None])
    assert (nothing.difference, nothing.shown) == (None, False)
    assert "val_bpb cannot be compared, 2 of its runs crashed, the first by oom: too much" in audit.sentence(nothing)
    assert audit.claim(nothing) == "the audit has no result: too many runs crashed"


@pytest.mark.parametrize(
    ("value", "margin", "said"),
    [
        (0.0276, 0.0003, ("0.0276", "0.0003")),
        (0.0012, 0.0009, ("0.00120", "0.00090")),
        (0.02761, 0.00014, ("0.02761", "0.00014")),
        (17.52, 0.5, ("17.5", "0.5")),
        (12345.6, 210.0, ("12346", "210")),
        (0.5, 0.0, ("0.5", "0")),
        (1e20, 1e18, ("1e+20", "1e+18")),
    ],
)
def test_numbers_have_the_digits_that_their_margin_allows(value: float, margin: float, said: tuple[str, str]) -> None:
    assert audit.rounded(value, margin) == said


def test_an_audit_is_read_as_it_was_written() -> None:
    before = made([*BASE, None], GOOD)
    text = audit.encode(before)
    assert audit.decode(text) == before
    document = json.loads(text)
    assert next(iter(document)) == "schema"
    assert (document["gain"], document["shown"]) == (pytest.approx(0.02762), True)
    assert document["interval"][0] < document["gain"] < document["interval"][1]
    for broken in ('{"schema": 2}', "{}", "[]", "no"):
        with pytest.raises(ValueError):  # noqa: PT011
            audit.decode(broken)


def test_the_reference_names_what_an_audit_records() -> None:
    reference = (Path(__file__).parent.parent / "docs" / "reference.md").read_text().split("### Audits")[1]
    assert {name for name in json.loads(audit.encode(made(BASE, GOOD))) if f"`{name}`" not in reference} == set()


def test_the_first_audit_that_could_say_something_counts(repo: Repo) -> None:
    nothing, first, second = made([None], [None]), made(BASE, BASE, finished=2.0), made(BASE, GOOD, finished=3.0)

    class Kept:
        def __init__(self, commit: str) -> None:
            self.commit = commit

    line = [Kept("a" * 40), Kept("c" * 40), Kept("b" * 40)]
    assert audit.of([second, first, nothing], line) == first  # type: ignore[arg-type]
    assert audit.of([nothing], line) == nothing  # type: ignore[arg-type]
    assert audit.of([first], line[:2]) is None  # type: ignore[arg-type]
    assert audit.of([first], line[:1]) is None  # type: ignore[arg-type]
    short = made(BASE[:2], BASE[:2], finished=1.0)
    assert audit.of([short], line) == short  # type: ignore[arg-type]
    assert audit.of([short, second, first], line) == first  # type: ignore[arg-type]
    crashed = made(BASE, [*GOOD[:4], None], finished=1.5)
    assert audit.of([second, first, crashed], line) == crashed  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- whole audits

NOISY = """
import os, random, time

ACTION = "1.0"
seed = int(os.environ["AUTORESEARCH_SEED"])
mean, _, rest = ACTION.partition(":")
if rest == "late" and seed > 60:
    raise RuntimeError("the tensor is sad")
if rest == "hang" or (rest == "slow" and seed > 46):
    open(os.environ["AUTORESEARCH_OUT"] + "/hanging", "w").close()
    time.sleep(1000)
print("val_bpb:", f"{float(mean) + random.Random(seed).uniform(-1, 1) * 0.01:.6f}")
"""


@pytest.fixture
def noisy(repo: Repo) -> Repo:
    repo.write("train.py", NOISY)
    repo.write("pytest.ini", f"{CONFIG}\nautoresearch_sandbox = off\n")
    repo.commit("Noise")
    return repo


def hanging(repo: Repo) -> bool:
    return any((repo.path / ".git/autoresearch").glob("lane-*-out/hanging"))


def auditing(repo: Repo, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys, pytest_autoresearch.cli as cli; sys.exit(cli.main())", "audit", *arguments],
        cwd=repo.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def audited(repo: Repo, *arguments: str) -> tuple[int, str, str]:
    """`autoresearch audit …` to its end, in this process: its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(["-C", str(repo.path), "audit", *arguments])
        except SystemExit as end:  # of argparse
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


def test_an_audit_runs_both_ends_anew_and_is_recorded_for_good(noisy: Repo) -> None:
    noisy.plan(0.9, 1.5, 0.8)
    noisy.run("--max", "3")
    status, out, err = audited(noisy, "t")
    assert (status, err) == (0, "")
    first, *runs, sentence = out.splitlines()
    assert first.startswith("auditing t: ")
    assert [line.split()[:2] for line in runs[:3]] == [["1/10", "first:"], ["2/10", "last:"], ["3/10", "last:"]]
    assert len(runs) == 10
    assert re.fullmatch(
        r"audited on fresh seeds, on the validation rows that decided: "
        r"val_bpb lower by 0\.(19|20)\d+ ± 0\.0\d+ \(95%\), "
        r"p < 0\.0001, 5 \+ 5 runs",
        sentence,
    )
    (one,) = Ratchet(noisy.path).audits("t")
    base, last = noisy.records()[0], noisy.records()[3]
    assert (one.first, one.last, one.last_number) == (base.commit, last.commit, 3)
    assert {run.role for run in one.runs} == {"audit"}
    # Seeds that no run of the campaign had, none of them twice.
    known = {run.seed for record in noisy.records() for run in record.runs}
    assert len({run.seed for run in one.runs} - known) == 10
    assert len(one.metrics(AuditSide.FIRST)) == len(one.metrics(AuditSide.LAST)) == 5
    (name,) = noisy.git("for-each-ref", "--format=%(refname)", "refs/autoresearch/t/audit/").split()
    assert noisy.git("cat-file", "-t", name) == "tag"
    assert json.loads(noisy.git("for-each-ref", "--format=%(contents)", name))["sentence"] == sentence
    # It is in nobody's way.
    noisy.check_ledger()
    assert list(Ratchet(noisy.path).campaigns()) == ["t"]
    assert re.search(
        r"luck; audited: lower by 0\.(19|20)\d+ ± 0\.0\d+ \(p < 0\.0001", noisy.run("--max", "1").stdout.str()
    )
    status, out, _ = audited(noisy, "--json", "--runs", "2")
    document = json.loads(out)
    assert (status, len(document["runs"]), document["rows"]) == (0, 4, "verdict")
    assert not {run["seed"] for run in document["runs"]} & {run.seed for run in one.runs}
    assert len(Ratchet(noisy.path).audits("t")) == 2


def test_luck_is_not_confirmed(noisy: Repo) -> None:
    noisy.plan("0.999")
    noisy.run("--max", "1")
    assert noisy.statuses() == {0: "keep", 1: "keep"}
    status, out, _ = audited(noisy)
    assert status == 1
    assert out.splitlines()[-1].endswith("5 + 5 runs: no improvement is shown")
    assert "the audit shows no gain: " in noisy.run("--max", "1").stdout.str()


def test_an_audit_of_what_crashes_says_so_and_ends_when_it_cannot_say_anything(noisy: Repo) -> None:
    noisy.plan("0.9:late")
    noisy.run("--max", "1")
    for _ in range(2):  # on seeds 43 to 52, then 53 to 62
        audited(noisy)
        assert len(Ratchet(noisy.path).audits("t")[-1].runs) == 10
    assert "5 + 4 runs (1 more crashed, the first by exit 1: RuntimeError: the tensor is sad)" in audit.sentence(
        Ratchet(noisy.path).audits("t")[-1]
    )
    status, out, _ = audited(noisy)
    assert status == 1
    assert "val_bpb cannot be compared, 4 of its runs crashed" in out.splitlines()[-2]
    assert out.splitlines()[-1].startswith("reports quote an earlier audit")
    assert len(Ratchet(noisy.path).audits("t")[-1].runs) < 10


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_audit_leaves_no_process_and_no_record(noisy: Repo, number: signal.Signals) -> None:
    noisy.plan("0.9:slow")
    noisy.run("--max", "1")
    process = auditing(noisy)
    noisy.wait_for(lambda: hanging(noisy))
    # Nor does a session begin meanwhile, which would take part in the machine.
    other = noisy.run("--max", "1")
    assert other.ret == 4
    assert "the campaign t is being audited" in other.stderr.str()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "the audit was interrupted, and nothing was recorded" in err
    assert "5/10 first" in out
    assert "6/10" not in out
    assert noisy.training() == []
    assert Ratchet(noisy.path).audits("t") == []


def test_there_is_nothing_to_audit_where_nothing_was_kept_or_a_session_runs(noisy: Repo) -> None:
    assert audited(noisy)[0] == 2
    noisy.plan(1.5, 0.9, "0.8:hang")
    noisy.run("--max", "1")
    status, out, err = audited(noisy)
    assert (status, out) == (2, "")
    assert "nothing was kept in t, so there is nothing to audit" in err
    noisy.run("--max", "1")
    process = noisy.start("--max", "1")
    noisy.wait_for(lambda: hanging(noisy))
    assert "a session of the campaign t runs here: wait until it has ended" in audited(noisy)[2]
    noisy.end(process, signal.SIGINT)
    assert "--runs: give a whole number, 2 or more" in audited(noisy, "--runs", "1")[2]


def test_what_decides_must_be_as_it_was(noisy: Repo) -> None:
    noisy.write("judge/rules.txt", "one\n")
    noisy.write("pytest.ini", f"{CONFIG}\nautoresearch_sandbox = off\nautoresearch_frozen = judge\n")
    noisy.commit()
    noisy.plan(0.9)
    noisy.run("--max", "1")
    noisy.write("judge/rules.txt", "two\n")
    assert "judge/rules.txt decides what is measured and has uncommitted changes" in audited(noisy)[2]
    noisy.commit()
    assert "the campaign t was measured with other harness" in audited(noisy)[2]


SCORER = """
import os, pathlib, sys
rows = os.environ.get("AUTORESEARCH_ROWS", "metric")
value = float(pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model.pt").read_text()) + (1.0 if rows == "audit" else 0.0)
pathlib.Path(".git/said").open("a").write(f"{rows} {sorted(n for n in os.environ if 'NATS' in n)}\\n")
print("val_bpb:", value)
"""
LEAVES = """
import os, random, socket

ACTION = "1.0"
assert "AUTORESEARCH_ROWS" not in os.environ
clock = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
clock.setblocking(True)
clock.sendall(b"begin\\n")
clock.recv(16)
noise = random.Random(int(os.environ["AUTORESEARCH_SEED"])).uniform(-1, 1) * 0.01
part = os.environ["AUTORESEARCH_OUT"] + "/model.part"
with open(part, "w") as file:
    file.write(str(float(ACTION) + noise))
os.replace(part, os.environ["AUTORESEARCH_OUT"] + "/model.pt")
"""


ON_AUDIT_ROWS = {"device": "cpu", "audit_environment": {"AUTORESEARCH_ROWS": "audit"}}


def test_a_session_audits_what_it_kept_on_rows_that_the_scorer_alone_is_told_of(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.scored_by(SCORER, LEAVES, **ON_AUDIT_ROWS)
    repo.plan(1.5, 0.9, 1.5)
    monkeypatch.setenv("AUTORESEARCH_ROWS", "audit")  # left over in the user's shell: no verdict may hear of it
    quiet = repo.run("--max", "1", "--autoresearch-audit").stdout.str()
    assert "auditing" not in quiet  # nothing was kept
    output = repo.run("--max", "1", "--autoresearch-audit").stdout.str()
    assert "...   auditing t: " in output
    assert "...   10/10 last: " in output
    assert "...   audited on rows that no verdict used: val_bpb lower by 0." in output
    assert re.search(r"luck; audited: lower by 0\.(09|10)\d+ ± 0\.0\d+ \(p < 0\.0001\)", output)
    lines = (repo.path / ".git/said").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["metric"] * 3 + ["audit"] * 10
    assert {line.split(" ", 1)[1] for line in lines[3:]} == {"[]"}  # and nothing is kept of those rows
    (one,) = Ratchet(repo.path).audits("t")
    assert one.rows is Rows.AUDIT
    assert min(one.metrics(AuditSide.LAST)) > 1.5
    repo.check_ledger()
    assert "auditing" not in repo.run("--max", "1", "--autoresearch-audit").stdout.str()


def test_a_scorer_that_probes_may_compare_both_programs_on_audit_rows_until_the_audit_ends(repo: Repo) -> None:
    scorer = SCORER.replace("if 'NATS' in n", "if 'NATS' in n or 'FRESH' in n") + (
        'print("probe_threshold: 0.1")\n'
        'if nats := os.environ.get("AUTORESEARCH_NATS"): pathlib.Path(nats).touch()\n'
        'if first := os.environ.get("AUTORESEARCH_BASELINE_NATS"): assert pathlib.Path(first).exists()\n'
    )
    repo.scored_by(scorer, LEAVES, **ON_AUDIT_ROWS)
    repo.plan(0.9)
    repo.run("--max", "1", "--autoresearch-audit")
    first, last = "['AUTORESEARCH_FRESH', 'AUTORESEARCH_NATS']", "['AUTORESEARCH_BASELINE_NATS']"
    lines = [line.split(" ", 1) for line in (repo.path / ".git/said").read_text().splitlines()]
    turns = [first, last, last, first, first, last, last, first, first, last]
    assert [told for rows, told in lines if rows == "audit"] == turns
    losses = repo.path / ".git" / "autoresearch" / "losses" / "t"
    assert sorted(path.suffix for path in losses.iterdir()) == [".npy", ".npy"], "of verdicts only"


def test_a_signal_during_the_audit_of_a_session_ends_it_with_every_report(noisy: Repo) -> None:
    ran = noisy.path / ".git" / "ran"  # its seeds are random, so that it hangs in its second run
    again = f"rest == 'slow' and os.path.exists({str(ran)!r})"
    noisy.write(
        "train.py",
        NOISY.replace('rest == "slow" and seed > 46', again) + f"rest == 'slow' and open({str(ran)!r}, 'w')\n",
    )
    noisy.commit("Slow the second time")
    noisy.plan("0.9:slow")
    process = noisy.start("--max", "1", "--autoresearch-audit")
    noisy.wait_for(lambda: hanging(noisy))
    output = noisy.end(process, signal.SIGTERM)
    assert process.returncode == 2, output
    assert "ended: stopped by SIGTERM during the audit: rerun it with `autoresearch audit`" in output
    assert "note: not audited: the audit was interrupted" in output
    assert noisy.training() == []
    assert Ratchet(noisy.path).audits("t") == []
    assert len(noisy.cases()) == 2
    noisy.check_ledger()
