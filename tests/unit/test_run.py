from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from jobwatt import app
from jobwatt.cli import run as run_module
from jobwatt.config import Config
from jobwatt.errors import RunError
from jobwatt.run import child
from jobwatt.run.child import Ended, Signals
from jobwatt.run.measure import ByExporter, ByOurselves
from jobwatt.run.receipt import Run, as_json, as_text, as_told
from servers import JOBWATT, eventually

NOBODY = "--exporter=http://127.0.0.1:1"
START = 1_700_000_000.0


def job(job_uid: str = "run:bert-1", **changes: object) -> dict[str, Any]:
    """A job of a status."""
    return {
        "job_uid": job_uid,
        "user": "alice",
        "power_watts": 0.0,
        "energy_joules": 7200.0,
        "components": {"cpu": 5400.0, "dram": 1800.0},
        "sources": {"rapl": 7200.0},
        "cpu_seconds": 50.0,
        "gpus": 0,
        "gpu_idle_joules": 0.0,
        "started": START,
        "measured_since": START + 0.4,
        "ended": START + 100.5,
    } | changes


def told(*jobs: dict[str, Any], at: float = START + 100.6, **changes: object) -> dict[str, Any]:
    """A status."""
    return {
        "time": at,
        "interval": 1.0,
        "sources": [{"source": "rapl", "up": True, "errors": {}}],
        "devices": [
            {
                "component": "cpu",
                "device": "package-0",
                "idle_watts": 20.0,
                "energy_joules": 9e9,
                "gap_seconds": 0.0,
            }
        ],
        "jobs": list(jobs),
        "health": {"sample_seconds": 0.002},
    } | changes


def ran(**changes: Any) -> Run:  # noqa: ANN401 - any field of a run
    """A run of 100 s that an exporter measured."""
    return replace(
        Run(
            run_id="bert-1",
            job_uid="run:bert-1",
            is_shared=False,
            account=None,
            command=("python", "train.py"),
            host="node7",
            started=START,
            seconds=100.0,
            end=Ended(0, None, 50.0),
            exporter="http://localhost:9743",
            before=told(at=START - 0.5),
            after=told(job()),
            cpu_seconds_used=50.0,
            own_cgroup=True,
        ),
        **changes,
    )


def text_of(run: Run, config: Config | None = None) -> list[str]:
    """The lines of a receipt."""
    return as_text(as_json(run, config or Config())).splitlines()


# --- receipt ---------------------------------------------------------------------------------


def test_text() -> None:
    """All that is known, and no line for what is not."""
    assert text_of(ran()) == [
        "JobWatt  run:bert-1  1 m 40 s  exit code 0",
        "  energy    2.00 Wh, 72.0 W on average",
        "            cpu        1.50 Wh    75 %",
        "            dram     1800.00 J    25 %",
        "  CPU time  50.0 s",
        "  sources   rapl 100 %: all measured",
        "  measured  by the exporter at http://localhost:9743; all processes",
    ]


def test_json() -> None:
    """The whole schema, and it is JSON."""
    receipt = as_json(ran(account="vision", budget_joules=3600.0), Config())

    assert json.loads(json.dumps(receipt, allow_nan=False)) == {
        "version": receipt["version"],
        "job_uid": "run:bert-1",
        "id": "bert-1",
        "account": "vision",
        "command": ["python", "train.py"],
        "host": "node7",
        "started": START,
        "ended": START + 100,
        "seconds": 100.0,
        "exit_code": 0,
        "signal": None,
        "measured_by": "exporter",
        "exporter": "http://localhost:9743",
        "energy_joules": 7200.0,
        "components": {"cpu": 5400.0, "dram": 1800.0},
        "sources": {"rapl": 7200.0},
        "measured_ratio": 1.0,
        "power_watts": 72.0,
        "cpu_seconds": 50.0,
        "cpu_seconds_used": 50.0,
        "gpu_idle_joules": 0.0,
        "coverage": {
            "from": START,
            "to": START + 100,
            "ratio": 1.0,
            "own_cgroup": True,
            "still_running": False,
            "missing": [],
        },
        "notes": [],
        "carbon": None,
        "cost": None,
        "budget": {"joules": 3600.0, "used_ratio": 2.0, "exceeded": True},
    }


