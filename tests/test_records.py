"""Records and `results.tsv`: whatever is said and measured, nothing is lost, bent or doubled."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from places import Place, attempt, git, judged

from pytest_autoresearch.core.experiment import (
    Decision,
    Direction,
    Experiment,
    Proposal,
    Reason,
    Status,
    Verdict,
)
from pytest_autoresearch.core.history import chain, untried
from pytest_autoresearch.core.records import decode, encode
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Role, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.ledger.results_tsv import ResultsFile, header, row

quick = settings(deadline=None)  # on a busy machine any one example may take its time
synced = settings(deadline=None, max_examples=25)  # each example waits for the disk


def joined(text: str) -> str:
    """A pair of surrogates as the one character that it means: no JSON, and no UTF, can tell the two apart."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


NASTY = (
    *("", "\0", '"', '""', '"a\tb', "'", "\\", "\r\n", "\u2028", "\x1b[31m"),
    *("é", "😀", "\ud800", "\udcff", '{"schema": 2}', "NaN"),
)
PARTS = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=()), max_size=20)
TEXTS = st.lists(PARTS, max_size=3).map("".join).map(joined)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
ANY_NUMBER = st.floats()  # NaN and the infinities too
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
HASHES = st.text("0123456789abcdef", min_size=40, max_size=40)
CODES = st.none() | st.integers(0, 255)
CRASHES = st.builds(
    Crash.of, st.sampled_from([*map(str, CrashClass)]) | TEXTS | st.sampled_from(["exit 01", "signal x"]), TEXTS
) | (st.builds(Crash, st.sampled_from([CrashClass.EXIT, CrashClass.SIGNAL]), TEXTS, CODES))
RUNS = st.builds(
    Run,
    seed=st.integers(0, 2**63),
    metric=st.none() | ANY_NUMBER,
    reported=st.none() | ANY_NUMBER,
    metrics=st.dictionaries(NAMES, ANY_NUMBER, max_size=3),
    training_seconds=ANY_NUMBER,
    startup_seconds=ANY_NUMBER,
    score_seconds=ANY_NUMBER,
    total_seconds=ANY_NUMBER,
    peak_memory_mb=ANY_NUMBER,
    memory_from=TEXTS,
    resident_mb=ANY_NUMBER,
    allocator_mb=st.none() | ANY_NUMBER,
    lane=st.integers(0, 7),
    device=TEXTS,
    others=st.none() | st.lists(TEXTS, max_size=2).map(tuple),
    throttling=st.none() | st.dictionaries(NAMES, NUMBERS, max_size=2),
    variables=st.dictionaries(NAMES, TEXTS, max_size=2),
    score_transport=st.sampled_from(["", "cuda-ipc"]),
    exit_status=st.none() | st.integers(-64, 255),
    crash=st.none() | CRASHES,
    log=TEXTS,
    role=st.sampled_from(Role),
    startup_cpu_seconds=st.none() | ANY_NUMBER,
    startup_gpu_seconds=st.none() | ANY_NUMBER,
)
PROPOSALS = st.builds(
    Proposal, TEXTS, TEXTS, TEXTS, TEXTS,
    st.dictionaries(TEXTS, ANY_NUMBER | st.integers() | st.booleans(), max_size=3), HASHES | st.just(""),
)  # fmt: skip
EXPERIMENTS = st.builds(
    Experiment,
    number=st.integers(0, 99_999),
    tag=TEXTS,
    commit=HASHES,
    base=HASHES,
    tree=HASHES,
    proposal=PROPOSALS,
    runs=st.lists(RUNS, max_size=3).map(tuple),
    limits=st.builds(Limits, *[ANY_NUMBER] * 6),
    metric_name=NAMES,
    direction=st.sampled_from(Direction),
    decision=st.builds(Decision, st.none() | ANY_NUMBER, ANY_NUMBER, st.none() | st.sampled_from(Reason)),
    refusal=st.none() | CRASHES,
    verdict=st.none() | st.builds(Verdict, st.sampled_from(Status), TEXTS, TEXTS, st.none() | ANY_NUMBER),
    setting=st.builds(Setting, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    program_hash=TEXTS,
    timings=st.dictionaries(NAMES, NUMBERS, max_size=3),
    planned_number=st.none() | st.integers(0, 99_999),
    finished_at=NUMBERS,
)


def whole(experiment: Experiment) -> str:
    """Every field with its type; NaN equals NaN here."""
    return repr(asdict(experiment))


def recorded(experiment: Experiment) -> Experiment:
    """What of an experiment is meant to be in its record: only a crash needs its log, and the end of it."""
    runs = tuple(replace(run, log=run.log[-2000:] if run.crash else "") for run in experiment.runs)
    return replace(experiment, runs=runs)


# ---------------------------------------------------------------------------------------------------- the codec


@quick
@given(EXPERIMENTS)
def test_a_record_says_everything_of_any_experiment(experiment: Experiment) -> None:
    assert whole(decode(encode(experiment))) == whole(recorded(experiment))


@quick
@given(EXPERIMENTS)
def test_a_record_that_is_read_and_written_again_stays_the_same(experiment: Experiment) -> None:
    text = encode(experiment)
    assert encode(decode(text)) == text


@quick
@given(EXPERIMENTS)
def test_a_record_is_plain_json_for_any_reader(experiment: Experiment) -> None:
    text = encode(experiment)
    assert text.isascii()
    assert "\0" not in text

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    document = json.loads(text, parse_constant=refuse)
    assert next(iter(document)) == "schema"


def test_the_halves_of_a_character_are_read_as_the_character() -> None:
    experiment = attempt(proposal=Proposal("\ud83d" + "\ude00"))
    assert decode(encode(experiment)).proposal.description == "😀"


def test_the_end_of_a_crashs_log_is_in_its_record_and_no_other_log() -> None:
    log = "".join(f"line {n}\n" for n in range(10_000))
    runs = (Run(42, None, crash=Crash(CrashClass.OOM, "out of memory"), log=log), Run(43, 1.0, log=log))
    crash, other = decode(encode(attempt(runs=runs))).runs
    assert crash.log
    assert log.endswith(crash.log)
    assert len(crash.log) < 10_000
    assert other.log == ""


@pytest.mark.parametrize("schema", [2, 0, "1", None])
def test_an_unknown_schema_is_a_sentence_that_names_it(schema: object) -> None:
    document = {**json.loads(encode(attempt())), "schema": schema}
    with pytest.raises(ValueError, match=f"^record schema {schema}: this version of pytest-autoresearch reads 1$"):
        decode(json.dumps(document))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_NUMBER | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=5,
)


