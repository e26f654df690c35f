"""Run the whole stack without Docker: exporters, Prometheus, Alertmanager; until Ctrl-C.

The committed configuration in prometheus/ is copied to .stack/ with this machine's addresses and
runs on Debian's own servers. All that they write lies below .stack/.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "prometheus"
ZONES = ROOT / "deploy/docker/grid/zones.yml"

HOST = "127.0.0.1"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
LOOK_SECONDS = 0.1
TAIL_LINES = 20

SERVERS = {"exporter": 9743, "grid": 9744, "prometheus": 9090, "alertmanager": 9093}
"""By their host names in the committed configuration, with the ports that they have there."""


class StackError(Exception):
    """The stack cannot run; the message says why."""


# --- settings -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ports:
    """One for each server, by its host name in the committed configuration."""

    exporter: int
    grid: int
    prometheus: int
    alertmanager: int

    def of(self, target: str) -> str:
        """Return where a target of the compose stack, `exporter:9743`, is here.

        Raises:
            StackError: it is a server that this stack does not have.
        """
        name = target.rpartition(":")[0]
        if name not in SERVERS:
            raise StackError(f"prometheus.yml names {target}, which tools/stack.py does not start")
        return f"{HOST}:{getattr(self, name)}"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="tools/stack.py", description=__doc__)
    add = parser.add_argument
    add(
        "--simulate",
        metavar="SCENARIO",
        help="serve a made-up node, such as two-socket-server, instead of this machine",
    )
    for name, port in SERVERS.items():
        add(
            f"--{name}-port",
            type=int,
            default=port,
            metavar="PORT",
            help=f"of the {name}; 0 takes a free one (default: {port})",
        )
    add(
        "--grid-zone",
        default="WORLD",
        metavar="ZONE",
        help="of this machine, one of deploy/docker/grid/zones.yml (default: WORLD)",
    )
    add("--webhook", metavar="URL", help="where alerts go; without it they stay in Alertmanager")
    add("--folder", type=Path, default=ROOT / ".stack", help="for data and logs (default: .stack)")
    add("--prometheus", default="prometheus", metavar="PROGRAM", help="another Prometheus")
    add(
        "--keep-going",
        action="store_true",
        help="go on when a server ends, to see what the alerts say about it",
    )
    fast = parser.add_argument_group("times, shorter than in the field, to watch and to test")
    fast.add_argument("--scrape-interval", metavar="DURATION", help="such as 1s")
    fast.add_argument("--evaluation-interval", metavar="DURATION", help="of all rules")
    fast.add_argument(
        "--for",
        dest="hold",
        metavar="DURATION",
        help="how long a condition must hold before it alerts, and Alertmanager then waits",
    )
    return parser.parse_args(arguments)


def choose_ports(asked: argparse.Namespace) -> Ports:
    """Return the ports, free ones for 0.

    Raises:
        StackError: one is taken.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:  # all at once, so that they differ
        for name in SERVERS:
            listener = held.enter_context(socket.socket())
            # As the servers do: what has just been closed is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            wanted = getattr(asked, f"{name}_port")
            try:
                listener.bind((HOST, wanted))
            except OSError as error:
                raise StackError(
                    f"port {wanted} cannot be had ({error.strerror}): choose another with "
                    f"--{name}-port, or 0 for any"
                ) from error
            chosen[name] = listener.getsockname()[1]
    return Ports(**chosen)


# --- configuration ------------------------------------------------------------------------------


def write_configuration(folder: Path, ports: Ports, asked: argparse.Namespace) -> None:
    """Copy prometheus/ to `folder` with addresses and times that fit here."""
    shutil.rmtree(folder / "rules", ignore_errors=True)  # an earlier run's may have gone since
    config = _load(PROMETHEUS / "prometheus.yml")
    patterns = config["rule_files"]
    for source in {path for pattern in patterns for path in PROMETHEUS.glob(pattern)}:
        rules = _load(source)
        for group in rules["groups"]:
            _set(group, "interval", asked.evaluation_interval)
            for rule in group["rules"]:
                if "alert" in rule:
                    _set(rule, "for", asked.hold)
        _dump(rules, folder / source.relative_to(PROMETHEUS))
    _set(config["global"], "scrape_interval", asked.scrape_interval)
    _set(config["global"], "evaluation_interval", asked.evaluation_interval)
    for place in (*config["alerting"]["alertmanagers"], *config["scrape_configs"]):
        if "static_configs" in place:
            for static in place["static_configs"]:
                static["targets"] = [ports.of(target) for target in static["targets"]]
    _dump(config, folder / "prometheus.yml")
    _dump(_alertmanager(asked), folder / "alertmanager.yml")


def _alertmanager(asked: argparse.Namespace) -> dict[str, Any]:
    config = _load(PROMETHEUS / "alertmanager.yml")
    _set(config["route"], "group_wait", asked.hold)
    _set(config["route"], "group_interval", asked.hold)
    if asked.webhook is not None:
        for receiver in config["receivers"]:
            receiver["webhook_configs"] = [{"url": asked.webhook, "send_resolved": True}]
    return config