def test_carbon_and_cost() -> None:
    """Where factors are configured, with the PUE in both."""
    config = Config(grid_carbon_intensity=400, grid_pue=1.25, grid_price=0.2, grid_currency="EUR")

    receipt = as_json(ran(), config)

    assert receipt["carbon"]["grams"] == pytest.approx(1.0)
    assert receipt["cost"]["amount"] == pytest.approx(0.0005)
    lines = as_text(receipt).splitlines()
    assert "  carbon    1 g CO2 (400 g/kWh, PUE 1.25)" in lines
    assert "  cost      0.0005 EUR (0.2 EUR/kWh, PUE 1.25)" in lines


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (72_000.0, "  budget    10 % of 20.00 Wh used on this node"),
        (3600.0, "  budget    EXCEEDED: 200 % of 1.00 Wh used on this node"),
        (1.0, "  budget    EXCEEDED: 720000 % of 1.00 J used on this node"),
        (1e12, "  budget    less than 0.0001 % of 277.78 MWh used on this node"),
    ],
)
def test_budget(budget: float, says: str) -> None:
    """How much of it, and clearly where it was not enough."""
    assert says in text_of(ran(budget_joules=budget))


def test_only_what_was_used_meanwhile() -> None:
    """Of an account that was there before, and of a scheduler's job."""
    before = job("slurm:7", energy_joules=7000.0, components={"cpu": 5300.0, "dram": 1700.0})
    before |= {"sources": {"rapl": 7000.0}, "cpu_seconds": 10.0}
    run = ran(
        job_uid="slurm:7",
        is_shared=True,
        before=told(before, at=START - 0.5),
        after=told(job("slurm:7", ended=None)),
    )

    receipt = as_json(run, Config())

    assert receipt["components"] == {"cpu": 100.0, "dram": 100.0}
    assert (receipt["energy_joules"], receipt["cpu_seconds"]) == (200.0, 40.0)
    assert receipt["cpu_seconds_used"] is None
    assert receipt["notes"] == ["the figures are all that slurm:7 used here while the command ran"]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([job("slurm:7", ended=None)], "slurm:7"),
        ([job("slurm:7"), job("slurm:7:r1", ended=None)], "slurm:7:r1"),
        ([job("slurm:7", ended=None), job("slurm:7:r1", ended=None)], "slurm:7"),
        ([job("slurm:7:r1", ended=None), job("slurm:7:r2", ended=None)], "slurm:7"),
        ([job("slurm:77:r1", ended=None), job("slurm:7:r1")], "slurm:7"),
        ([], "slurm:7"),
    ],
)
def test_a_requeued_job_has_the_exporters_name(jobs: list[dict[str, Any]], expected: str) -> None:
    """Its users cannot read which run it is."""
    assert as_told(told(*jobs), "slurm:7") == expected
    assert as_told(None, "slurm:7") == "slurm:7"
    assert as_told(told(job("run:a:r1", ended=None)), "run:a") == "run:a"


def test_estimated_share() -> None:
    """Is said for all to see."""
    half = job(sources={"rapl": 1800.0, "estimate": 5400.0})
    whole = job(sources={"estimate": 7200.0})

    assert as_json(ran(after=told(half)), Config())["measured_ratio"] == 0.25
    assert "  sources   rapl 25 %, estimate 75 %: 25 % measured, the rest ESTIMATED" in text_of(
        ran(after=told(half))
    )
    assert "  sources   estimate 100 %: NOT MEASURED, estimated" in text_of(ran(after=told(whole)))


def test_gpus_held_idle() -> None:
    """Their idle energy is shown, and not in the sum."""
    lines = text_of(ran(after=told(job(gpu_idle_joules=36_000.0))))

    assert "            besides, GPUs held idle: 10.00 Wh" in lines
    assert lines[1] == "  energy    2.00 Wh, 72.0 W on average"


