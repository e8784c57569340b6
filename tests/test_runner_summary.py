"""The numbers in a process's output, and the class of its failure."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.runners.crashes import exit_crash, score_crash
from pytest_autoresearch.runners.environment import passes
from pytest_autoresearch.runners.output import Output
from pytest_autoresearch.runners.summary import FULL_BYTES, KEPT_NAMES, LINE_BYTES, Summary

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True).filter(lambda name: name != "METRIC")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
CHATTER = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=":="), max_size=30).filter(
    lambda line: line.strip() != "---"
)


def read(*lines: str, metric_name: str = "val_bpb") -> Summary:
    return heard("".join(f"{line}\n" for line in lines).encode(), summary=Summary(metric_name))


def heard(*chunks: bytes, summary: Summary | None = None) -> Summary:
    summary = summary or Summary("val_bpb")
    for chunk in chunks:
        summary.feed(chunk)
    summary.finish()
    return summary


@given(st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=20), st.lists(CHATTER), st.lists(CHATTER), st.data())
def test_a_summary_block_is_read_back_as_it_was_printed(
    numbers: dict[str, float], before: list[str], after: list[str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(numbers)))
    padding = data.draw(st.integers(0, 10))
    earlier = [f"{name}: 1.0", f"{name}: 2.0"]
    block = [f"{key}:{' ' * padding}{value!r}" for key, value in numbers.items()]
    summary = read(*before, *earlier, "---", *block, *after, metric_name=name)
    assert summary.numbers() == numbers
    assert summary.metric() == numbers[name]


@given(NUMBERS, st.lists(CHATTER), st.lists(CHATTER))
def test_a_metric_line_counts_anywhere(value: float, before: list[str], after: list[str]) -> None:
    assert read(*before, f"METRIC val_bpb={value!r}", *after, "---", "depth: 8").metric() == value


@given(st.lists(NUMBERS, min_size=2, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_metric_with_two_values_is_none_and_one_value_printed_twice_is_one(
    values: list[float], as_metric: list[bool]
) -> None:
    lines = [
        f"METRIC val_bpb = {value!r}" if metric else f"val_bpb: {value!r}"
        for value, metric in zip(values, as_metric, strict=False)
    ]
    doubled = "val_bpb was printed more than once, with different values; print it once, after a line `---`"
    assert read(*lines, *lines).metric() == (values[0] if len({*values}) == 1 else Crash(CrashClass.NO_METRIC, doubled))


@pytest.mark.parametrize("line", ["METRIC val_bpb=1.5", "val_bpb: 1.50"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_eight_ranks_that_write_over_each_others_line_ends_say_one_number(line: str, end: bytes) -> None:
    written = line.encode()
    ranks = [written + written + end + end, written + end, written * 4 + end * 4, written + end]
    assert heard(*ranks).metric() == 1.5
    assert heard(*[bytes([byte]) for byte in b"".join(ranks)]).metric() == 1.5
    other = heard(*ranks, written + line.replace("1.5", "1.6").encode() + end * 2).metric()
    assert isinstance(other, Crash)
    assert "different values" in other.message


def test_another_name_that_ends_in_the_metric_is_not_the_metric() -> None:
    assert read("top5acc: 91", "acc: 50", "x: 1acc: 2", metric_name="acc").metric() == 50.0


def test_nan_from_every_rank_is_nan() -> None:
    metric = read("val_bpb: nan", "val_bpb: nan").metric()
    assert isinstance(metric, Crash)
    assert metric.reason == "nan"


@pytest.mark.parametrize("name", ["total_µs", "recall@1", "f1-score", "top-1", "größe", "val/acc", "hit%"])
def test_a_metric_of_any_name_is_read(name: str) -> None:
    assert read(f"{name}: 1.5", "depth: 8", metric_name=name).metric() == 1.5
    assert read(f"METRIC {name}=2.5", f"METRIC other_{name}=1", metric_name=name).metric() == 2.5
    assert read(f"{name}: 1.5", "val_bpb: 1").numbers() == {name: 1.5, "val_bpb": 1.0}


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "inf", "-Infinity", "1e999"])
def test_a_metric_that_is_not_finite_is_a_crash_and_no_number(text: str) -> None:
    summary = read(f"val_bpb: {text}", "depth: 8", "mfu_percent: nan")
    metric = summary.metric()
    assert isinstance(metric, Crash)
    assert metric.reason == "nan"
    assert summary.numbers() == {"depth": 8.0}


@pytest.mark.parametrize(
    "line",
    [
        "val_bpb: 1.0 (best)",
        "val_bpb: one",
        "val_bpb: 1_000",
        "best val_bpb: 1.0",
        "val_bpb 1.0",
        "val_bpb: ",
        "val_bpb: \u0661",
        "METRIC val_bpb",
        "a METRIC val_bpb=1",
    ],
)
def test_a_line_that_says_more_or_less_than_one_number_is_no_metric(line: str) -> None:
    metric = read(line, "depth: 8").metric()
    assert isinstance(metric, Crash)
    assert metric.reason == "no-metric"
    assert metric.message.endswith("was printed; it printed depth")


def test_only_what_follows_the_last_rule_counts() -> None:
    assert read("---", "val_bpb: 3.0", "---", "val_bpb: 1.0").metric() == 1.0
    assert isinstance(read("val_bpb: 1.0", "---").metric(), Crash)


@given(st.integers(0, 10**6), st.floats(-100, 100))
def test_step_and_loss_are_found_in_progress_lines(step: int, loss: float) -> None:
    summary = read(f"step {step:05d} (12.0%) | loss: {loss:.6f} | lrm: 1.00", "the next step is unclear")
    assert (summary.step, summary.loss) == (step, pytest.approx(loss, abs=1e-6))
    summary = read(f"epoch 1 Step={step} train_loss={loss!r}", "num_steps: 3")
    assert (summary.step, summary.loss) == (step, loss)


def test_a_loss_that_is_nan_is_shown_as_it_is() -> None:
    loss = read("step: 3 loss: nan").loss
    assert loss is not None
    assert math.isnan(loss)


def test_a_flood_of_names_is_bounded_and_does_not_hide_the_metric() -> None:
    summary = read(*(f"name{number}: 1" for number in range(10_000)), "val_bpb: 2")
    assert summary.metric() == 2.0
    assert len(summary.numbers()) == KEPT_NAMES + 1


@pytest.mark.parametrize(
    "line", ["a:" + "1" * 100_000 + "x", "loss" + " " * 100_000, "step" + "=" * 100_000, " " * 100_000]
)
def test_no_line_takes_long_to_read(line: str) -> None:
    assert read(line, "val_bpb: 1").metric() == 1.0


@pytest.mark.parametrize("line", ["\x1b[1mval_bpb:\x1b[0m \x1b[32;1m1.5\x1b[0m", "\x07val_bpb:\t1.5", "val_bpb: 1.5\r"])
def test_colours_and_tabs_around_a_number_do_not_hide_it(line: str) -> None:
    assert read("depth: 8", line).numbers() == {"depth": 8.0, "val_bpb": 1.5}


def test_a_line_that_came_last_and_has_no_end_counts() -> None:
    assert heard(b"METRIC val", b"_bpb=2").metric() == 2.0


# However much is printed, and however it is cut

WORDS = [
    b"val_bpb: 1.5",
    b"val_bpb: nan",
    b"METRIC val_bpb=2",
    b"METRIC val_bpb=1.5",
    b"---",
    b"depth: 8",
    b"METRIC depth=3",
    b"step 3",
]
PARTS = [b"val_bpb", b"METRIC ", b" ", b"\x1b[32m", b"\xff", b"x", b"y" * 40, b"z" * (LINE_BYTES + 1), b"\r", b"\r\n"]
FRAGMENTS = st.sampled_from([*WORDS, *PARTS, *[b"\n"] * 8])


@given(st.lists(FRAGMENTS, max_size=40), st.integers(0, 60), st.integers(1, 60), st.data())
def test_a_metric_is_judged_as_if_every_line_had_been_read_at_once(
    fragments: list[bytes], full: int, window: int, data: st.DataObject
) -> None:
    whole = b"".join(fragments)
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *at], [*at, len(whole)], strict=True)]
    every_line, once = heard(whole), heard(whole, summary=Summary("val_bpb", full, window))
    cut = heard(*pieces, summary=Summary("val_bpb", full, window))
    assert same(cut.metric(), once.metric())
    assert cut.numbers() == once.numbers()
    assert same(once.metric(), every_line.metric())


def same(one: float | Crash, other: float | Crash) -> bool:
    """Whether both are the same number, or crashes of the same kind; which other numbers there were is left aside."""
    if isinstance(one, Crash) and isinstance(other, Crash):
        return (one.reason, one.message.split(";")[0]) == (other.reason, other.message.split(";")[0])
    return one == other


@pytest.mark.parametrize("line", ["val_bpb: 9.0", "---", "epoch 1 val_bpb: 9", "-----", "depth: 1", "METRIC val_bpb"])
def test_a_flood_hides_nothing_of_what_a_program_says_at_its_end(line: str) -> None:
    flood = f"{line}\n".encode() * 5000
    summary = Summary("val_bpb", full_bytes=1000, window_bytes=1000)
    heard(b"METRIC first=1\n", flood, flood, b"step 7 loss: 2.5\n---\nval_bpb: 0.5\ndepth: 8\n", summary=summary)
    assert summary.numbers() == {"first": 1.0, "val_bpb": 0.5, "depth": 8.0}
    assert (summary.metric(), summary.step, summary.loss) == (0.5, 7, 2.5)


def test_a_metric_amid_a_flood_is_found_and_so_is_a_second_one() -> None:
    flood = [b"x" * 99_999 + b"\n"] * (FULL_BYTES // 100_000 + 1) + [b"METRIC val_bpb=3\n"] + [b"y" * 9999 + b"\n"] * 20
    assert heard(*flood).metric() == 3.0
    assert heard(*flood, *flood[-21:]).metric() == 3.0
    other = [line.replace(b"=3", b"=4") for line in flood[-21:]]
    doubled = heard(*flood, *other, *flood[-21:]).metric()
    assert isinstance(doubled, Crash)
    assert "more than once" in doubled.message


# Crashes

TRACEBACK = """
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    import flash
  File "flash.py", line 1, in <module>
    import _flash
