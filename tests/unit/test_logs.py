from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from jobwatt.logs import set_up_logging

log = logging.getLogger("jobwatt.test_logs")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level


def logged(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_logfmt_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A line says when, how bad, and what, on standard error."""
    set_up_logging("info", "logfmt")
    log.warning("rapl: %s", "denied")
    (line,) = logged(capsys)
    time, level, message = line.split(" ", 2)
    assert (len(time), time[:5], time[-1]) == (len("time=2026-01-01T00:00:00.000Z"), "time=", "Z")
    assert (level, message) == ("level=warning", 'msg="rapl: denied"')


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("stopping", "msg=stopping"),
        ("", 'msg=""'),
        ("two words", 'msg="two words"'),
        ('quo"te', r'msg="quo\"te"'),
        ("a=b", 'msg="a=b"'),
        ("back\\slash", r'msg="back\\slash"'),
        ("forged\nlevel=error", r'msg="forged\nlevel=error"'),
        ("bell\x07", r'msg="bell\u0007"'),
        ("line\u2028break", r'msg="line\u2028break"'),
    ],
)
def test_logfmt_quotes(capsys: pytest.CaptureFixture[str], message: str, expected: str) -> None:
    """Whatever a name holds, an event is one line that can be read back."""
    set_up_logging("info", "logfmt")
    log.info("%s", message)
    (line,) = logged(capsys)
    assert line.split(" ", 2)[2] == expected


def test_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The same fields come as JSON."""
    set_up_logging("info", "json")
    log.error("a\nb")
    (line,) = logged(capsys)
    fields = json.loads(line)
    assert (sorted(fields), fields["level"], fields["msg"]) == (
        ["level", "msg", "time"],
        "error",
        "a\nb",
    )


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_an_exception_stays_on_its_line(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    """A traceback does not break the line."""
    set_up_logging("info", log_format)
    try:
        int("x")
    except ValueError:
        log.exception("failed")
    (line,) = logged(capsys)
    assert r"\nValueError: invalid literal" in line


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(capsys: pytest.CaptureFixture[str], level: str, expected: list[str]) -> None:
    """What is below the level is not logged."""
    set_up_logging(level, "json")
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(number, "x")
    assert [json.loads(line)["level"] for line in logged(capsys)] == expected