@pytest.mark.parametrize(
    ("changes", "ratio", "says"),
    [
        (
            {"after": told(job(measured_since=START + 25))},
            0.75,
            "the first 25.0 s: the account was opened only then",
        ),
        ({"after": told(job(), at=START + 90)}, 0.9, "the last 10.0 s: no sample was taken since"),
        (
            {"cpu_seconds_used": 60.0},
            1.0,
            (
                "10.0 s of 60.0 s of CPU time: processes that lived between two samples, or of a "
                "run within this one"
            ),
        ),
        (
            {"after": told(job(), devices=[told()["devices"][0] | {"gap_seconds": 3.0}])},
            1.0,
            "package-0 during 3.00 s, in which it was not read",
        ),
        (
            {
                "after": told(
                    job(), sources=[{"source": "rapl", "up": False, "errors": {"denied": 3}}]
                )
            },
            1.0,
            "rapl cannot be read now (denied)",
        ),
    ],
)
def test_what_is_missing(changes: dict[str, Any], ratio: float, says: str) -> None:
    """Is said, and the coverage with it."""
    coverage = as_json(ran(**changes), Config())["coverage"]

    assert coverage["missing"] == [says]
    assert coverage["ratio"] == pytest.approx(ratio)


def test_unknown_idle_power() -> None:
    """Then idle energy is among the energy: the reader must know."""
    devices = [told()["devices"][0] | {"idle_watts": None}]

    (note,) = as_json(ran(after=told(job(), devices=devices)), Config())["notes"]

    assert note == "idle power of package-0 is not known: idle energy is among the energy"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"after": told()},
            "no account of run:bert-1: it may not be allowed to read the environment",
        ),
        (
            {"after": told(), "own_cgroup": False, "seconds": 0.02},
            (
                "no account of run:bert-1: the command lived 0.02 s, and may have ended between "
                "two samples, 1 s apart; where longer ones"
            ),
        ),
        ({"after": told(), "is_shared": True, "job_uid": "slurm:7"}, "no account of slurm:7; "),
        (
            {"after": told(), "is_shared": True, "job_uid": "k8s:a-b"},
            "no account of k8s:a-b: where the API tells it the pod's owner, the job has that name",
        ),
        ({"after": {"time": START, "devices": []}}, "older than this command"),
        ({"after": None, "trouble": ["all figures: it has gone"]}, "all figures: it has gone"),
        ({"after": told(), "exporter": None}, "it ended between two samples"),
        (
            {"after": told(job(components={}, sources={}, energy_joules=0.0), devices=[])},
            "no energy can be measured here",
        ),
    ],
)
def test_no_energy(changes: dict[str, Any], says: str) -> None:
    """What is not known is null, and never 0."""
    config = Config(grid_carbon_intensity=400, grid_price=1)
    receipt = as_json(ran(budget_joules=1.0, **changes), config)

    assert receipt["energy_joules"] is receipt["power_watts"] is receipt["components"] is None
    assert receipt["carbon"] is receipt["cost"] is receipt["measured_ratio"] is None
    assert receipt["budget"] == {"joules": 1.0, "used_ratio": None, "exceeded": None}
    assert receipt["coverage"]["ratio"] == 0.0
    assert says in " ".join(receipt["coverage"]["missing"])
    text = as_text(receipt)
    assert "  energy    not measured\n" in text
    assert "1.00 J, of which nobody knows how much was used" in text


# --- who measures ----------------------------------------------------------------------------


