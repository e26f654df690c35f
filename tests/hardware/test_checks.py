"""Each check holds on a run that is right, and alone finds the one thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest

from hardware.answers import Recorder
from hardware.checks import Findings, Judge
from hardware.curve import Curve
from hardware.measure import Busy, Observed
from hardware.page import UJ, Page, parse_page

A, B = 101, 102
IDLE, ALONE, TOGETHER = 70.0, 370.0, 470.0
PHASES = [
    ("nobody", 0.0, 15.0),
    ("one process", 15.0, 25.0),
    ("two processes", 25.0, 35.5),
    ("one again", 35.5, 45.0),
    ("none", 45.0, 50.0),
]
COUNTER_BEFORE = 1e6


def watts(at: float) -> float:
    if 25 <= at < 35.5:
        return TOGETHER
    return ALONE if 15 <= at < 45 else IDLE


def busy(at: float) -> dict[int, int]:
    """SM utilisation by pid."""
    if 25 <= at < 35.5:
        return {A: 60, B: 20}
    return {A: 90} if 15 <= at < 45 else {}


def energies(end: float) -> dict[str, float]:
    """Where energy went until then, in J, by hundredths of a second."""
    sums = {"energy": 0.0, "idle": 0.0, "A": 0.0, "B": 0.0}
    for step in range(round(end * 100)):
        at = (step + 0.5) / 100
        shares = busy(at)
        active = (watts(at) - IDLE) / 100
        sums["energy"] += watts(at) / 100
        sums["idle"] += IDLE / 100
        for name, pid in (("A", A), ("B", B)):
            if shares.get(pid):
                sums[name] += active * shares[pid] / sum(shares.values())
    return sums


def page_at(at: float) -> Page:
    spent = {name: round(joules * UJ) for name, joules in energies(at).items()}
    alone_end, together_end = energies(25)["A"], energies(35.5)
    together = together_end["A"] + together_end["B"] - alone_end
    by_samples = min(spent["A"] + spent["B"] - round(alone_end * UJ), round(together * UJ))
    return Page(
        sampled=at,
        energy_uj=spent["energy"],
        source="nvml_energy",
        parts={"idle": spent["idle"], "unattributed": 0, "other": 0, "retired": 0},
        processes={A: spent["A"], B: spent["B"]},
        methods={"exclusive": 1, "sm_utilization": max(0, by_samples)},
        idle=(IDLE, "observed") if at >= 12 else None,
        up={"nvml_energy": True},
    )


def right() -> Observed:
    """A run on which everything is as it should be: samples at full seconds, B dies at 35.5 s."""
    times = [step / 25 for step in range(50 * 25 + 1)]
    integral = Curve.integral([(at, watts(at)) for at in times])
    samples = [Busy(step / 5, pid, sm) for step in range(250) for pid, sm in busy(step / 5).items()]
    return Observed(
        phases=list(PHASES),
        power=[(at, watts(at)) for at in times],
        counter=[(at, COUNTER_BEFORE + integral.at(at)) for at in times],
        samples=samples,
        pages=[(float(at), page_at(at)) for at in range(1, 50)],
        workers={"A": (A, 15.0, 45.0), "B": (B, 25.0, 35.5)},
        shown={"A": True, "B": True},
    )


RIGHT = right()


def failed(found: Findings) -> list[str]:
    return [verdict.name for verdict in found.verdicts if verdict.holds is False]


def last_pages(seen: Observed, since: float) -> list[Page]:
    return [page for at, page in seen.pages if at >= since]


def slow_polling(seen: Observed) -> None:
    seen.power = seen.power[::3]


def hole_in_polling(seen: Observed) -> None:
    seen.power = [point for point in seen.power if not 5 < point[0] < 7]


def refused(seen: Observed) -> None:
    seen.refused["polling: GPU is lost"] = 3


def other_pids(seen: Observed) -> None:
    seen.shown["B"] = False


def fast_counter(seen: Observed) -> None:
    seen.power = [(at, power / 1.2) for at, power in seen.power]


def energy_not_counted(seen: Observed) -> None:
    for page in last_pages(seen, 30):
        assert page.energy_uj is not None
        page.energy_uj -= 900 * UJ
        page.parts["idle"] -= 900 * UJ


def open_sum(seen: Observed) -> None:
    seen.pages[20][1].open_sums["GPU-1"] = 1


def down(seen: Observed) -> None:
    seen.pages[20][1].up["nvml_energy"] = False


def errors(seen: Observed) -> None:
    seen.pages[-1][1].errors["nvml_energy: failed"] = 2


def false_idle(seen: Observed) -> None:
    for page in last_pages(seen, 12):
        page.idle = (60.0, "observed")


def no_idle(seen: Observed) -> None:
    for page in last_pages(seen, 12):
        page.idle = None


def nobody_pays(seen: Observed) -> None:
    for at in range(17, 26):
        page = seen.pages[at - 1][1]
        page.parts["unattributed"] += (at - 17) * 50 * UJ
        page.processes[A] -= (at - 17) * 50 * UJ


def false_shares(seen: Observed) -> None:
    for at, page in seen.pages:
        if 27 <= at < 36:
            moved = round((at - 27) * 40 * UJ)
            page.processes[A] += moved
            page.processes[B] -= moved


def by_memory(seen: Observed) -> None:
    for page in last_pages(seen, 30):
        page.methods["memory"] = 1 * UJ


def unpaid_death(seen: Observed) -> None:
    at_last_sample = seen.pages[34][1].processes[B]
    for page in last_pages(seen, 36):
        page.processes[A] += page.processes[B] - at_last_sample
        page.processes[B] = at_last_sample


def paid_after_death(seen: Observed) -> None:
    seen.pages[-1][1].processes[B] += 1


def test_a_right_run_holds() -> None:
    """With figures that can be worked out by hand."""
    found = Judge(RIGHT).judge()
    assert failed(found) == []
    assert len(found.verdicts) == 10
    figures = found.figures
    assert figures["phases"]["nobody"]["counter_joules"] == pytest.approx(1050, abs=7)
    assert figures["exporter"]["zero_joules"] == pytest.approx(COUNTER_BEFORE, abs=7)
    assert figures["shares"]["B"]["share"] == pytest.approx(0.25, abs=1e-6)
    assert figures["shares"]["A"]["mean_sm"] == pytest.approx(60)
    assert figures["death"]["expected_tail_joules"] == pytest.approx(0.5 * 400 * 0.25, abs=10)
    assert figures["death"]["tail_joules"] == pytest.approx(50, abs=0.1)


CASES: list[tuple[Callable[[Observed], None], str]] = [
    (slow_polling, "power was polled often enough"),
    (hole_in_polling, "power was polled often enough"),
    (refused, "power was polled often enough"),
    (other_pids, "the driver lists the processes by their pids"),
    (fast_counter, "the energy counter agrees with the integral of power"),
    (energy_not_counted, "the exporter's energy follows the counter"),
    (open_sum, "energy = processes + other + retired + idle + unattributed"),
    (down, "every reading succeeded"),
    (errors, "every reading succeeded"),
    (false_idle, "idle power is learned"),
    (no_idle, "idle power is learned"),
    (nobody_pays, "a process that is alone pays all"),
    (false_shares, "two processes share by their SM utilisation"),
    (by_memory, "two processes share by their SM utilisation"),
    (unpaid_death, "a process that died between two samples has paid"),
    (paid_after_death, "a process that died between two samples has paid"),
]


@pytest.mark.parametrize(("spoil", "name"), CASES)
def test_what_is_wrong_is_found(spoil: Callable[[Observed], None], name: str) -> None:
    """By the check that is for it."""
    seen = deepcopy(RIGHT)
    spoil(seen)
    assert name in failed(Judge(seen).judge())


def test_a_run_without_pages_holds_nothing() -> None:
    """What has not been seen is not taken for right."""
    seen = deepcopy(RIGHT)
    seen.pages = []
    found = Judge(seen).judge()
    assert not found.hold
    assert len(failed(found)) == 7


def test_a_gpu_without_counter_is_judged_by_power() -> None:
    """The one check that does not apply says so."""
    seen = deepcopy(RIGHT)
    seen.counter = []
    for _, page in seen.pages:
        page.source, page.up = "nvml_power", {"nvml_power": True}
    found = Judge(seen).judge()
    assert failed(found) == []
    assert [verdict.name for verdict in found.verdicts if verdict.holds is None] == [
        "the energy counter agrees with the integral of power"
    ]


def test_a_curve_is_straight_between_points() -> None:
    """And can be read both ways."""
    curve = Curve([(0.0, 0.0), (1.0, 10.0), (2.0, 10.0), (4.0, 50.0)])
    assert (curve.at(0.5), curve.at(1.5), curve.at(3.0), curve.at(9.0)) == (5.0, 10.0, 30.0, 50.0)
    assert (curve.when(5.0), curve.when(10.0), curve.when(30.0)) == (0.5, 1.0, 3.0)
    assert curve.over(1.0, 4.0) == 40.0
    assert (curve.falls, Curve([(0.0, 2.0), (1.0, 1.0)]).falls) == (0, 1)
    assert Curve.integral([(0.0, 100.0), (2.0, 200.0)]).values == [0.0, 300.0]


PAGE = """\
jobwatt_device_energy_joules_total{component="gpu",device="GPU-1",source="nvml_energy"} 10.5
jobwatt_device_energy_joules_total{component="cpu",device="package-0",source="rapl"} 3.0
jobwatt_device_idle_energy_joules_total{component="gpu",device="GPU-1"} 4.0
jobwatt_device_idle_energy_joules_total{component="cpu",device="package-0"} 2.999999
jobwatt_device_unattributed_energy_joules_total{component="gpu",device="GPU-1"} 0.5
jobwatt_device_idle_power_watts{component="gpu",device="GPU-1",method="observed"} 70.25
jobwatt_process_energy_joules_total{pid="7",device="GPU-1",source="nvml_energy"} 5.0
jobwatt_process_other_energy_joules_total{device="GPU-1",source="nvml_energy"} 0.75
jobwatt_retired_energy_joules_total{device="GPU-1",level="process",source="nvml_energy"} 0.25
jobwatt_retired_energy_joules_total{device="GPU-1",level="job",source="nvml_energy"} 9.0
jobwatt_gpu_attributed_energy_joules_total{device="GPU-1",method="exclusive"} 6.0
jobwatt_source_up{source="nvml_energy"} 1.0
jobwatt_source_errors_total{reason="denied",source="rapl"} 4.0
jobwatt_last_sample_timestamp_seconds 1.8e+09
"""


def test_a_page_is_read_to_the_microjoule() -> None:
    """All devices must close; of the GPU everything is kept."""
    page = parse_page(PAGE, "GPU-1")
    assert page == Page(
        sampled=1.8e9,
        energy_uj=10_500_000,
        source="nvml_energy",
        parts={
            "idle": 4_000_000,
            "unattributed": 500_000,
            "processes": 5_000_000,
            "other": 750_000,
            "retired": 250_000,
        },
        processes={7: 5_000_000},
        methods={"exclusive": 6_000_000},
        idle=(70.25, "observed"),
        up={"nvml_energy": True},
        errors={"rapl: denied": 4},
        open_sums={"package-0": 1},
    )


def test_a_recorder_makes_up_uuids() -> None:
    """The same for the same GPU, in questions and answers."""
    recorder = Recorder("libno-such-driver.so.1")
    gpu, instance = (f"{kind}-0a1b2c3d-1111-2222-3333-444455556666" for kind in ("GPU", "MIG"))
    recorder._keep("nvmlDeviceGetUUID", (), 0, gpu)
    recorder._keep("nvmlDeviceGetHandleByUUID", (gpu,), 6, None)
    recorder._keep("nvmlSystemGetDriverVersion", (), 0, [instance, 1])
    assert recorder.answers()["start"] == {
        "nvmlDeviceGetUUID()": {
            "code": 0,
            "value": "GPU-00000000-0000-0000-0000-000000000001",
        },
        "nvmlDeviceGetHandleByUUID(GPU-00000000-0000-0000-0000-000000000001)": {"code": 6},
        "nvmlSystemGetDriverVersion()": {
            "code": 0,
            "value": ["MIG-00000000-0000-0000-0000-000000000002", 1],
        },
    }
