"""Real GPUs, idle and under load, as nvidia-smi showed them.

The values are from pages captured on real machines in nvidia_gpu_exporter's test data
(https://github.com/utkuozdemir/nvidia_gpu_exporter, MIT licence, Copyright (c) 2023 Utku Özdemir).
What a page leaves out, nvidia-smi had reported as not available. Power is the average where the
page has one, else the instant reading. Three things are not in the pages: the UUIDs, which were
blanked; whether GPM is there, which follows from the architecture; and, for MIG, the layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fakes.nvml.model import (
    UNAVERAGED,
    Architecture,
    Gpu,
    GpuProcess,
    Instance,
)

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Profile:
    """One captured machine.

    Attributes:
        driver, cuda: versions, for `FakeNvml`.
    """

    driver: str
    cuda: int
    idle: Gpu
    load: Gpu


_RTX_2080_SUPER = Gpu(
    uuid="GPU-00000000-0000-0000-0000-000000002080",
    name="NVIDIA GeForce RTX 2080 SUPER",
    architecture=Architecture.TURING,
    compute_capability=(7, 5),
    bus_id="00000000:0C:00.0",
    pci_id=0x1E8110DE,
    pci_subsystem=0x40051458,
    power_mw=39_320,
    averaging_ms=0,
    limit_mw=250_000,
    min_limit_mw=105_000,
    max_limit_mw=350_000,
    memory_bytes=8_589_934_592,
    reserved_bytes=427_819_008,
    used_bytes=224_395_264,
    temperature=40,
    event_reasons=4,
    persistence=False,
    pstate=8,
    clocks_mhz=(765, 765, 810, 705),
    max_clocks_mhz=(2145, 2145, 7751, 0),
    utilization=(0, 9),
    mig_capable=False,
    gpm=False,
    fields=(UNAVERAGED,),
)

RTX_2080_SUPER = Profile(
    driver="595.71.05",
    cuda=13020,
    idle=_RTX_2080_SUPER,
    load=replace(
        _RTX_2080_SUPER,
        power_mw=111_500,
        used_bytes=858_783_744 - 241_172_480 - 387_973_120,
        temperature=45,
        event_reasons=0,
        pstate=2,
        clocks_mhz=(2055, 2055, 7500, 1905),
        utilization=(8, 3),
        processes=(
            GpuProcess(5267, memory_bytes=241_172_480),
            GpuProcess(5268, memory_bytes=387_973_120),
        ),
    ),
)
"""A desktop card: no average power, no MIG. Under load, two ffmpeg encode on it."""

_H100 = Gpu(
    uuid="GPU-00000000-0000-0000-0000-000000000100",
    name="NVIDIA H100 80GB HBM3",
    architecture=Architecture.HOPPER,
    compute_capability=(9, 0),
    bus_id="00000000:00:09.0",
    pci_id=0x233010DE,
    pci_subsystem=0x16C110DE,
    power_mw=69_850,
    limit_mw=700_000,
    min_limit_mw=200_000,
    max_limit_mw=700_000,
    memory_bytes=85_520_809_984,
    reserved_bytes=502_267_904,
    temperature=41,
    memory_temperature=48,
    event_reasons=1,
    persistence=True,
    clocks_mhz=(345, 345, 2619, 765),
    max_clocks_mhz=(1980, 1980, 2619, 0),
    utilization=(0, 0),
)

H100 = Profile(
    driver="590.48.01",
    cuda=13010,
    idle=_H100,
    load=replace(
        _H100,
        power_mw=631_950,
        used_bytes=20_780_679_168 - 2_690_646_016 - 1_616_904_192 - 16_452_157_440,
        temperature=59,
        memory_temperature=54,
        event_reasons=0,
        clocks_mhz=(1980, 1980, 2619, 1545),
        utilization=(100, 11),
        processes=(
            GpuProcess(11327, memory_bytes=2_690_646_016),
            GpuProcess(11328, memory_bytes=1_616_904_192),
            GpuProcess(11345, memory_bytes=16_452_157_440),
        ),
    ),
)
"""Under load, two processes hold memory and a gpu_burn burns."""

_SMALL = Instance(
    "MIG-00000000-0000-0000-0000-000000000001",
    gpu_instance=9,
    profile="1g.10gb",
    multiprocessors=16,
    memory_bytes=10 * GIB,
)
_LARGE = Instance(
    "MIG-00000000-0000-0000-0000-000000000003",
    gpu_instance=2,
    profile="3g.40gb",
    slices=3,
    compute_slices=3,
    multiprocessors=60,
    memory_bytes=40 * GIB,
)
_H100_MIG = replace(
    _H100,
    power_mw=71_150,
    used_bytes=61_865_984,
    temperature=42,
    utilization=None,
    instances=(_LARGE, None, _SMALL),
)

H100_MIG = Profile(
    driver="590.48.01",
    cuda=13010,
    idle=_H100_MIG,
    load=replace(
        _H100_MIG,
        power_mw=433_780,
        used_bytes=11_665_408_000 - 2_407_530_496 - 1_333_788_672 - 7_847_542_784,
        temperature=53,
        memory_temperature=59,
        event_reasons=0,
        clocks_mhz=(1980, 1980, 2619, 1545),
        processes=(
            GpuProcess(21180, memory_bytes=2_407_530_496, instance=_SMALL.uuid),
            GpuProcess(21181, memory_bytes=1_333_788_672, instance=_SMALL.uuid),
            GpuProcess(21198, memory_bytes=7_847_542_784, instance=_LARGE.uuid),
        ),
    ),
)
"""MIG is on, so the GPU itself has no utilisation. Layout and who is where are made up."""

_L40S = Gpu(
    uuid="GPU-00000000-0000-0000-0000-000000000040",
    name="NVIDIA L40S",
    architecture=Architecture.ADA,
    compute_capability=(8, 9),
    bus_id="00000000:01:00.0",
    pci_id=0x26B910DE,
    pci_subsystem=0x185110DE,
    power_mw=144_970,
    limit_mw=350_000,
    min_limit_mw=100_000,
    max_limit_mw=350_000,
    memory_bytes=48_305_799_168,
    reserved_bytes=638_582_784,
    temperature=63,
    persistence=False,
    clocks_mhz=(2520, 2520, 9001, 1965),
    max_clocks_mhz=(2520, 2520, 9001, 0),
    utilization=(100, 9),
    mig_capable=False,
    gpm=False,
)

L40S = Profile(
    driver="595.80",
    cuda=13020,
    idle=_L40S,
    load=replace(
        _L40S,
        power_mw=110_230,
        used_bytes=1_294_991_360 - 564_133_888 - 714_080_256,
        temperature=54,
        utilization=(9, 2),
        processes=(
            GpuProcess(20037, memory_bytes=564_133_888),
            GpuProcess(20038, memory_bytes=714_080_256),
        ),
    ),
)
"""Its idle page shows a GPU that is warm and busy, without a process to blame: so it was captured.
Under load, two ffmpeg encode on it, at less power."""

PROFILES = {
    "rtx-2080-super": RTX_2080_SUPER,
    "h100": H100,
    "h100-mig": H100_MIG,
    "l40s": L40S,
}
