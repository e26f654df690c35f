from __future__ import annotations

import pytest

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


def test_owners_are_units_sessions_and_the_system(scenario: Scenario) -> None:
    """Every owner is one that the exporter could have found."""
    for workload in scenario.workloads:
        kind, _, name = workload.job_uid.partition(":")
        assert (kind, bool(name)) in {("systemd", True), ("session", True), ("system", False)}
        if kind == "session":
            assert workload.user.name == name


def test_a_part_draws_more_under_load_and_stays_within_its_limit(scenario: Scenario) -> None:
    """Idle < full ≤ limit."""
    for package in scenario.hardware.packages:
        for power in filter(None, (package.power, package.dram)):
            assert 0 < power.idle_watts < power.full_watts
            assert power.limit_watts is None or power.full_watts <= power.limit_watts