def test_waits_for_the_sample_after_the_end() -> None:
    """One that began before the end does not count; with GPUs one more."""
    ended = time.time()
    for component, needed in (("cpu", ended), ("gpu", ended + 0.2)):
        asked: list[float] = []

        def read(component: str = component, asked: list[float] = asked) -> dict[str, Any]:
            asked.append(time.time())
            at = ended - 0.1 + 0.2 * len(asked)
            return {
                "time": at,
                "interval": 0.2,
                "devices": [{"component": component}],
                "health": {"sample_seconds": 0.15},
            }

        found = ByExporter(read).finish(ended, lambda _: True)

        assert found["time"] - 0.15 > needed
        assert found["time"] - 0.15 <= needed + 0.2


def slept(seconds: float) -> bool:
    """Wait as nobody disturbs it."""
    time.sleep(seconds)
    return True


def test_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for an exporter that has stalled nor against who wants to end."""
    monkeypatch.setattr("jobwatt.run.measure.PATIENCE_SECONDS", 0.0)
    old = told(at=START, interval=0.1)

    assert ByExporter(lambda: old).finish(time.time(), slept) is old
    asked: list[float] = []

    def disturbed(seconds: float) -> bool:
        asked.append(seconds)
        return False

    assert ByExporter(lambda: old | {"interval": 60}).finish(time.time(), disturbed)
    assert len(asked) == 1


def test_exporter_that_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for, for a while."""
    monkeypatch.setattr("jobwatt.run.measure.AGAIN_SECONDS", 0.0)
    ended = time.time()
    answers: list[RunError | dict[str, Any]] = [RunError("gone"), told(at=ended + 1)]

    def read() -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, RunError):
            raise answer
        return answer

    assert ByExporter(read).finish(ended, slept)["time"] == ended + 1

    monkeypatch.setattr("jobwatt.run.measure.RESTART_SECONDS", 0.0)
    answers = [RunError("gone")]
    with pytest.raises(RunError, match="gone"):
        ByExporter(read).finish(ended, slept)


def test_failing_sampler() -> None:
    """Is no reason for the command to end, and is told."""

    class Failing:
        snapshot = None

        def sample(self) -> None:
            raise RuntimeError("broken")

        def run(self, _: threading.Event) -> None:
            raise RuntimeError("broken")

    measurer = ByOurselves(Failing())  # type: ignore[arg-type]
    measurer._thread.start()

    with pytest.raises(RunError, match="measuring failed: RuntimeError: broken"):
        measurer.finish(0.0, lambda _: True)


# --- command line ----------------------------------------------------------------------------


def invoke(*arguments: str) -> Result:
    """Run the command in this process, up to the command itself."""
    return CliRunner().invoke(run_module.run, arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing argument 'COMMAND"),
        (["--name=a b", "true"], "letters, digits"),
        (["--name=", "true"], "letters, digits"),
        (["--name=-a", "true"], "letters, digits"),
        (["--name=a/b", "true"], "letters, digits"),
        (["--name=" + "a" * 97, "true"], "longer than 96 characters"),
        (["--id=a\nb", "true"], "letters, digits"),
        (["--id=a", "--name=b", "true"], "exclude each other"),
        (["--account=ä", "true"], "letters, digits"),
        (["--budget=2", "true"], "has no unit"),
        (["--budget=2kwh", "true"], "did you mean 2kWh?"),
        (["--budget=0J", "true"], "must be more than 0"),
        (["--output=/no/such/file", "true"], "cannot write"),
        (["--output=/", "true"], "is a folder"),
        (["--exporter=ftp://a", "true"], "is no address"),
        (["--grid.pue=0.5", "true"], "less than 1"),
        (["--nam=x", "true"], "No such option"),
    ],
)
def test_bad_input(arguments: Sequence[str], says: str) -> None:
    """Ends before anything is started, with what is wrong."""
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())


def test_each_run_is_another_job() -> None:
    """A name is made unique by its time and a random part; the default is the command's."""
    assert run_module._unique("bert") != run_module._unique("bert")
    assert run_module._NAME.fullmatch(run_module._unique("bert"))
    names = ["/usr/bin/python3", "./..train me", "日本"]
    assert [run_module._name_of(name) for name in names] == ["python3", "train-me", "command"]


