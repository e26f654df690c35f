from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from servers import JOBWATT

NOBODY = "--prometheus.url=http://127.0.0.1:1"


def run(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [JOBWATT, "report", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


WRONG: Sequence[tuple[Sequence[str | bytes], str]] = [
    (["--from=yesterday"], "--from: 'yesterday' is no time; write it like now-7d"),
    (["--to=now-1x"], "--to: '1x' is no duration"),
    (["--from=now-1h", "--last=1h"], "--from and --last exclude each other"),
    (["--from=now"], "has no time in it"),
    (["--from=now-1h", "--to=now-2h"], "has no time in it"),
    (["--last=0s"], "'0s' is less than 1s"),
    (["--by=colour"], "'colour' is not one of"),
    (["--top=-1"], "x>=0"),
    (["--prometheus.url=localhost:9090"], "is no address like http://localhost:9090"),
    (["--prometheus.url=http://u:s3cret@"], "is no address like http://localhost:9090"),
    (["--prometheus.header=X"], "write it like 'X-Scope-OrgID: team-a'"),
    (["--prometheus.header=X: a\r\nY: b"], "--prometheus.header may have letters, digits and"),
    (["--prometheus.header=X Y: é"], "--prometheus.header may have letters, digits and"),
    (["--prometheus.token-file=/no/such/file"], "/no/such/file: No such file or directory"),
    (["--prometheus.ca-file=/no/such/file"], "/no/such/file: No such file or directory"),
    (["--prometheus.ca-file=/etc/hostname"], "--prometheus.ca-file: /etc/hostname: "),
    (["--output=/no/such/folder/x"], "cannot write to the folder /no/such/folder"),
    (["--user=\udcff".encode(errors="surrogateescape")], "is not UTF-8"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_wrong_usage(arguments: Sequence[str | bytes], words: str) -> None:
    """Exit code 2, what is wrong and how to write it, and no secret."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
    assert "s3cret" not in done.stderr


def test_broken_token() -> None:
    """It is not shown."""
    done = run(NOBODY, JOBWATT_PROMETHEUS_TOKEN="s3cret\nX: y")
    assert done.returncode == 2
    assert "the bearer token may have letters, digits and" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("url", ["http://é..x", "http://127.0.0.1:1/é", "http://127.0.0.1:1/ x"])
def test_strange_address(url: str) -> None:
    """An error, not a traceback."""
    done = run(f"--prometheus.url={url}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"jobwatt: Prometheus at {url} does not answer: ")


@pytest.mark.parametrize("variable", ["JOBWATT_PROMETHEUS_URL", "PROMETHEUS_URL"])
def test_nobody_answers(variable: str) -> None:
    """Exit code 1, where it asked, and what to do."""
    done = run(**{variable: "http://127.0.0.1:1/prom"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "jobwatt: Prometheus at http://127.0.0.1:1/prom does not answer: Connection refused; "
        "is Prometheus running there? --prometheus.url says where to ask\n"
    )


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """Nothing is written before all is known."""
    output = tmp_path / "report.csv"
    output.write_text("old")
    assert run(NOBODY, f"--output={output}").returncode == 1
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]
