from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobwatt.errors import Absent, Failed
from jobwatt.host.cgroupfs import (
    Cgroupfs,
    CgroupOwners,
    find_cgroupfs,
    parse_cpu_stat,
    parse_cpuacct_usage,
)

V2_STAT = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n"


def make_v2(root: Path) -> None:
    (root / "system.slice/x.service").mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory\n")
    (root / "cpu.stat").write_text(V2_STAT)
    (root / "system.slice/x.service/cpu.stat").write_text("usage_usec 5\n")


def make_v1(root: Path, name: str) -> None:
    (root / name / "slurm/job_7").mkdir(parents=True)
    (root / name / "cpuacct.usage").write_text("9000000123\n")
    (root / name / "slurm/job_7/cpuacct.usage").write_text("42\n")


def names(cgroupfs: Cgroupfs) -> list[tuple[str, str]]:
    return [(h.controller, h.root.name) for h in cgroupfs.hierarchies]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (V2_STAT.encode(), 1234567000),
        (b"usage_usec 7\nnr_periods 0\n", 7000),
        (b"usage_usec 7", 7000),
    ],
)
def test_cpu_stat(data: bytes, expected: int) -> None:
    """The usage is the first line, and given in nanoseconds."""
    assert parse_cpu_stat(data) == expected


@pytest.mark.parametrize(
    "data", [b"", b"usage_usec\n", b"usage_usec -1\n", b"user_usec 7\n", b"usage_usec x\n"]
)
def test_what_is_no_cpu_stat_failed(data: bytes) -> None:
    """A file without a usage is refused."""
    with pytest.raises(Failed, match=r"no usage in cpu\.stat"):
        parse_cpu_stat(data)


def test_cpuacct_usage() -> None:
    """Version 1 counts nanoseconds."""
    assert parse_cpuacct_usage(b"9000000123\n") == 9000000123


@pytest.mark.parametrize("data", [b"", b"x", b"-1\n", b"1 2\n"])
def test_what_is_no_cpuacct_usage_failed(data: bytes) -> None:
    """A file without a number is refused."""
    with pytest.raises(Failed, match=r"no usage in cpuacct\.usage"):
        parse_cpuacct_usage(data)


@pytest.mark.parametrize("parse", [parse_cpu_stat, parse_cpuacct_usage])
def test_a_number_beyond_all_measure_failed(parse: object) -> None:
    """Thousands of digits are refused in the domain's words."""
    assert callable(parse)
    with pytest.raises(Failed):
        parse((b"usage_usec " if parse is parse_cpu_stat else b"") + b"9" * 5000)


def test_version_2(tmp_path: Path) -> None:
    """One tree: places and usages are in it; its root's usage is made of ticks and not offered."""
    make_v2(tmp_path)
    cgroupfs = find_cgroupfs(tmp_path)
    assert names(cgroupfs) == [("", tmp_path.name)]
    place = cgroupfs.place({"": "/system.slice/x.service"})
    assert place == (cgroupfs.hierarchies[0], "/system.slice/x.service")
    usage = cgroupfs.hierarchies[0].open_usage("/system.slice/x.service")
    assert usage.read() == 5000
    usage.close()
    assert cgroupfs.open_root_usage() is None


@pytest.mark.parametrize("name", ["cpuacct", "cpu,cpuacct", "cpuacct,cpu", "cpu"])
def test_version_1(tmp_path: Path, name: str) -> None:
    """The controller's tree is found under each of its usual names."""
    make_v1(tmp_path, name)
    cgroupfs = find_cgroupfs(tmp_path)
    assert names(cgroupfs) == [("cpuacct", name)]
    root, job = cgroupfs.open_root_usage(), cgroupfs.hierarchies[0].open_usage("/slurm/job_7")
    assert root is not None
    assert (root.read(), job.read()) == (9000000123, 42)
    root.close()
    job.close()


def test_hybrid(tmp_path: Path) -> None:
    """Both trees are found; a process is told apart in the one that is divided."""
    make_v1(tmp_path, "cpuacct")
    make_v2(tmp_path / "unified")
    cgroupfs = find_cgroupfs(tmp_path)
    assert names(cgroupfs) == [("", "unified"), ("cpuacct", "cpuacct")]
    v2, v1 = cgroupfs.hierarchies
    assert cgroupfs.place({"": "/", "cpuacct": "/slurm/job_7"}) == (v1, "/slurm/job_7")
    assert cgroupfs.place({"": "/a", "cpuacct": "/b"}) == (v2, "/a")
    assert cgroupfs.place({"": "/", "cpuacct": "/"}) is None
    assert cgroupfs.place({}) is None


def test_none(tmp_path: Path) -> None:
    """A machine without cgroups has no tree, no place and no usage."""
    cgroupfs = find_cgroupfs(tmp_path)
    assert cgroupfs == Cgroupfs(())
    assert cgroupfs.place({"": "/a"}) is None
    assert cgroupfs.open_root_usage() is None


def test_a_cgroup_that_is_gone_is_absent(tmp_path: Path) -> None:
    """Opening what is not there is absent."""
    make_v2(tmp_path)
    with pytest.raises(Absent):
        find_cgroupfs(tmp_path).hierarchies[0].open_usage("/gone")


def test_a_usage_is_read_again_through_one_descriptor(tmp_path: Path) -> None:
    """A later read sees the later value, also after the path has gone."""
    make_v2(tmp_path)
    usage = find_cgroupfs(tmp_path).hierarchies[0].open_usage("/system.slice/x.service")
    path = tmp_path / "system.slice/x.service/cpu.stat"
    path.write_text("usage_usec 9\n")
    path.unlink()
    assert (usage.read(), usage.read()) == (9000, 9000)
    usage.close()