def start(*arguments: str | Path, **more: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401
    """Start `jobwatt run` where no exporter answers."""
    return subprocess.Popen([JOBWATT, "run", NOBODY, *arguments], **more)


def run(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:  # noqa: ANN401
    """Run `jobwatt run` to its end where no exporter answers."""
    return subprocess.run(
        [JOBWATT, "run", NOBODY, *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        **more,
    )


def test_streams_and_exit_code() -> None:
    """The command's own; what follows it is its own as well."""
    code = "import sys; print(sys.stdin.read(), sys.argv[1:]); print('err', file=sys.stderr)"
    code += "; sys.exit(7)"

    done = run("--name=x", sys.executable, "-c", code, "--name=y", "-h", input=b"hello")

    assert done.returncode == 7
    assert done.stdout == b"hello ['--name=y', '-h']\n"
    assert done.stderr.startswith(b"err\nJobWatt  run:x-")


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["/no/such/program"], 127, "command not found"),
        (["no-such-program"], 127, "command not found"),
        (["/etc/passwd"], 126, "Permission denied"),
        (["/"], 126, "Permission denied"),
        (["sh", "-c", "kill -TERM $$"], 143, "SIGTERM"),
        (["sh", "-c", "kill -KILL $$"], 137, "SIGKILL"),
    ],
)
def test_exit_codes(command: list[str], code: int, says: str) -> None:
    """As a shell has them."""
    done = run(*command)

    assert done.returncode == code
    assert says in done.stderr.decode()


def test_script_without_a_first_line(tmp_path: Path) -> None:
    """Is the shell's, as everywhere."""
    script = tmp_path / "script"
    script.write_text("echo $1\nexit 4\n")
    script.chmod(0o755)

    done = run(script, "one")

    assert (done.returncode, done.stdout) == (4, b"one\n")


def test_end_that_another_thread_was_told_of() -> None:
    """One that does not hold signals back may take the news of the command's end, and lose them."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with Signals() as signals:
            pid = child.start(("sh", "-c", "exit 5"), os.environ, signals)
            time.sleep(0.5)  # it has ended, and nobody waits yet
            assert child.wait(pid, signals).code == 5
    finally:
        done.set()
        thread.join()


def test_environment(tmp_path: Path) -> None:
    """The job is declared to all children; what an outer run declared does not hold."""
    output = tmp_path / "r.json"
    outer = os.environ | {f"JOBWATT_{name}": "1J" for name in ("JOB", "NAME", "BUDGET", "ACCOUNT")}
    show = "env | grep ^JOBWATT_ | sort"

    plain = run("--id=inner", "sh", "-c", show, env=outer)
    full = run(
        "--id=inner",
        "--budget=2kWh",
        "--account=vision",
        "--json",
        f"--output={output}",
        *("sh", "-c", show),
        env=outer,
    )

    named = run("--name=bert", *("sh", "-c", show), env=outer)

    assert plain.stdout == b"JOBWATT_JOB=inner\n"
    assert re.fullmatch(rb"JOBWATT_JOB=bert-\S+\nJOBWATT_NAME=bert\n", named.stdout)
    assert full.stdout == (
        b"JOBWATT_ACCOUNT=vision\nJOBWATT_BUDGET=7200000.0J\nJOBWATT_JOB=inner\n"
    )
    receipt = json.loads(output.read_text())
    assert (receipt["job_uid"], receipt["account"]) == ("run:inner", "vision")
    assert receipt["budget"]["joules"] == 7.2e6
    assert full.stderr.startswith(b"JobWatt  run:inner")  # people still get text
    assert output.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert list(tmp_path.iterdir()) == [output]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_json_on_stderr() -> None:
    """One object in one line, after all that the command wrote."""
    done = run("--json", "true")

    receipt = json.loads(done.stderr)
    assert (receipt["exit_code"], receipt["measured_by"]) == (0, "jobwatt run")
    assert "127.0.0.1:1 does not answer" in receipt["coverage"]["missing"][0]


def test_runs_where_nothing_can_be_measured(tmp_path: Path) -> None:
    """The command matters most."""
    done = run(
        "--cpu.estimate=off", f"--path.sysfs={tmp_path}", "--", "sh", "-c", "echo ran; exit 5"
    )

    assert (done.returncode, done.stdout) == (5, b"ran\n")
    assert b"not measured" in done.stderr
    assert b"jobwatt doctor" in done.stderr


@pytest.mark.parametrize("part", ["local_sampler", "owner_of_child"])
def test_runs_whatever_breaks(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Also where we are wrong ourselves."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(app, part, broken)

    result = invoke(NOBODY, "sh", "-c", "exit 6")

    assert result.exit_code == 6
    assert ("ZeroDivisionError: oops" in result.output) == (part == "local_sampler")


def test_closed_stderr() -> None:
    """Nobody wants the receipt: the exit code is still the command's."""
    done = subprocess.run(
        ["sh", "-c", f"exec {JOBWATT} run {NOBODY} sh -c 'exit 9' 2>&-"], check=False
    )

    assert done.returncode == 9


