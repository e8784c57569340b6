"""Writes pytest's JUnit file during the session, so that it is valid however the session ends.

This module and `reprcrash.message` in the judge are the only uses of undocumented pytest names.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from _pytest import junitxml

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.text import shortened
from pytest_autoresearch.reports.spool import Spool

_SHARE = 1 / 100  # of the session's time that early writing may take
_TRIED_CHARACTERS = 60  # of the description in a name
_SETUP = 'failed on setup with "'  # what pytest puts before the message of an error
_DONE = "autoresearch-cases"  # an element in place of the complete test cases; all text is escaped, so none is like it


class Junit:
    """Controls the session's LogXML. Without a LogXML, every method does nothing.

    Args:
        config: The session's.
        names: `verdict` to add verdict, metric and description to the names of test cases, else `plain`.
    """

    def __init__(self, config: pytest.Config, names: str = "plain") -> None:
        self._xml = _log_xml(config)
        self._names = names
        self._verdicts: dict[str, str] = {}  # by number; filled if names carry them
        self._began = time.monotonic()
        self._spent = 0.0
        self._properties = True
        self._unwritten = ""
        self._done = Spool()  # the complete test cases, which pytest would keep until the end of the session
        if self._xml is None:
            return
        if not _given(config, "junit_family"):
            self._xml.family = "xunit1"  # the family whose schema allows properties
        if not _given(config, "junit_logging"):
            self._xml.logging = "system-out"
        self._properties = self._xml.family != "xunit2"

    def pytest_autoresearch_record(self, experiment: Experiment) -> None:
        if self._names == "verdict":
            self._verdicts[f"{experiment.number:04d}"] = _verdict(experiment)

    def checkpoint(self) -> None:
        """Write the file now, unless early writing has used its share of the time."""
        if self._xml is None:
            return
        began = time.monotonic()
        with contextlib.suppress(OSError):  # they stay in memory
            self._put_away()
        if self._spent > _SHARE * (began - self._began):
            return
        with contextlib.suppress(OSError), self._aside():  # the last write reports the error
            self._xml.pytest_sessionfinish()
        self._spent += time.monotonic() - began

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside the terminal's wrapper, which prints the file's name
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        if self._xml is None:
            return (yield)
        try:
            with self._aside():
                return (yield)
        except OSError as error:  # the records are in git, and the page is still to be named
            self._unwritten = f"{self._xml.logfile} was not written ({error.strerror or error})"
            junitxml.pytest_unconfigure(session.config)  # it would say that the file was generated
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._unwritten:
            terminalreporter.write_line(
                f"ERROR: {self._unwritten}, but every record is in git: make it writable, and give the next session "
                "--junitxml again",
                red=True,
            )

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Write to a temporary file, which replaces the real one when complete, even if something else then fails."""
        assert self._xml is not None
        real = Path(self._xml.logfile)
        part = real.with_name(f"{real.name}.part")
        self._xml.logfile = str(part)
        self._put_away()
        cases = self._xml.node_reporters_ordered
        cases.insert(0, _Done())
        try:
            yield
        finally:
            self._xml.logfile = str(real)
            del cases[0]
            if part.is_file() and self._fill(part):
                part.replace(real)

    def _fill(self, part: Path) -> bool:
        """Put the complete test cases into the file that pytest wrote; False if it could not write all of it."""
        before, found, after = part.read_bytes().partition(ElementTree.tostring(ElementTree.Element(_DONE)))
        if not found or not after.endswith(b"</testsuites>"):
            return False
        with part.open("wb") as file:
            file.write(before)
            self._done.copy_to(file)
            file.write(after)
        return True

    def _put_away(self) -> None:
        """Write the complete cases to the file of them, and forget them.

        Cases without a name are dropped: an interrupt leaves them, and JUnit readers fail on them.
        """
        assert self._xml is not None
        cases = self._xml.node_reporters_ordered
        cases[:] = [case for case in cases if case.to_xml().get("name")]
        for case in list(cases):
            if "to_xml" in vars(case):  # it is complete: pytest has fixed what it gives
                self._done.put(ElementTree.tostring(self._told(case.to_xml()), "unicode").encode())
                cases.remove(case)

    def _told(self, element: ElementTree.Element) -> ElementTree.Element:
        """The case as every reader sees first what was tried, whether it shows names, messages or texts."""
        for given in element.iter("property"):  # only the deciding case has the property
            verdict = self._verdicts.pop(given.get("value", ""), "") if given.get("name") == "experiment" else ""
            if verdict:
                element.set("name", f"{element.get('name')} {verdict}")
            if given.get("name") == "experiment":
                _first_lines(element)
        if not self._properties:  # the xunit2 schema does not allow them
            for properties in element.findall("properties"):
                element.remove(properties)
        return element


class _Done:
    """Stands for the complete test cases while pytest writes its file."""

    def to_xml(self) -> ElementTree.Element:
        return ElementTree.Element(_DONE)


def _first_lines(case: Any) -> None:
    """Begin message and text of a discard or crash with what was tried; some readers show only one of them."""
    for kind in ("failure", "error"):
        for element in case.findall(kind):
            message = element.get("message", "")
            if message.startswith(_SETUP):
                message = message.removeprefix(_SETUP).removesuffix('"')
                element.set("message", message)
            first = message.partition("\n")[0]
            said, _, rest = (element.text or "").partition("\n")
            if said != first:
                element.text = f"{first}\n{rest if first.endswith(said) else element.text}"


def _verdict(experiment: Experiment) -> str:
    """Verdict, metric and description in few characters; the reason in place of a missing metric."""
    if experiment.verdict is None:
        return ""
    measured = experiment.crash is None and math.isfinite(experiment.metric)
    number = f"{experiment.metric:.6g}" if measured else experiment.verdict.reason
    tried = shortened(experiment.proposal.description, _TRIED_CHARACTERS)
    return f"{experiment.verdict.status} {number}: {tried}"


def _log_xml(config: pytest.Config) -> Any:
    """LogXML, found by its class because pytest registers it without a name."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__module__ == "_pytest.junitxml" and type(plugin).__name__ == "LogXML":
            return plugin
    return None


def _given(config: pytest.Config, key: str) -> bool:
    """Whether the user set the ini key, in the file or with `-o`; pytest does not tell a set value from a default."""
    text = config.inipath.read_text("utf-8", "replace") if config.inipath is not None else ""
    written = re.search(rf"^\s*{key}\s*=", text, re.MULTILINE)
    return bool(written) or any(str(pair).startswith(f"{key}=") for pair in config.option.override_ini or ())
