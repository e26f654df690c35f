from __future__ import annotations

import pytest

from jobwatt.attribution.gpu_claims import claimed_gpus, named_gpus
from jobwatt.gpus import GpuInfo

A = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
B = "GPU-8932ffff-1111-2222-3333-444444444444"
C = "GPU-0badcafe-0000-0000-0000-000000000000"
AMD = "0000:c3:00.0"
GPUS = {
    A: GpuInfo(A, index=0, minor=2),
    B: GpuInfo(B, index=1, minor=0),
    C: GpuInfo(C, index=2, minor=1),
    AMD: GpuInfo(pci_bus_id=AMD),
}


def claimed(**environment: str) -> set[str]:
    return set(claimed_gpus(environment, GPUS))


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_a_uuid_names_its_gpu(name: str) -> None:
    """One or several, with blanks around."""
    assert claimed(**{name: A}) == {A}
    assert claimed(**{name: f" {A}, {C} "}) == {A, C}


def test_the_beginning_of_a_uuid_is_enough() -> None:
    """CUDA takes it where only one GPU begins so."""
    assert claimed(CUDA_VISIBLE_DEVICES="GPU-0bad") == {C}
    assert claimed(CUDA_VISIBLE_DEVICES="GPU-8932f9") == {A}


def test_an_ambiguous_beginning_names_none() -> None:
    """Nor does one that is too short to be meant, or the uuid of another node."""
    assert claimed(CUDA_VISIBLE_DEVICES="GPU-8932f") == set()
    assert claimed(CUDA_VISIBLE_DEVICES="GPU-0") == set()
    assert claimed(CUDA_VISIBLE_DEVICES="GPU-deadbeef-0000") == set()


@pytest.mark.parametrize("value", ["0", "0,1,2", "-1", "", "all", "none", "void", "NoDevFiles"])
def test_a_bare_index_names_none(value: str) -> None:
    """What it counts depends on container, cgroup and order."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        assert claimed(**{name: value}) == set()


def test_a_mig_instance_names_no_gpu() -> None:
    """It is known by its residents; neither form of its name."""
    mig = "MIG-0e3b5ba5-5a8e-5b6e-9d5c-6f3a0e0b7d5c"
    assert claimed(CUDA_VISIBLE_DEVICES=mig) == set()
    assert claimed(CUDA_VISIBLE_DEVICES=f"MIG-{A}/1/0") == set()


@pytest.mark.parametrize("name", ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"])
def test_slurm_numbers_device_files(name: str) -> None:
    """Not NVML's indices: `/dev/nvidia2` is the first GPU here."""
    assert claimed(**{name: "2"}) == {A}
    assert claimed(**{name: "0, 1"}) == {B, C}
    assert claimed(**{name: "7"}) == set()


def test_the_narrowest_claim_counts() -> None:
    """CUDA's before the container's, the step's before the job's."""
    assert claimed(CUDA_VISIBLE_DEVICES=A, NVIDIA_VISIBLE_DEVICES=f"{A},{B}") == {A}
    assert claimed(SLURM_STEP_GPUS="2", SLURM_JOB_GPUS="0,1,2") == {A}
    assert claimed(CUDA_VISIBLE_DEVICES=C, SLURM_JOB_GPUS="0,1,2") == {C}


def test_a_claim_that_names_none_leaves_it_to_the_next() -> None:
    """Slurm sets CUDA's variable to indices, beside its own."""
    assert claimed(CUDA_VISIBLE_DEVICES="0,1", SLURM_STEP_GPUS="0,1") == {B, C}
    assert claimed(CUDA_VISIBLE_DEVICES="0", NVIDIA_VISIBLE_DEVICES=B) == {B}


def test_an_empty_environment_claims_nothing() -> None:
    """Nor one on a machine without GPUs."""
    assert claimed() == set()
    assert claimed_gpus({"CUDA_VISIBLE_DEVICES": A, "SLURM_JOB_GPUS": "0"}, {}) == frozenset()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((A,), {A}),
        ((A, C, A), {A, C}),
        ((f"{B}::0", f"{B}::7"), {B}),
        (("MIG-1",), {C}),
        (("MIG-1::3",), {C}),
        ((f"MIG-{A}/1/0",), {A}),
        ((AMD,), {AMD}),
        (("GPU-deadbeef", "eth0", "", "0", "MIG-2"), set()),
        ((A[:12],), set()),
    ],
)
def test_a_device_plugin_names_gpus(ids: tuple[str, ...], expected: set[str]) -> None:
    """By UUID, by instance, by a copy of either, by PCI address; never by a part of a name."""
    assert named_gpus(ids, GPUS, {"MIG-1": C}) == expected
