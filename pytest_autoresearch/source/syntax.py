"""Parses Python for any thread, whatever the warning filters of the process."""

from __future__ import annotations

import ast
import threading
import warnings

_ATTEMPTS = 20
_lock = threading.Lock()


def parse(text: str | bytes) -> ast.Module:
    """The syntax tree of a Python file.

    Raises:
        SyntaxError: Python cannot parse the file, for any reason.
    """
    try:
        try:
            return _parse(text)
        except SyntaxError:
            # If warnings are errors, as in many pytest configurations, an old "\\d" in a string fails to parse. The
            # warning filters are changed only then, because they belong to the whole process and this may be a thread.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _parse(text)
    except (ValueError, RecursionError, MemoryError) as error:  # ValueError: a NUL byte, in Python 3.11
        raise SyntaxError(str(error) or type(error).__name__) from None


def _parse(text: str | bytes) -> ast.Module:
    # Python 3.11 and 3.12 count the depth of a tree once for the whole interpreter, so two threads that parse at once
    # disturb each other: "SystemError: AST constructor recursion depth mismatch". The lock keeps the lanes apart. The
    # main thread may parse too, for example when pytest formats a failure, so an attempt is repeated.
    for _ in range(_ATTEMPTS - 1):
        try:
            with _lock:
                return ast.parse(text)
        except SystemError:
            continue
    with _lock:
        return ast.parse(text)
