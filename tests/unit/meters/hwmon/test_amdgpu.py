from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.devices import write
from fakes.monitored import Machine
from jobwatt.gpus import GpuInfo
from jobwatt.model import Component, Device, Source
from jobwatt.units import UJ

FIRST, SECOND = "0000:03:00.0", "0000:83:00.0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without any device."""
    return Machine(tmp_path)


def add_gpu(machine: Machine, number: int, address: str, watts: int, **attributes: str) -> Path:
    values = {"vendor": "0x1002", "device": "0x74a1", **attributes}
    card = machine.card(number, address, "amdgpu", **values)
    return machine.chip(number + 3, "amdgpu", card, power1_average=str(watts * UJ))


def test_power_is_integrated(machine: Machine) -> None:
    """The energy between two readings is their mean power times the time."""
    chip = add_gpu(machine, 0, FIRST, 100)
    assert machine.energy() == {FIRST: 0}
    write(chip, {"power1_average": str(200 * UJ)})
    assert machine.energy(2) == {FIRST: 300 * UJ}


def test_a_gpu_says_what_it_is(machine: Machine) -> None:
    """Its UUID as ROCm writes it, its model and its driver; what it shows beside its power."""
    write(machine.sysfs / "module/amdgpu", {"version": "6.10.5"})
    values = {"unique_id": "8b1d9c3e5f7a2046", "product_name": "AMD Instinct MI300X"}
    values |= {"mem_info_vram_used": "64000000000", "mem_info_vram_total": "205822885888"}
    chip = add_gpu(machine, 1, FIRST, 100, gpu_busy_percent="93", **values)
    write(chip, {"power1_cap": str(750 * UJ), "temp1_input": "41000", "temp1_label": "junction"})
    report = machine.read()
    device = Device(
        Component.GPU, "GPU-8b1d9c3e5f7a2046", Source.HWMON, model="AMD Instinct MI300X"
    )
    assert (report.limits_uw, list(report.gpus)) == ({device: 750 * UJ}, [device])
    assert [reading.at_ns for reading in report.readings] == [machine.now_ns]
    state = report.gpus[device]
    assert state.info == GpuInfo(uuid=device.name, pci_bus_id=FIRST, driver="6.10.5")
    assert (state.utilization_ratio, state.temperature_celsius) == (0.93, 41.0)
    assert (state.memory_used_bytes, state.memory_total_bytes) == (64000000000, 205822885888)
    assert (state.span_ns, state.use) == (0, None)


def test_what_it_does_not_tell_is_absent(machine: Machine) -> None:
    """Without a name it is what the PCI bus says; without numbers there are none."""
    add_gpu(machine, 0, FIRST, 100)
    ((device, state),) = machine.read().gpus.items()
    assert (device.name, device.model, state.info.uuid) == (FIRST, "1002:74a1", "")
    assert (state.utilization_ratio, state.temperature_celsius) == (None, None)
    assert (state.memory_used_bytes, state.memory_total_bytes) == (None, None)


def test_a_unique_id_that_is_not_unique_names_one(machine: Machine) -> None:
    """Two cards with one id do not become one device; an id of zeros is none."""
    add_gpu(machine, 0, FIRST, 100, unique_id="00000000000000ab")
    add_gpu(machine, 1, SECOND, 100, unique_id="00000000000000ab")
    add_gpu(machine, 2, "0000:c3:00.0", 100, unique_id="0000000000000000")
    assert list(machine.energy()) == ["GPU-00000000000000ab", SECOND, "0000:c3:00.0"]


def test_instant_power_where_there_is_no_average(machine: Machine) -> None:
    """Newer cards show power1_input only; a chip without power is no device."""
    chip = add_gpu(machine, 0, FIRST, 100)
    (chip / "power1_average").rename(chip / "power1_input")
    other = add_gpu(machine, 1, SECOND, 100)
    (other / "power1_average").unlink()
    machine.energy()
    assert machine.energy() == {FIRST: 100 * UJ}


@pytest.mark.parametrize("attribute", ["in1_input", "in1_label"])
def test_an_apu_is_no_device(machine: Machine, attribute: str) -> None:
    """An APU's power is its socket's, which RAPL measures: no report, and no error."""
    write(add_gpu(machine, 0, "0000:c1:00.0", 15), {attribute: "vddnb"})
    zone = machine.sysfs / "class/powercap/intel-rapl:0"
    write(zone, {"name": "package-0", "energy_uj": "5"})
    assert machine.meter.read() == ()


