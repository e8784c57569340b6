"""What a process says, as text: plain, bounded, and with the end that a person wants to see."""

from __future__ import annotations

import random
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.runners.output import CUT_BYTES, Output, sanitise


def heard(*chunks: bytes, head_bytes: int = 10_000, tail_bytes: int = 10_000) -> Output:
    output = Output(head_bytes, tail_bytes)
    for chunk in chunks:
        output.feed(chunk)
    return output


def cut(whole: bytes, data: st.DataObject) -> list[bytes]:
    """The bytes in pieces, as they may arrive."""
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    return [whole[start:end] for start, end in zip([0, *at], [*at, len(whole)], strict=True)]


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


@given(st.binary(max_size=400), st.integers(0, 50), st.integers(1, 50), st.data())
def test_log_and_lines_are_the_same_however_the_bytes_arrive(
    whole: bytes, head: int, tail: int, data: st.DataObject
) -> None:
    once = heard(whole, head_bytes=head, tail_bytes=tail)
    pieces = heard(*cut(whole, data), head_bytes=head, tail_bytes=tail)
    assert pieces.log() == once.log()
    assert pieces.lines == once.lines


def test_progress_that_a_terminal_overwrites_is_one_line_at_the_end_and_whole_on_disk() -> None:
    output = heard(b"start\r\nstep 1\rstep 2\r", b"step 3\r", b"done\n\rstep 4\rstep 5\r")
    assert output.tail() == "start\nstep 3\ndone\nstep 5"
    assert output.log() == b"start\nstep 1\nstep 2\nstep 3\ndone\nstep 4\nstep 5\n"


def test_a_line_end_that_comes_in_two_reads_is_one() -> None:
    assert heard(b"one\r", b"\ntwo\r", b"\n", b"three").lines == ["one", "two", "three"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert heard(b"caf\xc3", b"\xa9 \xff\xfe end").tail() == "café \ufffd\ufffd end"


def test_whatever_is_printed_the_log_is_text_that_an_xml_file_can_hold() -> None:
    printed = bytes(range(256)) * 4 + "\ufffe\uffff\ud7ff\U0001fffe".encode() + random.Random(1).randbytes(4000)
    output = heard(printed + b"\nthe end")
    for text in (output.log().decode(), output.tail()):
        element = ElementTree.Element("log")
        element.text = text
        assert ElementTree.fromstring(ElementTree.tostring(element)).text == text
    assert output.tail().endswith("the end")


def test_the_useful_end_is_short() -> None:
    output = heard(b"".join(b"line %d\n" % number for number in range(1000)), b"\n\n")
    assert output.tail().splitlines() == [f"line {number}" for number in range(960, 1000)]
    wide = heard(b"".join(b"%03d %s\n" % (number, b"w" * 300) for number in range(100))).tail()
    assert 3600 < len(wide) <= 4000
    assert wide.startswith("0")
    assert wide.splitlines()[-1].startswith("099")


LINES = st.lists(st.text("ab é", max_size=20).map(lambda text: f"{text}\n".encode()), max_size=60)


@given(LINES, st.integers(45, 120), st.integers(45, 120))
def test_a_log_keeps_both_ends_and_counts_the_rest(lines: list[bytes], head: int, tail: int) -> None:
    whole = b"".join(lines)
    log = heard(*lines, head_bytes=head, tail_bytes=tail).log()
    before, note, after = log.partition(b"[... ")
    if not note:
        assert log == whole
        return
    count, _, after = after.partition(b" bytes left out ...]\n")
    assert whole.startswith(before)
    assert whole.endswith(after)
    assert len(before) + int(count.replace(b",", b"")) + len(after) == len(whole)
    assert len(before) <= head
    assert tail - 45 < len(after) <= tail, "no more is dropped than one line"
    assert not before or before.endswith(b"\n")
    (before + after).decode()


def test_an_output_without_line_ends_is_kept_at_both_ends_too() -> None:
    log = heard(b"a" * 20_000, b"b" * 90_000, head_bytes=100, tail_bytes=3 * CUT_BYTES).log()
    assert log == b"a" * 100 + b"\n[... 97,612 bytes left out ...]\n" + b"b" * 3 * CUT_BYTES + b"\n"
