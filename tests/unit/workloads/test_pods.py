"""Which job a pod belongs to, decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from fakes.kubernetes import pod
from jobwatt.kubernetes.pod import Pod, PodRules, parse_pod
from jobwatt.model import UNDECIDED
from jobwatt.records import JobRecord
from jobwatt.units import NS
from jobwatt.workloads import pods
from jobwatt.workloads.pods import PodJobs

JOB = "k8s:ml/Job/bert:j"


@dataclass
class Cell:
    """What the threads have left."""

    pods: Mapping[str, Pod] | None = None
    hopeless: bool = False
    devices: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    answers: int = 1
    now_ns: int = 1000 * NS

    def put(self, uid: str, name: str = "bert-0", owner: str = "bert") -> None:
        tree = pod(name, uid, owner=("Job", owner, owner[0].replace("b", "j")))
        self.pods = {**(self.pods or {}), uid: parse_pod(tree, PodRules())}

    def make(self) -> PodJobs:
        return PodJobs(self, self, lambda: self.now_ns)

    def wait(self, seconds: float, jobs: PodJobs) -> None:
        self.now_ns += round(seconds * NS)
        jobs.refresh()


def test_without_metadata_a_pods_uid_is_its_job_at_once() -> None:
    """Nobody will tell anything."""
    jobs = PodJobs()
    jobs.refresh()
    assert jobs.job_of("k8s:a") == "k8s:a"


def test_other_claims_are_passed_on() -> None:
    """Slurm's jobs are none of ours."""
    assert PodJobs().job_of("slurm:7") == "slurm:7"


def test_the_watch_knows_a_pod_before_its_containers_start() -> None:
    """Then nobody waits."""
    cell = Cell()
    cell.put("a")
    jobs = cell.make()
    assert jobs.refresh() == {JOB: JobRecord(name="bert", account="ml", k8s_namespace="ml")}
    assert jobs.job_of("k8s:a") == JOB


def test_a_pod_that_is_not_known_waits() -> None:
    """And is decided as soon as it is."""
    cell = Cell()
    jobs = cell.make()
    for seconds in (0, 5, 4.9):
        cell.wait(seconds, jobs)
        assert jobs.job_of("k8s:a") == UNDECIDED
    cell.put("a")
    assert jobs.job_of("k8s:a") == UNDECIDED  # within a look all ask the same word
    jobs.refresh()
    assert jobs.job_of("k8s:a") == JOB


def test_it_waits_ten_seconds_at_most_and_then_for_good() -> None:
    """What is told later changes no name, but is told of that job."""
    cell = Cell()
    jobs = cell.make()
    cell.wait(0, jobs)
    assert jobs.job_of("k8s:a") == UNDECIDED
    cell.wait(10, jobs)
    assert jobs.job_of("k8s:a") == "k8s:a"
    cell.put("a")
    assert list(jobs.refresh()) == ["k8s:a"]
    assert jobs.job_of("k8s:a") == "k8s:a"


def test_each_pod_waits_for_itself() -> None:
    """From when it was first asked for."""
    cell = Cell()
    jobs = cell.make()
    cell.wait(0, jobs)
    assert jobs.job_of("k8s:a") == UNDECIDED
    cell.wait(6, jobs)
    assert jobs.job_of("k8s:b") == UNDECIDED
    cell.wait(6, jobs)
    assert (jobs.job_of("k8s:a"), jobs.job_of("k8s:b")) == ("k8s:a", UNDECIDED)


def test_nobody_waits_for_who_refuses() -> None:
    """A token that is refused for long is no access."""
    cell = Cell(hopeless=True)
    jobs = cell.make()
    jobs.refresh()
    assert jobs.job_of("k8s:a") == "k8s:a"


def test_a_decision_stays_whatever_the_labels_become() -> None:
    """For the pod's life, also when the API has forgotten it."""
    cell = Cell()
    cell.put("a")
    jobs = cell.make()
    jobs.refresh()
    assert jobs.job_of("k8s:a") == JOB
    cell.put("a", owner="other")
    assert list(jobs.refresh()) == [JOB]
    assert jobs.job_of("k8s:a") == JOB
    cell.pods = {}
    jobs.refresh()
    assert jobs.job_of("k8s:a") == JOB


def test_decisions_outlive_a_restart() -> None:
    """Of both kinds, with nobody to ask, and with somebody who says otherwise."""
    cell = Cell()
    cell.put("a")
    before = cell.make()
    cell.wait(0, before)
    assert before.job_of("k8s:b") == UNDECIDED
    cell.wait(10, before)
    assert (before.job_of("k8s:a"), before.job_of("k8s:b")) == (JOB, "k8s:b")
    rows = before.dump()
    assert rows == {"pod a": (JOB,), "pod b": ("k8s:b",)}
    assert before.dump() is rows

    alone, told = PodJobs(), cell.make()
    cell.put("a", owner="other")
    cell.put("b", "bert-1")
    for after in (alone, told):
        after.restore({**rows, "jobs": (1, 2)})
        after.refresh()
        assert (after.job_of("k8s:a"), after.job_of("k8s:b")) == (JOB, "k8s:b")
    assert set(told.refresh()) == {JOB, "k8s:b"}


