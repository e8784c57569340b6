"""Python is parsed for any thread."""

import ast
import gc
import threading

import pytest

from pytest_autoresearch.source.syntax import parse


def test_what_python_cannot_parse_is_a_syntax_error():
    for text in (b"x = \0", b"def", b"(" * 5000, "x = 1 +" + "+" * 200_000 + "1"):
        with pytest.raises(SyntaxError):
            parse(text)


def test_an_old_escape_parses_although_warnings_are_errors():
    assert isinstance(parse(rb'x = "\d"'), ast.Module)


class _Cycle:
    """Garbage that runs Python when it is collected, so that threads may change places in the middle of a parse."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        sum(range(200))


def test_threads_that_parse_at_once_do_not_disturb_each_other():
    texts = ["x = 1\n" * 300, "x = " + "(" * 40 + "1" + ")" * 40 + "\ny = " + "+".join(["z"] * 60) + "\n" * 9]
    wrong = []

    def work(text):
        for _ in range(150):
            _Cycle()
            try:
                parse(text)
            except SystemError as error:
                wrong.append(error)

    def dig(depth, text):  # the counter starts at the depth of the stack
        dig(depth - 1, text) if depth else work(text)

    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    try:
        threads = [threading.Thread(target=dig, args=(7 * number, text)) for number in range(2) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
    assert not wrong