@quick
@given(JSON.map(json.dumps) | st.text())
def test_what_is_no_record_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is json's own where it is no JSON
        decode(text)


FIELDS = sorted(json.loads(encode(attempt())))
NEVER_READ = (
    "metric",  # for people: the runs say it
    # What records of earlier versions do not have.
    *(
        "program",
        "made_on",
        "expected",
        "area",
        "repairs",
        "usage",
        "constants",
        "lines_added",
        "lines_removed",
        "notes",
        "decided",
        "simpler",
        "comparable",
        "rule",
        "probability",
        "evidence",
    ),
)


@quick
@given(st.sampled_from(FIELDS), JSON)
def test_a_record_with_a_field_that_makes_no_sense_is_read_or_is_a_value_error(name: str, value: object) -> None:
    document = json.loads(encode(judged(attempt())))
    with contextlib.suppress(ValueError):
        decode(json.dumps({**document, name: value}))


@pytest.mark.parametrize("name", FIELDS)
def test_a_record_that_lacks_a_field_is_a_value_error_that_names_it(name: str) -> None:
    document = json.loads(encode(judged(attempt())))
    del document[name]
    if name in NEVER_READ:
        decode(json.dumps(document))
    else:
        with pytest.raises(ValueError, match=name):
            decode(json.dumps(document))


# -------------------------------------------------------------------------------------------------- results.tsv

JUDGED = st.builds(
    lambda proposal, status, metric, memory, allocator: attempt(
        commit="0123456789" * 4,
        proposal=proposal,
        runs=(Run(42, metric, peak_memory_mb=memory, allocator_mb=allocator),),
        verdict=Verdict(status, "a reason", "a message"),
    ),
    PROPOSALS,
    st.sampled_from(Status),
    st.none() | st.floats(-1e6, 1e6),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
)


