"""In continuous integration a test that is skipped is one that was expected to be."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

import pytest

EXPECTED = Path(__file__).parent / "tests" / "skips.txt"
skipped: list[str] = []


def expected() -> list[str]:
    """Patterns of test names that may be skipped, one a line, # before a comment."""
    lines = EXPECTED.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that did not run."""
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a whole file that did not run."""
    if report.skipped:
        skipped.append(report.nodeid)


def unexpected() -> list[str]:
    """Skipped tests that no pattern names."""
    patterns = expected()
    return [name for name in skipped if not any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which something unexpected was skipped."""
    if os.environ.get("CI") and unexpected() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped and not expected to be."""
    for name in unexpected() if os.environ.get("CI") else []:
        terminalreporter.write_line(f"SKIPPED, and not named in {EXPECTED.name}: {name}")