def test_an_mi300a_is_an_apu(machine: Machine) -> None:
    """It shows no in1 and is known by its PCI device."""
    add_gpu(machine, 0, FIRST, 300, device="0x74a0")
    assert machine.meter.read() == ()


def test_an_apu_beside_a_card(machine: Machine) -> None:
    """The card counts, the APU does not."""
    write(add_gpu(machine, 0, "0000:c1:00.0", 15), {"in1_input": "800"})
    add_gpu(machine, 1, FIRST, 100)
    assert list(machine.energy()) == [FIRST]


def test_a_card_of_another_driver_or_without_a_chip(machine: Machine) -> None:
    """What amdgpu does not drive, or does not monitor, is no device."""
    machine.card(0, FIRST, "amdgpu")
    card = machine.card(1, SECOND, "radeon")
    machine.chip(5, "radeon", card, power1_average="5")
    machine.chip(6, "amdgpu", power1_average="5")
    assert machine.meter.read() == ()


def test_one_that_refuses_stops_no_other(machine: Machine) -> None:
    """What cannot be read is a fault of its device; the other's energy goes on."""
    add_gpu(machine, 0, FIRST, 100)
    chip = add_gpu(machine, 1, SECOND, 50)
    write(chip, {"power1_average": ""})
    report = machine.read()
    assert [reading.counter.key for reading in report.readings] == [f"amdgpu:{FIRST}"]
    assert [(fault.what, fault.reason) for fault in report.faults] == [(SECOND, "failed")]
    assert len(report.gpus) == 2
    write(chip, {"power1_average": str(50 * UJ)})
    assert (machine.energy(), machine.faults()) == ({FIRST: 100 * UJ, SECOND: 0}, [])


def test_a_reset_is_no_lack_of_permission(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver says EPERM while it resets a GPU: a failure that passes."""
    add_gpu(machine, 0, FIRST, 100)
    machine.read()
    really_open = os.open

    def guarded(path: str | Path, flags: int) -> int:
        if str(path).endswith("power1_average"):
            raise PermissionError(1, "Operation not permitted")
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", guarded)
    assert machine.faults() == [(FIRST, "failed")]
    monkeypatch.undo()
    assert machine.energy() == {FIRST: 200 * UJ}


@pytest.mark.parametrize("error", [PermissionError(1, "no"), OSError(22, "no")])
def test_one_that_falls_asleep_meanwhile_is_no_fault(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A read that fails because the GPU has just gone to sleep is none."""
    chip = add_gpu(machine, 0, FIRST, 100)
    really_open = os.open

    def sleeping(path: str | Path, flags: int) -> int:
        if str(path).endswith("power1_average"):
            write(chip.parent.parent, {"power/runtime_status": "suspended"})
            raise error
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", sleeping)
    report = machine.read()
    assert (report.readings, report.faults) == ((), ())


def test_a_sleeping_gpu_is_not_woken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it sleeps no attribute is read that would wake it; that time is lost, not 0 W."""
    chip = add_gpu(machine, 0, FIRST, 100, gpu_busy_percent="5")
    card = chip.parent.parent
    write(chip, {"power1_cap": "5"})
    machine.read()
    write(card, {"power/runtime_status": "suspended"})
    opened: list[str] = []
    really_open = os.open

    def noting(path: str | Path, flags: int) -> int:
        opened.append(Path(path).name)
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", noting)
    for _ in range(100):
        report = machine.read()
    assert (report.readings, report.faults) == ((), ())
    assert {"power1_average", "power1_cap", "gpu_busy_percent"}.isdisjoint(opened)
    (state,) = report.gpus.values()
    assert (state.utilization_ratio, state.use is not None) == (None, True)
    write(card, {"power/runtime_status": "active"})
    (reading,) = machine.read().readings
    assert (reading.value_uj, reading.lost_ns) == (0, 101 * 10**9)


def test_the_second_die_of_a_pair_has_no_reading(machine: Machine) -> None:
    """Of an MI250 the first die tells the power of both; 0 W is no measurement."""
    add_gpu(machine, 0, FIRST, 400)
    add_gpu(machine, 1, SECOND, 0)
    assert (list(machine.energy()), machine.faults()) == ([FIRST], [])
