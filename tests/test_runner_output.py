"""What a process says, as text: plain, bounded, and with the end that a person wants to see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.runners.output import LINE_BYTES, BoundedLog, Output, sanitise


def heard(*chunks: bytes) -> Output:
    output = Output()
    for chunk in chunks:
        output.feed(chunk)
    output.finish()
    return output


def test_terminal_escapes_and_control_characters_are_removed() -> None:
    text = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07bell\x07 \x1b(Bcharset \x08\x00\x9bnull\u202ereversed é 漢 🎉"
    assert sanitise(text) == "red bell charset nullreversed é 漢 🎉"
    assert sanitise("tab\tand\u00a0space\u2028line") == "tab    and space line"


@given(st.text())
def test_what_is_left_is_printable_whatever_came(text: str) -> None:
    left = sanitise(text)
    assert left.replace("\r", "").replace("\n", "").isprintable()
    assert sanitise(left) == left


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert sanitise(text) == text


@given(st.lists(st.text("abc\r\n é", max_size=12)), st.data())
def test_lines_are_the_same_however_the_bytes_arrive(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    chunks = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert list(heard(*chunks).lines) == list(heard(whole).lines)
    assert heard(*chunks).log() == heard(whole).log()


def test_progress_that_a_terminal_overwrites_is_one_line_at_the_end_and_whole_on_disk() -> None:
    output = heard(b"start\r\nstep 1\rstep 2\r", b"step 3\r", b"done\n\rstep 4\rstep 5\r")
    assert output.tail() == "start\nstep 3\ndone\nstep 5"
    assert output.log() == b"start\nstep 1\nstep 2\nstep 3\ndone\nstep 4\nstep 5\n"


def test_a_line_end_that_comes_in_two_reads_is_one() -> None:
    assert list(heard(b"one\r", b"\ntwo\r", b"\n", b"three").lines) == ["one", "two", "three"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert heard(b"caf\xc3", b"\xa9 \xff\xfe end").tail() == "café \ufffd\ufffd end"


def test_a_line_without_end_is_cut_and_not_waited_for() -> None:
    output = Output()
    lines = [line for _ in range(100) for line in output.feed(b"x" * 1000)]
    assert all(len(line) <= LINE_BYTES + 1000 for line in lines)
    assert sum(map(len, lines)) >= 100_000 - LINE_BYTES


def test_the_useful_end_is_short() -> None:
    output = heard(b"".join(b"line %d\n" % number for number in range(1000)), b"\n\n")
    assert output.tail().splitlines() == [f"line {number}" for number in range(960, 1000)]
    wide = heard(b"".join(b"%03d %s\n" % (number, b"w" * 300) for number in range(100))).tail()
    assert 3600 < len(wide) <= 4000
    assert wide.startswith("0")
    assert wide.splitlines()[-1].startswith("099")


LINES = st.lists(st.text("ab é", max_size=20).map(lambda text: f"{text}\n".encode()), max_size=60)


@given(LINES, st.integers(0, 100), st.integers(25, 100))
def test_a_bounded_log_keeps_both_ends_and_counts_the_rest(lines: list[bytes], head: int, tail: int) -> None:
    log = BoundedLog(head, tail)
    for line in lines:
        log.add(line)
    whole = b"".join(lines)
    if len(whole) <= head:
        assert log.bytes() == whole
    before, note, after = log.bytes().partition(b"[... ")
    if not note:
        assert log.bytes() == whole
        return
    count, _, after = after.partition(b" bytes left out ...]\n")
    assert whole.startswith(before)
    assert whole.endswith(after)
    assert len(before) + int(count.replace(b",", b"")) + len(after) == len(whole)
    assert len(before) <= head
    assert len(after) <= tail
    assert len(after) > tail - 45, "no more is dropped than one line beyond the bound"
    assert not before or before.endswith(b"\n")
    (before + after).decode()


@given(st.binary(max_size=400), st.integers(0, 50), st.integers(1, 50))
def test_a_bounded_log_is_bounded_whatever_it_is_given(data: bytes, head: int, tail: int) -> None:
    log = BoundedLog(head, tail)
    for start in range(0, len(data), 7):
        log.add(data[start : start + 7])
    assert len(log.bytes()) <= head + tail + 40
