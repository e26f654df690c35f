"""How many CPUs a cgroup may use."""

from pathlib import Path

import pytest

from jobwatt.host.cpu_limits import CpuLimit, parse_cpu_max, read_cpu_limit


@pytest.mark.parametrize(
    ("data", "cpus"),
    [
        (b"max 100000\n", None),
        (b"150000 100000\n", 1.5),
        (b"", None),
        (b"150000\n", None),
        (b"0 100000\n", None),
        (b"150000 0\n", None),
        (b"-1 100000\n", None),
        (b"x y\n", None),
    ],
)
def test_a_quota_of_version_2(data: bytes, cpus: float | None) -> None:
    """`max` is none."""
    assert parse_cpu_max(data) == cpus


def test_a_group_of_version_2(tmp_path: Path) -> None:
    """Both in one folder; without their controllers there are no such files."""
    assert read_cpu_limit("", str(tmp_path)) == CpuLimit()
    (tmp_path / "cpuset.cpus.effective").write_text("0-3,8\n")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert read_cpu_limit("", str(tmp_path)) == CpuLimit(frozenset({0, 1, 2, 3, 8}), 2.5)


def test_groups_of_version_1(tmp_path: Path) -> None:
    """Each controller in its tree; old kernels tell the configured set only."""
    (tmp_path / "cpuset.cpus").write_text("0-7\n")
    assert read_cpu_limit("cpuset", str(tmp_path)) == CpuLimit(frozenset(range(8)))
    (tmp_path / "cpuset.effective_cpus").write_text("0-1\n")
    assert read_cpu_limit("cpuset", str(tmp_path)) == CpuLimit(frozenset({0, 1}))
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    assert read_cpu_limit("cpu", str(tmp_path)) == CpuLimit()
    (tmp_path / "cpu.cfs_quota_us").write_text("400000\n")
    assert read_cpu_limit("cpu", str(tmp_path)) == CpuLimit(quota=4.0)
