from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.devices import Devices, client
from jobwatt.errors import Absent, Denied, Failed, ReadError
from jobwatt.host.fdinfo import DrmClient, list_drm_files, parse_fdinfo, read_fdinfo
from jobwatt.host.procfs import Procfs

# After the examples in Documentation/gpu/{amdgpu,i915}.rst and drivers/gpu/drm/xe/xe_drm_client.c.
AMDGPU = b"""pos:\t0
flags:\t02100002
mnt_id:\t26
ino:\t1031
drm-driver:\tamdgpu
drm-client-id:\t27
drm-pdev:\t0000:03:00.0
pasid:\t32771
drm-total-vram:\t48600 KiB
drm-shared-vram:\t0
drm-resident-cpu:\t0
drm-resident-gtt:\t100 KiB
drm-resident-vram:\t48596 KiB
drm-memory-vram:\t48596 KiB
amd-evicted-vram:\t0 KiB
drm-engine-gfx:\t56369242 ns
drm-engine-compute:\t3434919 ns
"""
I915 = b"""drm-driver:\ti915
drm-client-id:\t11
drm-pdev:\t0000:4d:00.0
drm-total-system0:\t8 MiB
drm-resident-system0:\t2048 KiB
drm-total-local0:\t640 MiB
drm-resident-local0:\t512 MiB
drm-resident-stolen-local0:\t8 MiB
drm-engine-render:\t500 ns
drm-engine-video:\t700 ns
drm-engine-capacity-video:\t2
"""
XE = b"""drm-driver:\txe
drm-client-id:\t3
drm-pdev:\t0000:03:00.0
drm-total-vram0:\t23992 KiB
drm-resident-gtt:\t192 KiB
drm-resident-vram0:\t23990 KiB
drm-cycles-rcs:\t28257900
drm-total-cycles-rcs:\t7655183225
drm-cycles-vcs:\t5
drm-total-cycles-vcs:\t7655183225
drm-engine-capacity-vcs:\t2
drm-cycles-odd:\t5
"""


def test_amdgpu() -> None:
    """Engines in nanoseconds, and the memory on the card."""
    engines = {"gfx": 56369242, "compute": 3434919}
    expected = DrmClient("0000:03:00.0", 27, "amdgpu", engines, memory_bytes=48596 * 1024)
    assert parse_fdinfo(AMDGPU) == expected


def test_i915() -> None:
    """The capacity of a class is no engine; memory on the card is called local."""
    engines = {"render": 500, "video": 700}
    expected = DrmClient(
        "0000:4d:00.0", 11, "i915", engines, capacity={"video": 2}, memory_bytes=512 * 1024**2
    )
    assert parse_fdinfo(I915) == expected


def test_xe() -> None:
    """Busy cycles stand beside those of the clock; without a clock they mean nothing."""
    cycles = {"rcs": (28257900, 7655183225), "vcs": (5, 7655183225)}
    expected = DrmClient("0000:03:00.0", 3, "xe", {}, cycles, {"vcs": 2}, memory_bytes=23990 * 1024)
    assert parse_fdinfo(XE) == expected


def test_a_card_without_memory_of_its_own() -> None:
    """Then all that is held counts; what is asked for where nothing else is told."""
    text = client("0000:00:02.0", 1, "i915", total_system="3 MiB", total_stolen="7")
    found = parse_fdinfo(text.encode())
    assert found is not None
    assert found.memory_bytes == 3 * 1024**2 + 7


def test_a_client_that_tells_no_more() -> None:
    """Only driver and client are needed."""
    data = b"drm-driver: nouveau\ndrm-client-id: 4\n"
    assert parse_fdinfo(data) == DrmClient("", 4, "nouveau")


@pytest.mark.parametrize(
    "data",
    [b"", b"pos:\t0\n", b"eventfd-count: 1", b"drm-driver:\tx", b"drm-client-id:\t1", b"\xff:\0"],
)
def test_other_files_are_no_clients(data: bytes) -> None:
    """Most files are no graphics card's."""
    assert parse_fdinfo(data) is None


@pytest.mark.parametrize(
    "line",
    [
        b"drm-client-id:\tx",
        b"drm-client-id:\t-1",
        b"drm-engine-gfx:\tmuch ns",
        b"drm-engine-gfx:",
        b"drm-cycles-rcs:\t1e5",
        b"drm-resident-vram:\t5 furlongs",
        b"drm-memory-vram:\t" + b"9" * 5000,
    ],
)
def test_numbers_that_are_none_fail(line: bytes) -> None:
    """A client whose numbers cannot be read is a failure, never 0."""
    with pytest.raises(Failed):
        parse_fdinfo(b"drm-driver:\tx\ndrm-client-id:\t1\n" + line)


def test_files_below_dri_are_found(tmp_path: Path) -> None:
    """Of all open files those of graphics cards are found, the known ones left out."""
    devices = Devices(tmp_path)
    files = ["/dev/null", "/dev/dri/renderD128", "/dev/dri/card0", "socket:[4]", "/x/dri/card0.txt"]
    devices.process(7, {fd: (target, "") for fd, target in enumerate(files)})
    procfs = Procfs(devices.procfs)
    fds, found = list_drm_files(procfs, 7)
    assert sorted(fds) == ["0", "1", "2", "3", "4"]
    assert found == {"1": "renderD128", "2": "card0"}
    assert list_drm_files(procfs, 7, {"1"})[1] == {"2": "card0"}
    with pytest.raises(Absent):
        list_drm_files(procfs, 8)


def test_a_file_that_is_closed_meanwhile_is_left_out(tmp_path: Path) -> None:
    """What cannot be followed any more is no card."""
    devices = Devices(tmp_path)
    devices.process(7)
    (devices.procfs / "7/fd/3").write_text("")
    assert list_drm_files(Procfs(devices.procfs), 7) == (["3"], {})


def test_the_files_of_this_machine_can_be_read() -> None:
    """Whatever is open here is a client or none; nothing else happens."""
    procfs = Procfs(Path("/proc"))
    read = 0
    for pid in procfs.list_pids():
        try:
            fds, _ = list_drm_files(procfs, pid)
        except ReadError:
            continue
        for fd in fds:
            try:
                found = read_fdinfo(procfs, pid, fd)
            except (Absent, Denied):
                continue
            assert found is None or found.client_id >= 0
            read += 1
    assert read >= len(os.listdir("/proc/self/fd")) - 1