ImportError: libcudart.so.12: cannot open shared object file
""".strip().splitlines()


def test_a_chained_traceback_is_classed_by_its_last_exception() -> None:
    handling = ["", "During handling of the above exception, another exception occurred:", ""]
    second = ["Traceback (most recent call last):", '  File "train.py", line 5, in <module>', "KeyError: 'x'"]
    assert exit_crash(1, TRACEBACK).reason == "import"
    assert exit_crash(1, [*TRACEBACK, *handling, *second]) == Crash(CrashClass.EXIT, "KeyError: 'x'", 1)


def test_words_that_only_look_like_a_class_do_not_make_one() -> None:
    assert exit_crash(1, ["ImportError: said by the script itself"]).reason == "exit 1"
    assert exit_crash(2, ["FAIL"]).reason == "exit 2"
    assert exit_crash(1, ["FAIL", "done"]).reason == "exit 1"


def test_an_exception_is_found_above_hundreds_of_lines_of_its_message() -> None:
    message = [f"  args[{n}]: TensorBox(..." for n in range(1000)]
    found_from = [
        "Found from:",
        '   File "train.py", line 3, in loss_of',
        '  File "train.py", line 2, in forward',
        "    x",
    ]
    said = Output()
    said.feed(
        "\n".join([*TRACEBACK[:-1], "E: no compiler", *message, *found_from, "", "Set VERBOSE=1 for more"]).encode()
    )
    assert exit_crash(1, said.lines) == Crash(CrashClass.EXIT, "E: no compiler", 1)


def test_an_abort_for_want_of_memory_is_out_of_memory() -> None:
    lines = ["terminate called after throwing an instance of 'std::bad_alloc'", "  what():  std::bad_alloc"]
    assert exit_crash(-6, lines).reason == "oom"


def test_a_message_has_one_line_and_a_bound() -> None:
    message = exit_crash(
        1, ["Traceback (most recent call last):", '  File "a", line 1', "ValueError: " + "x" * 9999]
    ).message
    assert len(message) == 400
    assert message.endswith("…")


@pytest.mark.parametrize("sentence", ["the loss is NaN.", "val_bpb is not finite", "an infinite loss in row 3"])
def test_a_scorer_that_speaks_of_nan_is_classed_so(sentence: str) -> None:
    assert score_crash(1, [sentence]) == Crash(CrashClass.NAN, sentence)


def test_a_scorer_that_speaks_of_finance_is_not() -> None:
    assert score_crash(1, ["model.pt of the finance nanny is no model."]).reason == "no-metric"


@given(st.integers(-64, 255).filter(bool), st.lists(st.text(max_size=40)))
def test_any_ending_has_a_class_and_one_line(status: int, lines: list[str]) -> None:
    crash = exit_crash(status, lines)
    assert crash.reason
    assert crash.message
    assert len(crash.message.splitlines()) == 1


# Environment


@pytest.mark.parametrize(
    "name", ["PATH", "LC_ALL", "CUDA_HOME", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME", "RUNNER_TRACKING_ID"]
)
def test_what_training_needs_passes(name: str) -> None:
    assert passes(name)


@given(st.sampled_from(["CUDA_", "AUTORESEARCH_", "TORCH", "LC_", "HF_"]), st.text("ABC_", max_size=5), st.data())
def test_no_name_that_sounds_like_a_secret_passes(start: str, rest: str, data: st.DataObject) -> None:
    secret = data.draw(st.sampled_from(["KEY", "Token", "secret", "PASSWORD"]))
    assert not passes(start + secret + rest)
    assert not passes(start + rest + secret)


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "ANTHROPIC_API_KEY", "GITHUB_ENV", "https_proxy", "AWS_PROFILE", "SSH_AUTH_SOCK"]
)
def test_what_training_has_no_business_with_does_not_pass(name: str) -> None:
    assert not passes(name)
