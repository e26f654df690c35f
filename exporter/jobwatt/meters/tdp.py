"""Thermal design power of common CPUs.

Sources: Intel ARK (ark.intel.com), AMD product specifications (amd.com), Ampere product briefs.
Each entry: a regular expression on the kernel's model name, TDP in watts, hardware threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CpuPower", "power_of_model"]

WATTS_PER_THREAD = 3.5
"""Mean power at full load of one hardware thread of a server whose model is not known.

Cloud Carbon Footprint, methodology: average maximum watts of AWS instances, from SPECpower.
"""

IDLE_RATIO = 0.74 / 3.5
"""Idle power over full power, the same source (min watts over max watts)."""

_MODELS: tuple[tuple[str, float, int], ...] = (
    (r"EPYC 9965\b", 500, 384),
    (r"EPYC 9755\b", 500, 256),
    (r"EPYC 9754\b", 360, 256),
    (r"EPYC 9654\b", 360, 192),
    (r"EPYC 9554\b", 360, 128),
    (r"EPYC 7H12\b", 280, 128),
    (r"EPYC 7763\b", 280, 128),
    (r"EPYC 7742\b", 225, 128),
    (r"EPYC 7713\b", 225, 128),
    (r"EPYC 7702\b", 200, 128),
    (r"EPYC 7543\b", 225, 64),
    (r"EPYC 7452\b", 155, 64),
    (r"EPYC 7551\b", 180, 64),
    (r"EPYC 7302\b", 155, 32),
    (r"Threadripper 3990X\b", 280, 128),
    (r"Ryzen 9 7950X\b", 170, 32),
    (r"Ryzen 9 5950X\b", 105, 32),
    (r"Ryzen 7 5800X\b", 105, 16),
    (r"Platinum 8480\+", 350, 112),
    (r"Platinum 8380\b", 270, 80),
    (r"Platinum 8280\b", 205, 56),
    (r"Platinum 8260\b", 165, 48),
    (r"Platinum 8180\b", 205, 56),
    (r"Platinum 8168\b", 205, 48),
    (r"Gold 6338\b", 205, 64),
    (r"Gold 6248\b", 150, 40),
    (r"Gold 6230\b", 125, 40),
    (r"Gold 6148\b", 150, 40),
    (r"Gold 6130\b", 125, 32),
    (r"E5-2698 v4\b", 135, 40),
    (r"E5-2690 v4\b", 135, 28),
    (r"E5-2680 v4\b", 120, 28),
    (r"E5-2650 v4\b", 105, 24),
    (r"E5-2630 v4\b", 85, 20),
    (r"i9-13900K\b", 125, 32),
    (r"i7-12700K\b", 125, 20),
    (r"i7-1165G7\b", 28, 8),
    (r"i7-8650U\b", 15, 8),
    (r"Altra.*Q80-30\b", 210, 80),
)


@dataclass(frozen=True, slots=True)
class CpuPower:
    """Power of one package: idle and at full load, in watts, and where the figure comes from."""

    idle_watts: float
    full_watts: float
    basis: str


def power_of_model(model: str, threads: int, tdp_watts: float | None = None) -> CpuPower:
    """Return the power of a package of this model of which `threads` are visible here.

    A virtual machine sees some threads of a larger processor and is charged their part.
    `tdp_watts` overrides the table: full power of the package as it is visible here.
    """
    if tdp_watts is not None:
        return CpuPower(tdp_watts * IDLE_RATIO, tdp_watts, f"configured TDP {tdp_watts:g} W")
    for pattern, tdp, whole in _MODELS:
        if re.search(pattern, model):
            full = tdp * min(1.0, threads / whole)
            return CpuPower(full * IDLE_RATIO, full, f"TDP {tdp:g} W, {threads} of {whole} threads")
    full = WATTS_PER_THREAD * threads
    return CpuPower(
        full * IDLE_RATIO, full, f"unknown model, {WATTS_PER_THREAD:g} W × {threads} threads"
    )
