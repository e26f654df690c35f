from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.devices import write
from fakes.monitored import Machine
from jobwatt.gpus import GpuInfo
from jobwatt.model import Component, Counter, Device, Reading, Source
from jobwatt.units import UJ

ADDRESS = "0000:4d:00.0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without any device."""
    return Machine(tmp_path)


def add_gpu(machine: Machine, driver: str, **attributes: str) -> Path:
    values = {"vendor": "0x8086", "device": "0x56c0", "power/runtime_status": "active"}
    card = machine.card(0, ADDRESS, driver, **values)
    return machine.chip(2, driver, card, **attributes)


def test_i915_with_tiles(machine: Machine) -> None:
    """The card's counter counts; those of its tiles lie inside it."""
    chip = add_gpu(machine, "i915", energy1_input="500", power1_max=str(150 * UJ))
    card = chip.parent.parent
    for tile in (0, 1):
        machine.chip(3 + tile, f"i915_gt{tile}", card, energy1_input="250")
    write(machine.procfs / "sys/kernel", {"osrelease": "6.12.1"})
    report = machine.read()
    device = Device(Component.GPU, ADDRESS, Source.HWMON, model="8086:56c0")
    counter = Counter(f"i915:{ADDRESS}:1", device, limit_uw=150 * UJ, lasting=True)
    assert report.readings == (Reading(counter, 500, machine.now_ns),)
    assert (report.faults, report.limits_uw) == ((), {device: 150 * UJ})
    assert report.gpus[device].info == GpuInfo(pci_bus_id=ADDRESS, driver="6.12.1")


def test_xe_counts_the_card(machine: Machine) -> None:
    """Of card and package the card counts, whatever their numbers, and its own limit."""
    labels = {"energy1_label": "pkg", "energy2_label": "card"}
    limits = {"power1_max": "7", "power2_max": str(120 * UJ)}
    heat = {"temp2_label": "pkg", "temp2_input": "52000", "temp3_label": "vram"}
    add_gpu(machine, "xe", energy1_input="40", energy2_input="60", **labels, **limits, **heat)
    report = machine.read()
    assert [(r.counter.key, r.value_uj) for r in report.readings] == [(f"xe:{ADDRESS}:2", 60)]
    assert list(report.limits_uw.values()) == [120 * UJ]
    assert [state.temperature_celsius for state in report.gpus.values()] == [52.0]


def test_xe_that_counts_the_package_only(machine: Machine) -> None:
    """Where nothing counts the card, its package is what is known of it."""
    add_gpu(machine, "xe", energy2_label="pkg", energy2_input="40")
    assert machine.energy() == {ADDRESS: 40}


def test_without_labels_the_first_counts(machine: Machine) -> None:
    """Old kernels show one counter without a label."""
    add_gpu(machine, "xe", energy1_input="40")
    assert machine.energy() == {ADDRESS: 40}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"power1_max": "0", "power1_crit": "9"}, [9]),
        ({"power1_crit": "9"}, [9]),
        ({"power1_max": "x"}, []),
        ({}, []),
    ],
)
def test_limits(machine: Machine, limits: dict[str, str], expected: list[int]) -> None:
    """A sustained limit of 0 is switched off; the critical one holds then."""
    add_gpu(machine, "i915", energy1_input="5", **limits)
    assert list(machine.read().limits_uw.values()) == expected


def test_without_a_counter_it_is_no_device(machine: Machine) -> None:
    """An integrated GPU has no chip, and some cards no counter."""
    machine.card(1, "0000:00:02.0", "i915")
    add_gpu(machine, "xe", power1_max="5")
    assert machine.meter.read() == ()


def test_a_sleeping_gpu_is_not_woken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it sleeps nothing is read; the counter then covers the whole time."""
    chip = add_gpu(machine, "i915", energy1_input="500", power1_max="5", temp1_input="30000")
    card = chip.parent.parent
    write(card, {"power/runtime_status": "suspended"})
    opened: list[str] = []
    really_open = os.open

    def noting(path: str | Path, flags: int) -> int:
        opened.append(Path(path).name)
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", noting)
    report = machine.read()
    assert (report.readings, report.faults) == ((), ())
    assert {"energy1_input", "power1_max", "temp1_input"}.isdisjoint(opened)
    write(card, {"power/runtime_status": "active"})
    assert machine.energy() == {ADDRESS: 500}


@pytest.mark.parametrize(("falls_asleep", "faults"), [(True, []), (False, [(ADDRESS, "failed")])])
def test_a_read_that_fails(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    falls_asleep: bool,
    faults: list[tuple[str, str]],
) -> None:
    """It is a fault, but not where the GPU has just gone to sleep."""
    chip = add_gpu(machine, "i915", energy1_input="500")
    really_open = os.open

    def failing(path: str | Path, flags: int) -> int:
        if str(path).endswith("energy1_input"):
            if falls_asleep:
                write(chip.parent.parent, {"power/runtime_status": "suspended"})
            raise OSError(5, "Input/output error")
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", failing)
    assert machine.faults() == faults
