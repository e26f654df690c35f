from __future__ import annotations

import re
from collections import Counter as Count

import pytest

from jobwatt.simulation.runs import run_at
from jobwatt.simulation.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


def test_a_scenario_is_known_by_its_name(scenario: Scenario) -> None:
    """What `--scenario` takes is the scenario's own name."""
    assert SCENARIOS[scenario.name] is scenario


def test_the_first_process_is_init(scenario: Scenario) -> None:
    """What has pid 1 is systemd, for the node's whole life."""
    assert (scenario.workloads[0].comm, scenario.workloads[0].lifetime) == ("systemd", None)


def test_names_fit_into_the_kernel(scenario: Scenario) -> None:
    """A comm has at most 15 bytes."""
    assert [w.comm for w in scenario.workloads if len(w.comm.encode()) > 15] == []


def test_work_is_bound_to_packages_that_exist(scenario: Scenario) -> None:
    """An affinity names a package of this hardware."""
    packages = {None, *range(len(scenario.hardware.packages))}

    assert {w.package for w in scenario.workloads} <= packages


def test_one_uid_has_one_name(scenario: Scenario) -> None:
    """Users do not share numbers."""
    users = {w.user for w in scenario.workloads}

    assert len(users) == len({user.uid for user in users}) == len({user.name for user in users})


OWNERS = re.compile(
    r"system|systemd:.+|session:.+|slurm:\d+(:r\d+)?|container:[0-9a-f]{64}|k8s:[0-9a-f]{32}"
    r"|k8s:([a-z0-9-]+/[A-Za-z]+/[a-z0-9-]+:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)


def test_owners_are_named_by_the_contract(scenario: Scenario) -> None:
    """Every owner is one that the exporter could have found."""
    for workload in scenario.workloads:
        job_uid = workload.job_uid
        if workload.job is not None:
            run = run_at(workload.job, workload.job.begins_seconds)
            assert run is not None
            job_uid = run.job_uid
        assert OWNERS.fullmatch(job_uid)
        kind, _, name = job_uid.partition(":")
        if kind == "session":
            assert workload.user.name == name


def test_a_part_draws_more_under_load_and_stays_within_its_limit(scenario: Scenario) -> None:
    """Idle < full ≤ limit."""
    for package in scenario.hardware.packages:
        for power in filter(None, (package.power, package.dram)):
            assert 0 < power.idle_watts < power.full_watts
            assert power.limit_watts is None or power.full_watts <= power.limit_watts
    for gpu in scenario.hardware.gpus:
        assert 0 < gpu.power.idle_watts < gpu.power.full_watts <= (gpu.power.limit_watts or 0)


def test_work_runs_on_gpus_that_exist(scenario: Scenario) -> None:
    """What computes on GPUs has been given some of this hardware."""
    for workload in scenario.workloads:
        assert set(workload.gpus) <= set(range(len(scenario.hardware.gpus)))
        assert workload.gpus or workload.kernels is None


def test_all_contexts_fit_into_the_memory_of_their_gpu(scenario: Scenario) -> None:
    """Also when all who may hold a GPU do so at once."""
    held = Count[int]()
    for workload in scenario.workloads:
        if workload.kernels is not None:
            for number in range(workload.count):
                gpu = workload.gpus[number % len(workload.gpus)]
                held[gpu] += workload.kernels.memory_bytes

    for number, memory_bytes in held.items():
        assert memory_bytes <= scenario.hardware.gpus[number].memory_bytes


def test_memory_suffices_for_all_processes(scenario: Scenario) -> None:
    """No node has more than 2 TiB."""
    assert sum(w.memory_bytes * w.count for w in scenario.workloads) < 2 << 40
