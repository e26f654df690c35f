from __future__ import annotations

import pytest

from jobwatt.meters.tdp import CpuPower, power_of_model


@pytest.mark.parametrize(
    ("model", "threads", "full", "basis"),
    [
        ("AMD EPYC 7763 64-Core Processor", 128, 280.0, "TDP 280 W, 128 of 128 threads"),
        ("AMD EPYC 7763 64-Core Processor", 8, 17.5, "TDP 280 W, 8 of 128 threads"),
        ("AMD EPYC 7763 64-Core Processor", 256, 280.0, "TDP 280 W, 256 of 128 threads"),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 40, 150.0, "TDP 150 W, 40 of 40 threads"),
        ("Intel(R) Xeon(R) Platinum 8480+", 112, 350.0, "TDP 350 W, 112 of 112 threads"),
        ("AMD EPYC 77631", 2, 7.0, "unknown model, 3.5 W × 2 threads"),
        ("AMD EPYC", 2, 7.0, "unknown model, 3.5 W × 2 threads"),
        ("", 4, 14.0, "unknown model, 3.5 W × 4 threads"),
    ],
)
def test_power_of_a_model(model: str, threads: int, full: float, basis: str) -> None:
    """A known model has the part of its TDP that is visible here, others a mean per thread."""
    power = power_of_model(model, threads)
    assert (power.full_watts, power.basis) == (full, basis)


def test_idle_is_a_fixed_part_of_full() -> None:
    """Idle power is 0.74 W of every 3.5 W."""
    assert power_of_model("AMD EPYC 7763 64-Core Processor", 8).idle_watts == pytest.approx(3.7)


def test_a_configured_power_overrides_the_table() -> None:
    """What the operator says holds, also 0."""
    power = power_of_model("AMD EPYC 7763", 8, 35.0)
    assert (power.full_watts, power.basis) == (35.0, "configured TDP 35 W")
    assert power_of_model("AMD EPYC 7763", 8, 0.0) == CpuPower(0.0, 0.0, "configured TDP 0 W")