def test_a_removed_cgroup_is_absent_on_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers ENODEV through the open file of a removed cgroup."""
    make_v2(tmp_path)
    usage = find_cgroupfs(tmp_path).hierarchies[0].open_usage("/")

    def gone(*_: object) -> bytes:
        raise OSError(19, "No such device")

    monkeypatch.setattr(os, "pread", gone)
    with pytest.raises(Absent, match="No such device"):
        usage.read()
    monkeypatch.undo()
    usage.close()


def test_this_machines_own_trees() -> None:
    """Whatever is mounted here, the CPU time of each root never goes back."""
    forward: list[bool] = []
    hierarchies = find_cgroupfs(Path("/sys/fs/cgroup")).hierarchies
    for hierarchy in hierarchies:
        usage = hierarchy.open_usage("/")
        before = usage.read()
        forward.append(usage.read() >= before)
        usage.close()
    assert forward == [True] * len(hierarchies)


def test_paths_out_of_a_namespace_are_found_in_the_tree(tmp_path: Path) -> None:
    """A container sees `/../../system.slice/x`; its own place tells from where."""
    own = tmp_path / "kubepods.slice/pod7/container"
    own.mkdir(parents=True)
    for folder in (tmp_path, own.parent, own):
        (folder / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    (own / "cgroup.procs").write_text("41\n4711\n")

    found = find_cgroupfs(tmp_path, 4711)

    assert found.namespace_roots == {"": "/kubepods.slice/pod7/container"}
    paths = {"": "/../../../system.slice/ssh.service", "name=systemd": "/x"}
    assert found.resolve(paths) == {"": "/system.slice/ssh.service", "name=systemd": "/x"}
    assert found.resolve({"": "/"}) == {"": "/kubepods.slice/pod7/container"}


def test_paths_are_as_they_are_where_no_namespace_hides_them(tmp_path: Path) -> None:
    """On a host the kernel's paths are the tree's."""
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    assert find_cgroupfs(tmp_path).resolve({"": "/a/b"}) == {"": "/a/b"}


def test_all_trees_have_folders(tmp_path: Path) -> None:
    """Version 2, those that share a folder, systemd's own, and links to them."""
    make_v2(tmp_path / "unified")
    make_v1(tmp_path, "cpu,cpuacct")
    for name in ("systemd", "net_cls,net_prio"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "file").write_text("")
    cgroupfs = find_cgroupfs(tmp_path)
    folders = {
        controller: cgroupfs.folder(controller, ("a", "b")).removeprefix(f"{tmp_path}/")
        for controller in ("", "cpu", "cpuacct", "name=systemd", "net_prio")
    }
    assert folders == {
        "": "unified/a/b",
        "cpu": "cpu,cpuacct/a/b",
        "cpuacct": "cpu,cpuacct/a/b",
        "name=systemd": "systemd/a/b",
        "net_prio": "net_cls,net_prio/a/b",
    }


@pytest.mark.parametrize(
    ("controller", "parts"),
    [("memory", ("a",)), ("file", ("a",)), ("", ("..", "a")), ("unified", ()), ("", ("gone",))],
)
def test_owners_of_what_is_not_in_sight(
    tmp_path: Path, controller: str, parts: tuple[str, ...]
) -> None:
    """Other trees, other namespaces, cgroups that are gone: nobody is known."""
    make_v2(tmp_path)
    (tmp_path / "file").write_text("")
    cgroupfs = find_cgroupfs(tmp_path)
    with pytest.raises(Absent):
        cgroupfs.read_owner(controller, parts)
    assert CgroupOwners(cgroupfs).uid(controller, parts) == -1


def test_owners(tmp_path: Path) -> None:
    """The owner of a cgroup's folder, and who can have made it: the owner of the one above."""
    (tmp_path / "ada/job_7").mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("")
    os.chown(tmp_path / "ada", 1000, -1)
    owners = CgroupOwners(find_cgroupfs(tmp_path))
    paths = (("ada", "job_7"), ("ada",), ("ada", "gone", "job_8"), ())
    assert [owners.uid("", path) for path in paths] == [0, 1000, -1, 0]
    assert [owners.maker("", path) for path in paths] == [1000, 0, 1000, -1]
    assert owners.maker("memory", ("a",)) == -1


def test_an_owner_is_known_for_a_while_after_the_cgroup_is_gone(tmp_path: Path) -> None:
    """Not for ever: what is remembered is bounded. Who comes after is asked for anew."""
    (tmp_path / "cgroup.controllers").write_text("")
    folder = tmp_path / "job_7"
    folder.mkdir()
    owners = CgroupOwners(find_cgroupfs(tmp_path))
    owners._MOST = 2
    seen = [owners.uid("", ("job_7",))]
    folder.rmdir()
    seen.append(owners.uid("", ("job_7",)))
    folder.mkdir()
    os.chown(folder, 1000, -1)
    seen.append(owners.uid("", ("job_7",)))
    folder.rmdir()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        owners.uid("", (name,))
    seen.append(owners.uid("", ("job_7",)))
    assert seen == [0, 0, 1000, -1]


def test_what_may_not_be_asked_has_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that refuses tells neither owner nor maker."""
    make_v2(tmp_path)
    owners = CgroupOwners(find_cgroupfs(tmp_path))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    assert (owners.uid("", ("a",)), owners.maker("", ("a", "b"))) == (-1, -1)


def test_a_folder_that_is_not_there_has_no_trees(tmp_path: Path) -> None:
    """A container into which no cgroups are mounted."""
    assert find_cgroupfs(tmp_path / "none") == Cgroupfs(())
