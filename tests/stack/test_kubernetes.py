"""`jobwatt serve` on a node of a cluster: processes in pods' cgroups, an API server, a kubelet.

One life of a node, told by several tests, in order: pods that are known, pods that are not yet, a
pod that never is, and a restart of the exporter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fakes.kubelet import FakeKubelet, listening, pod_resources
from fakes.kubernetes import FakeApi, pod, serving
from fakes.nvml import FakeNvml, Gpu
from fakes.ticker import PACKAGE, ZONES, Ticker
from servers import JOBWATT, answers, eventually, free_port, get, running

pytestmark = pytest.mark.stack

INTERVAL = 0.5
UJ = 1_000_000
CGROUPS = Path("/sys/fs/cgroup")
TOP = CGROUPS / "unified" / f"jobwatt-test-{os.getpid()}-k8s"
GPU = "GPU-00000000-0000-0000-0000-000000000100"
GPU_IDLE_WATTS = 70.0
BURN = "while True: pass"
SLEEP = "import time\ntime.sleep(600)"
PAUSE = f"import os\nopen('/proc/self/comm', 'w').write('pause')\nos.setuid(65535)\n{SLEEP}"
"""What keeps a pod's namespaces, under its own name and user."""


WORKER, SERVER, LATE, NEVER = (f"{digit * 8}-2fa1-11d2-883f-0016d3cca427" for digit in "1234")
BERT = "k8s:ml/JobSet/bert:set-uid"
LLAMA = "k8s:ml/StatefulSet/llama:set-2"
NOTEBOOK = f"k8s:lab/Pod/notebook:{SERVER}"

WORKER_POD = pod(
    "bert-node-0-0-x7k2p",
    WORKER,
    namespace="ml",
    labels={
        "jobset.sigs.k8s.io/jobset-name": "bert",
        "jobset.sigs.k8s.io/jobset-uid": "set-uid",
        "batch.kubernetes.io/job-name": "bert-node-0",
        "kueue.x-k8s.io/queue-name": "gpu",
    },
    annotations={"jobwatt.io/energy-budget": "25kWh"},
    owner=("Job", "bert-node-0", "job-uid"),
    spec={
        "activeDeadlineSeconds": 3600,
        "containers": [{"name": "main", "resources": {"requests": {"cpu": "1500m"}}}],
    },
)

Page = dict[str, list[tuple[dict[str, str], float]]]


def total_uj(page: Page, name: str, **labels: str) -> int:
    """The sum of the samples that have these labels, in microjoules."""
    found = page.get(f"jobwatt_{name}", ())
    return sum(round(value * UJ) for has, value in found if labels.items() <= has.items())


def jobs(page: Page) -> set[str]:
    """The jobs of pods on a page, whatever tells of them."""
    named = {has.get("job_uid", "") for samples in page.values() for has, _ in samples}
    return {job_uid for job_uid in named if job_uid.startswith("k8s:")}


def imbalances(page: Page) -> list[int]:
    """What is missing in both identities of each device, in microjoules."""
    missing = []
    for labels, _ in page["jobwatt_device_energy_joules_total"]:
        device = {"device": labels["device"]}
        whole = total_uj(page, "device_energy_joules_total", **device)
        rest = total_uj(page, "device_idle_energy_joules_total", **device)
        rest += total_uj(page, "device_unattributed_energy_joules_total", **device)
        for level, names in (("process", ("process", "process_other")), ("job", ("job",))):
            parts = sum(total_uj(page, f"{n}_energy_joules_total", **device) for n in names)
            parts += total_uj(page, "retired_energy_joules_total", level=level, **device)
            missing.append(whole - rest - parts)
    return missing