def _set(section: dict[str, Any], key: str, value: str | None) -> None:
    if value is not None:
        section[key] = value


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def _dump(tree: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


# --- servers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A program that runs, and where it answers."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise `StackError` with the end of its log if it has ended."""
        code = self.process.poll()
        if code is None:
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        raise StackError("\n".join([f"{self.name} {how}; the end of {self.log}:", *tail]))

    def is_ready(self) -> bool:
        """Whether it says so itself."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def start(name: str, port: int, folder: Path, command: Sequence[str]) -> Server:
    """Start a server, with its output in a log.

    It gets a process group of its own, so that Ctrl-C reaches it through us only, and ends with us
    even if we are killed.

    Raises:
        StackError: there is no such program.
    """
    program = shutil.which(command[0])
    if program is None:
        raise StackError(f"{command[0]} is missing: sudo apt-get install {Path(command[0]).name}")
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", str(Path(program).absolute()), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            process_group=0,
        )
    return Server(name, port, log, process)


def check_zone(zone: str) -> None:
    """Raise `StackError` if the grid exporter of this stack does not have the zone."""
    zones = _load(ZONES)["zones"]
    if zone not in zones:
        raise StackError(
            f"--grid-zone {zone} is not in {ZONES.relative_to(ROOT)}, which has "
            f"{', '.join(zones)}: choose one of them, or add {zone} there"
        )


def commands(
    folder: Path, ports: Ports, asked: argparse.Namespace
) -> list[tuple[str, int, list[str]]]:
    """Return name, port and command line of each server."""
    jobwatt = str(Path(sys.executable).with_name("jobwatt"))
    if asked.simulate is None:
        exporter = [jobwatt, "serve", f"--state.directory={folder / 'exporter'}"]
    else:
        exporter = [jobwatt, "simulate", f"--scenario={asked.simulate}"]
    exporter += [
        f"--grid.zone={asked.grid_zone}",
        f"--web.listen-address={HOST}:{ports.exporter}",
    ]
    grid = [
        jobwatt,
        "grid",
        f"--config.file={ZONES}",
        f"--web.listen-address={HOST}:{ports.grid}",
    ]
    prometheus = [
        asked.prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={HOST}:{ports.prometheus}",
    ]
    alertmanager = [
        "prometheus-alertmanager",
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={HOST}:{ports.alertmanager}",
        "--cluster.listen-address=",  # it is alone
    ]
    return [
        ("exporter", ports.exporter, exporter),
        ("grid", ports.grid, grid),
        ("prometheus", ports.prometheus, prometheus),
        ("alertmanager", ports.alertmanager, alertmanager),
    ]


def wait_until_ready(servers: Sequence[Server], stop: threading.Event) -> None:
    """Return once all answer, or once we are told to stop.

    Raises:
        StackError: one has ended, or does not answer in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    for server in servers:
        while not stop.is_set():
            for each in servers:
                each.check()
            if server.is_ready():
                break
            if time.monotonic() > deadline:
                raise StackError(f"{server.name} is not ready after {READY_SECONDS:.0f} s")
            stop.wait(LOOK_SECONDS)


def watch(servers: list[Server], stop: threading.Event, *, keep_going: bool) -> None:
    """Return once we are told to stop; drop servers that end if we are to keep going.

    Raises:
        StackError: one has ended.
    """
    while not stop.wait(LOOK_SECONDS):
        for server in tuple(servers):
            try:
                server.check()
            except StackError as error:
                if not keep_going:
                    raise
                print(error, file=sys.stderr, flush=True)
                servers.remove(server)


def stop_all(servers: Sequence[Server]) -> None:
    """End what still runs, by force if it must be."""
    for server in servers:
        server.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for server in servers:
        try:
            server.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"{server.name} does not stop: killed", file=sys.stderr, flush=True)
            server.process.kill()
            server.process.wait()


# --- all together -------------------------------------------------------------------------------


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder for one stack; the kernel lets it go however we end.

    Raises:
        StackError: another stack has it.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"another stack runs in {folder}: stop it, or give this one a folder and ports of "
                "its own with --folder and --exporter-port, --prometheus-port, --alertmanager-port"
            ) from error
        yield


def run(asked: argparse.Namespace, stop: threading.Event) -> None:
    """Run the stack until `stop` is set.

    Raises:
        StackError: it cannot, or one of its servers has ended.
    """
    check_zone(asked.grid_zone)
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        run_servers(folder, asked, stop)


def run_servers(folder: Path, asked: argparse.Namespace, stop: threading.Event) -> None:
    """Run the stack in a folder of its own until `stop` is set.

    Raises:
        StackError: it cannot, or one of its servers has ended.
    """
    ports = choose_ports(asked)
    write_configuration(folder, ports, asked)
    servers: list[Server] = []
    try:
        for name, port, command in commands(folder, ports, asked):
            servers.append(start(name, port, folder, command))
        wait_until_ready(servers, stop)
        if not stop.is_set():
            for server in servers:
                print(f"{server.name:<13} http://{HOST}:{server.port}")
            print(f"logs and data are in {folder}; Ctrl-C stops all", flush=True)
        watch(servers, stop, keep_going=asked.keep_going)
    finally:
        stop_all(servers)


def main() -> int:
    """Return the exit code."""
    asked = parse_arguments(sys.argv[1:])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        run(asked, stop)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    print("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