def test_who_waits_goes_on_waiting_over_restarts() -> None:
    """Ten seconds in all, however often; on another boot the clock begins anew."""
    cell = Cell()
    jobs = cell.make()
    cell.wait(0, jobs)
    assert jobs.job_of("k8s:a") == UNDECIDED
    for seconds in (4, 4):
        rows = jobs.dump()
        assert rows == {"waiting pod a": (1000 * NS,)}
        jobs = cell.make()
        jobs.restore(rows)
        cell.wait(seconds, jobs)
        assert jobs.job_of("k8s:a") == UNDECIDED
    rebooted = cell.make()
    rebooted.restore(jobs.dump(), same_boot=False)
    for later, expected in ((jobs, "k8s:a"), (rebooted, UNDECIDED)):
        cell.now_ns = 1010 * NS
        later.refresh()
        assert later.job_of("k8s:a") == expected
    assert jobs.dump() == {"pod a": ("k8s:a",)}
    long_ago = cell.make()
    long_ago.restore(rows)
    cell.wait(60, long_ago)
    long_ago.restore(rows)
    long_ago.refresh()
    assert long_ago.job_of("k8s:a") == "k8s:a"


@pytest.mark.parametrize("told", [True, False])
def test_what_lives_is_never_forgotten(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    """Though nobody has asked for it for long: the API knows it, or it has processes."""
    monkeypatch.setattr(pods, "MOST_DECIDED", 3)
    cell = Cell()
    cell.put("a")
    jobs = cell.make() if told else PodJobs()
    jobs.restore({"pod a": ("k8s:a",), "pod gone": ("k8s:gone",)})
    jobs.live = () if told else {"k8s:a"}
    jobs.refresh()
    for uid in "bcdefg":
        cell.put(uid, owner="other")
        cell.pods = {key: pod for key, pod in (cell.pods or {}).items() if key in {"a", uid}}
        jobs.refresh()
        jobs.job_of(f"k8s:{uid}")
    assert list(jobs.dump()) == ["pod a", "pod f", "pod g"]


def test_a_row_that_is_none_is_an_error() -> None:
    """The state is then begun anew."""
    with pytest.raises(ValueError, match="values to unpack"):
        PodJobs().restore({"pod a": (1, 2)})


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody asks for any more are forgotten first."""
    monkeypatch.setattr(pods, "MOST_DECIDED", 3)
    jobs = PodJobs()
    for uid in ("a", "b", "c", "a", "d"):
        jobs.job_of(f"k8s:{uid}")
    assert list(jobs.dump()) == ["pod c", "pod a", "pod d"]
    cell = Cell()
    waiting = cell.make()
    cell.wait(0, waiting)
    waiting.job_of("k8s:brief")
    cell.wait(21, waiting)
    assert waiting._asked_ns == {}


def test_devices_are_their_jobs() -> None:
    """Of all pods of the job that still run; a new word makes a new mapping, none the same."""
    cell = Cell(devices={("ml", "bert-0"): ("GPU-1",), ("ml", "bert-1"): ("GPU-2", "MIG-7")})
    cell.put("a")
    cell.put("b", "bert-1")
    cell.put("c", "other-0", "other")
    jobs = cell.make()
    records = jobs.refresh()
    assert {job: record.gpu_ids for job, record in records.items()} == {
        JOB: ("GPU-1", "GPU-2", "MIG-7"),
        "k8s:ml/Job/other:o": (),
    }
    assert jobs.refresh() is records
    cell.devices = {}
    assert jobs.refresh()[JOB].gpu_ids == ()


def test_a_pod_made_again_does_not_hold_what_its_predecessor_held() -> None:
    """Under the same name; the next answer tells, also where it is the same device again."""
    cell = Cell(devices={("ml", "bert-0"): ("GPU-1",)})
    cell.put("a")
    cell.put("b", "other-0", "other")
    jobs = cell.make()
    assert jobs.refresh()[JOB].gpu_ids == ("GPU-1",)
    cell.pods = {uid: pod for uid, pod in (cell.pods or {}).items() if uid != "a"}
    jobs.refresh()
    cell.put("c")
    assert jobs.refresh()[JOB].gpu_ids == ()
    cell.answers += 1
    records = jobs.refresh()
    assert records[JOB].gpu_ids == ("GPU-1",)
    assert jobs.refresh() is records