@quick
@given(st.lists(JUDGED, max_size=5))
@example([judged(attempt(commit="0123456789" * 4, proposal=Proposal('"an open quote')))] * 2)
def test_results_tsv_parses_back_whatever_the_descriptions_hold(experiments: list[Experiment]) -> None:
    text = header("val_bpb") + "".join(row(experiment) for experiment in experiments)
    lines = text.removesuffix("\n").split("\n")
    assert lines == text.splitlines()
    assert lines[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert len(lines) == 1 + len(experiments)
    for line, experiment in zip(lines[1:], experiments, strict=True):
        commit, metric, memory, status, description = line.split("\t")
        assert experiment.verdict is not None
        assert commit == "0123456"
        assert status == experiment.verdict.status
        assert description.isprintable()
        assert len(metric.partition(".")[2]) == 6 or metric == "nan"
        assert len(memory.partition(".")[2]) == 1
        if status == "crash":
            assert (metric, memory) == ("0.000000", "0.0")
    # As spreadsheets and data frames read it, which give quotes a meaning.
    assert list(csv.reader(lines, dialect="excel-tab")) == [line.split("\t") for line in lines]


@quick
@given(TEXTS)
def test_a_description_keeps_its_words(text: str) -> None:
    said = one_line(text)
    assert said.isprintable()
    assert said == said.strip()
    assert "  " not in said
    assert one_line(said) == said
    printable = "".join(character for character in text if character.isprintable() and character != " ")
    assert said.replace(" ", "") == printable


def test_the_memory_is_the_allocators_peak_where_training_prints_one() -> None:
    printed = judged(attempt(runs=(Run(42, 0.99, peak_memory_mb=4096, allocator_mb=46080.0),)))
    silent = judged(attempt(runs=(Run(42, 0.99, peak_memory_mb=4096),)))
    assert row(printed) == f"{'c' * 7}\t0.990000\t45.0\tkeep\tidea 1\n"
    assert row(silent) == f"{'c' * 7}\t0.990000\t4.0\tkeep\tidea 1\n"


def test_a_metric_of_another_name_heads_its_column() -> None:
    assert header("comparisons") == "commit\tcomparisons\tmemory_gb\tstatus\tdescription\n"


def test_an_experiment_without_a_verdict_has_no_row() -> None:
    with pytest.raises(ValueError, match="<experiment 0007> has no verdict"):
        row(attempt(7))


# --------------------------------------------------------------------------------------------------- ResultsFile

DESCRIPTIONS = st.lists(TEXTS, min_size=1, max_size=5)
WHERE = st.floats(0, 1)


def night(descriptions: list[str], name: str = "c") -> list[Experiment]:
    """Experiments in the order in which they ended, which need not be that of their numbers."""
    numbers = [*range(0, len(descriptions), 2), *range(1, len(descriptions), 2)]
    return [
        replace(judged(attempt(number, commit=name * 40, proposal=Proposal(said))), finished_at=1e9 + time)
        for time, (number, said) in enumerate(zip(numbers, descriptions, strict=True))
    ]


class Results:
    """A `results.tsv` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "results.tsv"
        self.file = ResultsFile(self.path, "val_bpb")

    def appended(self, records: list[Experiment]) -> bytes:
        """The file as a night writes it: made with its first record, appended to ever after."""
        self.file.rebuild(records[:1])
        for record in records[1:]:
            self.file.append(record)
        return self.path.read_bytes()


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def fresh() -> Iterator[Results]:
    """Another empty folder for every example."""
    with tempfile.TemporaryDirectory() as folder:
        yield Results(Path(folder))


@synced
@given(DESCRIPTIONS)
def test_a_file_rebuilt_from_the_records_is_the_file_that_was_appended_to(descriptions: list[str]) -> None:
    for results in fresh():
        records = night(descriptions)
        appended = results.appended(records)
        results.path.unlink()
        assert results.file.rebuild(sorted(records, key=lambda record: record.number)) is None
        assert results.path.read_bytes() == appended
        assert list(results.folder.iterdir()) == [results.path]


@synced
@given(DESCRIPTIONS, WHERE)
@example(["é" * 20], 0.999)
def test_a_file_cut_off_anywhere_is_mended_and_not_set_aside(descriptions: list[str], where: float) -> None:
    for results in fresh():
        records = night(descriptions)
        appended = results.appended(records)
        results.path.write_bytes(appended[: int(len(appended) * where)])
        assert results.file.rebuild(records) is None
        assert results.path.read_bytes() == appended
        assert list(results.folder.iterdir()) == [results.path]


@synced
@given(DESCRIPTIONS, st.lists(TEXTS.map(one_line), max_size=3), st.randoms(use_true_random=False))
def test_a_foreign_row_is_set_aside_and_never_lost(descriptions: list[str], foreign: list[str], random: Any) -> None:
    for results in fresh():
        records = night(descriptions)
        appended = results.appended(records).decode()
        lines = [*appended.splitlines(), *(line for line in foreign if line)]
        random.shuffle(lines)
        results.path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        aside = results.file.rebuild(records)
        assert results.path.read_bytes() == appended.encode()
        kept = [results.path, *([aside] if aside else [])]
        assert sorted(results.folder.iterdir()) == sorted(kept)
        assert set(lines) <= {line for path in kept for line in path.read_text("utf-8").splitlines()}


def test_files_set_aside_do_not_replace_one_another(results: Results) -> None:
    records = night(["a", "b"])
    asides = []
    for text in ("mine\n", "mine too\n"):
        results.path.write_text(text)
        asides.append(results.file.rebuild(records))
    assert [aside.name for aside in asides if aside] == ["results-1.tsv", "results-2.tsv"]
    assert [aside.read_text() for aside in asides if aside] == ["mine\n", "mine too\n"]


def test_the_file_of_another_campaign_of_this_repository_is_rewritten(results: Results) -> None:
    yesterday = night(["x", "y"], "a")
    results.appended(yesterday)
    today = night(["z"])
    assert results.file.rebuild(today, lambda: yesterday) is None
    assert results.path.read_text() == header("val_bpb") + row(today[0])


def test_the_file_of_another_metric_is_set_aside(results: Results) -> None:
    theirs = header("loss") + "".join(row(record) for record in night(["x"]))
    results.path.write_text(theirs)
    aside = results.file.rebuild(night(["y"]))
    assert aside is not None
    assert aside.read_text() == theirs


# ----------------------------------------------------------------------------------------------- chain and untried


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Experiment], list[int]]:
    """The records of a campaign in any order, and the numbers of the chain: sessions keep in any order of numbers."""
    count = draw(st.integers(0, 12))
    numbers = [0, *draw(st.permutations(range(1, count + 1)))]
    head, line, records = f"{0:040x}", [0], [judged(attempt(0, commit=f"{0:040x}", base=f"{0:040x}"))]
    for number in numbers[1:]:
        status = draw(st.sampled_from(Status))
        base = head if status is Status.KEEP else draw(st.sampled_from([record.commit for record in records]))
        commit = base if status is Status.CRASH and draw(st.booleans()) else f"{number:040x}"
        records.append(judged(attempt(number, commit=commit, base=base), status))
        if status is Status.KEEP:
            head = commit
            line.append(number)
    return draw(st.permutations(records)), line


@quick
@given(histories())
def test_the_chain_is_the_keeps_in_the_order_of_the_branch(history: tuple[list[Experiment], list[int]]) -> None:
    records, line = history
    assert [record.number for record in chain(records)] == line


def test_a_lower_number_may_be_kept_after_a_higher_one() -> None:
    first = judged(attempt(0, commit="a", base="a"))
    late = judged(attempt(1, commit="c", base="b"))
    early = judged(attempt(2, commit="b", base="a"))
    assert chain([first, late, early]) == [first, early, late]


def test_there_is_no_chain_without_a_baseline() -> None:
    assert chain([]) == []
    assert chain([judged(attempt(1))]) == []


@st.composite
def debts(draw: st.DrawFn) -> tuple[list[Experiment], list[Experiment], dict[int, bool]]:
    """Records, waiting candidates, and by root idea whether it is owed a verdict.

    An idea is tried again and again under new numbers until a try of it is judged for good; only its last try counts.
    """
    numbers = itertools.count(1)
    records, waiting, owed = [], [], {}
    for _ in range(draw(st.integers(0, 6))):
        repeats, root, last = "", 0, 0
        ends = draw(st.lists(st.sampled_from(["stale", "waiting"]), max_size=3))
        ends.append(draw(st.sampled_from(["stale", "waiting", "keep", "discard", "crash"])))
        for end in ends:
            number = next(numbers)
            root = root or number
            tried = attempt(number, commit=f"{number:040x}", proposal=Proposal("an idea", repeats=repeats))
            repeats = tried.commit
            if end == "waiting":
                waiting.append(tried)
            else:
                status = Status.DISCARD if end == "stale" else Status(end)
                records.append(judged(tried, status, end))
            owed[root] = end in ("stale", "waiting")
            last = number
        owed[last] = owed.pop(root)
    return draw(st.permutations(records)), draw(st.permutations(waiting)), owed


@quick
@given(debts())
def test_every_candidate_without_a_verdict_is_owed_one_once(
    debt: tuple[list[Experiment], list[Experiment], dict[int, bool]],
) -> None:
    records, waiting, owed = debt
    due = [number for number, is_owed in sorted(owed.items()) if is_owed]
    assert [candidate.number for candidate in untried(records, waiting)] == due


# --------------------------------------------------------------------------------------------- records in real git

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "discard", "crash", "stale", "number taken", "killed", "restarted"]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=9,
)
_tags = (f"t{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place") / "repository")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
@example(steps=[("keep", 0), ("keep", 0), ("keep", 1), ("number taken", 1), ("stale", 0), ("killed", 0), ("keep", 1)])
def test_after_any_outcomes_each_number_has_one_record_and_one_row_and_the_branch_is_the_chain_of_the_keeps(
    place: Place, steps: list[tuple[str, int]]
) -> None:
    tag = next(_tags)
    night = Night(place, tag)
    for step, session in steps:
        night.take(step, session)
        night.check()
    night.restart()
    night.check()


class Night:
    """Two sessions of one campaign that take turns in any way."""

    def __init__(self, place: Place, tag: str) -> None:
        self.place = place
        self.tag = tag
        self.results = place.path / f"{tag}.tsv"
        self.expected: list[str] = []  # what was judged, in order
        self.restart()
        first = place.baseline(tag)
        assert self.sessions[0].record(first).number == 0
        assert self.sessions[1].record(first).number == 0  # one is enough
        self.expected.append("keep")

    def restart(self) -> None:
        """Both sessions are over, and two others begin."""
        for ratchet in getattr(self, "ratchets", ()):
            ratchet.close()
        self.ratchets = [self.place.ratchet(self.tag) for _ in range(2)]
        self.sessions = [self.place.ledger(ratchet, self.results.name) for ratchet in self.ratchets]

    def take(self, step: str, session: int) -> None:
        ledger = self.sessions[session]
        if step == "killed":  # between the two halves of a transaction, and in mid-row
            line = chain(ledger.records)
            ref = f"refs/heads/autoresearch/{self.tag}"
            if len(line) > 1 and line[-1].number == len(self.expected) - 1:
                git(self.place.path, "update-ref", ref, line[-1].base)
                self.results.write_bytes(self.results.read_bytes()[:-5])
            else:
                git(self.place.path, "update-ref", "-d", ref)
                self.results.unlink()
            self.restart()
            return
        if step == "restarted":
            self.restart()
            return
        number = len(self.expected)
        planned = max(number - 1, 1) if step == "number taken" else number
        base = chain(ledger.records)[0].commit if step == "stale" else ledger.base()
        head = self.place.head(self.tag)
        tried = replace(self.place.candidate(number, base, f"RATE = {self.tag}{number}"), number=planned, tag=self.tag)
        status = {"keep": Status.KEEP, "stale": Status.KEEP, "crash": Status.CRASH}.get(step, Status.DISCARD)
        done = ledger.record(judged(tried, status))
        assert done.number == number
        assert done.planned_number == (planned if planned != number else None)
        assert done.verdict is not None
        stale = status is Status.KEEP and base != head
        assert (done.verdict.reason == "stale") == stale
        assert done.verdict.status == (Status.DISCARD if stale else status)
        self.expected.append(done.verdict.status)

    def check(self) -> None:
        records = self.ratchets[0].records()
        assert [record.number for record in records] == list(range(len(self.expected)))
        assert [record.verdict.status for record in records if record.verdict] == self.expected
        keeps = [record.commit for record in records if record.verdict and record.verdict.status is Status.KEEP]
        branch = git(self.place.path, "rev-list", "--first-parent", "--reverse", f"refs/heads/autoresearch/{self.tag}")
        assert branch.split() == keeps
        lines = self.results.read_text().splitlines(keepends=True)
        assert lines[0] == header("val_bpb")
        assert sorted(lines[1:]) == sorted(row(record) for record in records)