# --- signals ---------------------------------------------------------------------------------

NOTING = """
import signal, sys, time
names = [n for n in sys.argv[2:]]
def note(number, frame):
    print(signal.Signals(number).name, flush=True)
    if signal.Signals(number).name == sys.argv[1]:
        sys.exit(3)
for n in names:
    signal.signal(getattr(signal, n), note)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    "name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"]
)
def test_signals_are_passed_on(name: str) -> None:
    """Once, and what the command makes of them counts."""
    with start(
        *(sys.executable, "-c", NOTING, name, name),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (3, f"{name}\n".encode())
    assert b"exit code 3" in err


def test_stop_and_go_on() -> None:
    """Both stop and both go on."""
    # A group of its own: nothing stops where all of a session's shells are gone (POSIX: orphaned).
    with start("--", "sleep", "60", stderr=subprocess.DEVNULL, process_group=0) as process:
        ours = psutil.Process(process.pid)
        (child,) = eventually(ours.children, 20)
        eventually(lambda: child.name() == "sleep", 10)
        process.send_signal(signal.SIGTSTP)
        eventually(lambda: {ours.status(), child.status()} == {psutil.STATUS_STOPPED}, 10)
        process.send_signal(signal.SIGCONT)
        eventually(lambda: child.status() == psutil.STATUS_SLEEPING, 10)
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 143


def test_ctrl_c_in_a_terminal() -> None:
    """The terminal sends it to both; the command has it once, and the receipt is printed."""
    command = [NOBODY, sys.executable, "-c", NOTING, "SIGTERM", "SIGINT", "SIGTERM"]
    pid, ours = pty.fork()
    if pid == 0:
        os.execv(JOBWATT, [str(JOBWATT), "run", *command])  # noqa: S606 - in the terminal's session
    shown = bytearray()

    def until(found: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not found():
            assert time.monotonic() < deadline, bytes(shown)
            try:
                shown.extend(os.read(ours, 65536))
            except OSError:
                return

    until(lambda: b"ready" in shown)
    os.write(ours, b"\x03")
    until(lambda: b"SIGINT" in shown)
    time.sleep(0.3)
    os.kill(pid, signal.SIGTERM)
    until(lambda: b"measured" in shown)
    _, status = os.waitpid(pid, 0)
    os.close(ours)

    assert os.waitstatus_to_exitcode(status) == 3
    assert shown.count(b"SIGINT") == 1


def test_ignored_signals_stay_ignored() -> None:
    """As under nohup."""
    with subprocess.Popen(
        ["nohup", JOBWATT, "run", NOBODY, "sh", "-c", "kill -HUP $$; exit 8"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.wait(30) == 8


def test_pipe_is_the_commands() -> None:
    """A command whose reader goes ends by SIGPIPE, as without us."""
    done = subprocess.run(
        ["bash", "-c", f"{JOBWATT} run {NOBODY} yes | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (128 + 13, b"y\n")