@dataclass
class Node:
    """A node of a cluster, and the exporter on it."""

    folder: Path
    api: FakeApi
    kubelet: FakeKubelet
    command: list[str | Path]
    url: str
    held: ExitStack
    exporter: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start the exporter."""
        self.exporter.enter_context(running(self.command, self.folder / "exporter.log"))
        eventually(lambda: answers(f"{self.url}/-/ready"), 20, "the exporter is not ready")

    def stop(self) -> None:
        """Stop it."""
        self.exporter.close()

    def run(self, uid: str, code: str = BURN) -> None:
        """Start a process in a container of a pod, after the pod's sandbox."""
        self._start(uid, "1" * 64, PAUSE)
        self._start(uid, "e" * 64, code)

    def _start(self, pod_uid: str, container: str, code: str) -> None:
        folder = TOP / f"kubepods/burstable/pod{pod_uid}" / container
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", f"input()\n{code}"]
        process = self.held.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
        self.held.callback(process.kill)
        (folder / "cgroup.procs").write_text(str(process.pid))
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()

    def page(self) -> Page:
        """The page as it is now; on each all sums are right."""
        status, body = get(f"{self.url}/metrics")
        assert status == 200
        page: Page = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                page.setdefault(sample.name, []).append((sample.labels, sample.value))
        assert set(imbalances(page)) == {0}
        assert all(has.get("job_uid", "x") for samples in page.values() for has, _ in samples)
        return page

    def page_with(self, job_uid: str, seconds: float = 15) -> Page:
        """The first page on which a job has used energy."""

        def there() -> Page | None:
            page = self.page()
            return page if total_uj(page, "job_energy_joules_total", job_uid=job_uid) else None

        page = eventually(there, seconds, f"{job_uid} is not shown")
        assert page is not None
        return page


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("k8s")
    sockets = folder / "root/var/lib/kubelet/pod-resources"
    sockets.mkdir(parents=True)
    (folder / "root/etc").mkdir()
    shutil.copy("/etc/passwd", folder / "root/etc/passwd")
    config = folder / "jobwatt.yml"
    idle = {zone.device: zone.idle_watts for zone in ZONES} | {"GPU-*": GPU_IDLE_WATTS}
    config.write_text(yaml.safe_dump({"idle_power": idle}))
    address = f"127.0.0.1:{free_port()}"
    api, kubelet = FakeApi(), FakeKubelet()
    with ExitStack() as held:
        url = held.enter_context(serving(api, folder))
        held.enter_context(listening(kubelet, sockets / "kubelet.sock"))
        ticker = held.enter_context(Ticker(folder / "sys"))
        driver = FakeNvml(folder / "driver", [Gpu(uuid=GPU, power_mw=70_000)], virtual=False)
        held.callback(driver.release)
        host, port = url.removeprefix("https://").split(":")
        environment = {
            **driver.environment({}),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "NODE_NAME": "n1",
        }
        command: list[str | Path] = ["env", *(f"{k}={v}" for k, v in environment.items())]
        command += [
            JOBWATT,
            "serve",
            f"--config.file={config}",
            f"--path.sysfs={ticker.sysfs}",
            f"--path.cgroupfs={CGROUPS}",
            f"--path.rootfs={folder / 'root'}",
            f"--state.directory={folder / 'state'}",
            f"--sample.interval={INTERVAL}s",
            f"--web.listen-address={address}",
            f"--kubernetes.token-file={folder / 'token'}",
            f"--kubernetes.ca-file={folder / 'ca.crt'}",
        ]
        TOP.mkdir()
        held.callback(remove_cgroups)
        made = Node(folder, api, kubelet, command, f"http://{address}", held)
        held.callback(made.stop)
        yield made


def remove_cgroups() -> None:
    """Remove them, from the innermost."""
    for path, _, _ in os.walk(TOP, topdown=False):
        Path(path).rmdir()


def info(page: Page, job_uid: str) -> dict[str, str]:
    """What a job is called."""
    (labels,) = [has for has, _ in page["jobwatt_job_info"] if has["job_uid"] == job_uid]
    return labels


def value(page: Page, name: str, job_uid: str) -> float | None:
    """A job's value."""
    found = [value for has, value in page.get(f"jobwatt_{name}", ()) if has["job_uid"] == job_uid]
    return found[0] if found else None


def test_known_pods_are_their_jobs(node: Node) -> None:
    """From the start, with names, queue, account, budget, deadline and CPUs of the API."""
    notebook = pod("notebook", SERVER, namespace="lab")
    node.api.put(WORKER_POD, notebook)
    node.kubelet.answer = pod_resources("lab", "notebook", {"nvidia.com/gpu": [f"{GPU}::3"]})
    node.run(WORKER)
    node.run(SERVER, SLEEP)
    node.start()
    page = node.page_with(BERT)
    assert info(page, BERT) == {
        "job_uid": BERT,
        "kind": "k8s",
        "job_name": "bert",
        "user": "root",
        "account": "ml",
        "queue": "gpu",
        "k8s_namespace": "ml",
    }
    assert value(page, "job_energy_budget_joules", BERT) == 90e6
    assert value(page, "job_deadline_timestamp_seconds", BERT) == 1_795_950_005
    assert value(page, "job_cpus", BERT) == 1.5
    eventually(lambda: total_uj(node.page(), "account_energy_joules_total", account="ml"), 10)
    assert info(page, NOTEBOOK)["job_name"] == "notebook"
    processes = {has["job_uid"] for has, _ in page.get("jobwatt_process_energy_joules_total", ())}
    assert f"k8s:{WORKER}" not in processes


def test_an_idle_pod_holds_its_gpu(node: Node) -> None:
    """Nobody has a context on it; kubelet tells whose it is, by a copy of it that is shared."""
    eventually(lambda: value(node.page(), "job_gpus", NOTEBOOK) == 1, 15)
    name = "job_gpu_idle_energy_joules_total"
    first, begun = total_uj(node.page(), name, job_uid=NOTEBOOK), time.monotonic()
    time.sleep(3)
    used = total_uj(node.page(), name, job_uid=NOTEBOOK) - first
    watts = used / UJ / (time.monotonic() - begun)
    assert watts == pytest.approx(GPU_IDLE_WATTS, rel=0.5)  # whole samples
    assert value(node.page(), "job_gpus", BERT) is None


def test_a_pod_that_is_not_known_yet_is_nobodys_until_it_is(node: Node) -> None:
    """Its energy is unattributed, and no series is begun under another name."""
    name, device = "device_unattributed_energy_joules_total", PACKAGE.device
    before = node.page()
    node.run(LATE)
    time.sleep(4)
    waiting = node.page()
    assert jobs(waiting) == {BERT, NOTEBOOK}
    unattributed = total_uj(waiting, name, device=device) - total_uj(before, name, device=device)
    assert unattributed > 3 * UJ
    node.api.put(pod("llama-0", LATE, owner=("StatefulSet", "llama", "set-2")))
    decided = node.page_with(LLAMA, 4)
    assert jobs(decided) == {BERT, NOTEBOOK, LLAMA}
    time.sleep(3)
    after = node.page()
    nobodys, llamas = (
        total_uj(after, metric, device=device, **labels)
        - total_uj(decided, metric, device=device, **labels)
        for metric, labels in ((name, {}), ("job_energy_joules_total", {"job_uid": LLAMA}))
    )
    assert llamas > max(2 * UJ, 3 * nobodys)


def test_a_pod_that_nobody_tells_of_is_its_uid_after_a_while(node: Node) -> None:
    """Ten seconds, no less; a word that comes later changes nothing."""
    begun = time.monotonic()
    node.run(NEVER)
    node.page_with(f"k8s:{NEVER}", 20)
    assert time.monotonic() - begun >= 9.5
    node.api.put(pod("slow-0", NEVER, owner=("Job", "slow", "late-uid")))
    time.sleep(3 * INTERVAL)
    page = node.page()
    assert "k8s:ml/Job/slow:late-uid" not in jobs(page)
    assert f"k8s:{NEVER}" in jobs(page)


def test_a_restart_changes_no_job(node: Node) -> None:
    """Though the API says otherwise by now, or nothing at all: counters go on at once."""
    before = node.page()
    node.stop()
    relabelled = pod("bert-node-0-0-x7k2p", WORKER, labels={"jobwatt.io/job": "other"})
    node.api.put(relabelled)
    node.api.token = "refused"
    node.start()
    page = node.page_with(BERT)
    assert jobs(page) == jobs(before)
    for job_uid in jobs(before):
        energy = [total_uj(p, "job_energy_joules_total", job_uid=job_uid) for p in (before, page)]
        assert energy[0] <= energy[1]
        assert info(page, job_uid) == info(before, job_uid)
    since = "job_measured_since_timestamp_seconds"
    assert value(page, since, BERT) == value(before, since, BERT)
    log = (node.folder / "exporter.log").read_text()
    assert "the token is not known there (kubernetes.token-file)" in log
