from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobwatt.workloads.containers import ContainerResolver, find_container
from jobwatt.workloads.contract import Claim, Facts, split_path

ID, INNER = "e" * 64, "1" * 64
ADA = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # docker, both drivers, and in docker.
        (f"/system.slice/docker-{ID}.scope", Claim(f"container:{ID}", 2)),
        (f"/docker/{ID}", Claim(f"container:{ID}", 2)),
        (f"/docker/{ID}/docker/{INNER}", Claim(f"container:{ID}", 2)),
        (f"/docker/{ID}/system.slice/nginx.service", Claim(f"container:{ID}", 2)),
        (f"/docker/buildx/{ID}", Claim(f"container:{ID}", 3)),
        (f"/system.slice/docker.service/{ID}", Claim(f"container:{ID}", 3)),
        (f"/ecs/0123456789abcdef/{ID}", Claim(f"container:{ID}", 3)),
        # podman, rootful, rootless, in pods and in units; its monitor.
        (f"/machine.slice/libpod-{ID}.scope", Claim(f"container:{ID}", 2)),
        (f"/machine.slice/libpod-{ID}.scope/container", Claim(f"container:{ID}", 2)),
        (f"/machine.slice/libpod-conmon-{ID}.scope", Claim(f"container:{ID}", 2)),
        (
            f"/machine.slice/machine-libpod_pod_{INNER}.slice/libpod-{ID}.scope",
            Claim(f"container:{ID}", 3),
        ),
        (f"{ADA}/user.slice/libpod-{ID}.scope/container", Claim(f"container:{ID}", 5)),
        (f"{ADA}/user.slice/libpod-conmon-{ID}.scope", Claim(f"container:{ID}", 5)),
        (f"/libpod_parent/libpod-{ID}", Claim(f"container:{ID}", 2)),
        (f"/system.slice/web.service/libpod-payload-{ID}", Claim(f"container:{ID}", 3)),
        # containerd, CRI-O, nerdctl; drivers that differ.
        (f"/system.slice/cri-containerd-{ID}.scope", Claim(f"container:{ID}", 2)),
        (f"/system.slice/nerdctl-{ID}.scope", Claim(f"container:{ID}", 2)),
        (f"/default/{ID}", Claim(f"container:{ID}", 2)),
        (f"/system.slice/crio-{ID}.scope", Claim(f"container:{ID}", 2)),
        (f"/system.slice/crio-conmon-{ID}.scope", Claim(f"container:{ID}", 2)),
        (f"/system.slice:docker:{ID}", Claim(f"container:{ID}", 1)),
        (
            f"/system.slice/containerd.service/x.slice:cri-containerd:{ID}",
            Claim(f"container:{ID}", 3),
        ),
        (f"/system.slice/docker-{ID}.scope (deleted)", Claim(f"container:{ID}", 2)),
        # LXC and its relatives.
        ("/lxc.payload.web", Claim("container:web", 1)),
        ("/lxc.payload.web/system.slice/nginx.service", Claim("container:web", 1)),
        (f"/lxc.payload.web/docker/{ID}", Claim("container:web", 1)),
        ("/lxc.payload.user-1000_web", Claim("container:user-1000_web", 1)),
        ("/lxc.monitor.web", Claim("container:web", 1)),
        ("/lxc/101/ns/system.slice", Claim("container:101", 2)),
        ("/lxc.payload/web/init.scope", Claim("container:web", 2)),
        ("/machine.slice/lxc/web", Claim("container:web", 3)),
    ],
)
def test_containers(path: str, expected: Claim) -> None:
    """The outermost container, its monitor with it."""
    assert find_container(split_path(path)) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docker",
        f"/docker/{ID[1:]}",
        f"/docker/{ID}0",
        f"/docker/{ID.upper()}",
        f"/docker/{ID}\n",
        "/system.slice/docker.service",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
        f"/machine.slice/machine-libpod_pod_{ID}.slice",
        "/lxc",
        "/lxc.payload.",
        "/lxc.payload.a\nb",
        "/lxc.payload..",
        f"/lxc.payload.{'x' * 65}",
        "/lxcfs.service/x",
        f"{ADA}/app.slice/app-firefox@1.service",
    ],
)
def test_what_is_none(path: str) -> None:
    """Runtimes' own cgroups, machines, pods' slices and look-alikes are no containers."""
    assert find_container(split_path(path)) is None


def maker_of(controller: str, parts: Sequence[str]) -> int:
    """What is below her manager Ada made."""
    del controller
    return 1000 if "user@1000.service" in parts[:-1] else 0


def resolver(answers: dict[tuple[str, int], str | None]) -> ContainerResolver:
    return ContainerResolver(maker_of, lambda job_uid, uid: answers[job_uid, uid])


@pytest.mark.parametrize("admitted", [f"container:{ID}", "session:ada", None])
def test_containers_are_admitted_as_their_makers(admitted: str | None) -> None:
    """Who made the cgroup counts, not the uid inside: also for a cgroup without a process."""
    asked = resolver({(f"container:{ID}", 1000): admitted})
    facts = Facts({"": f"{ADA}/user.slice/libpod-{ID}.scope"}, 100999)
    assert (asked.job_uid(facts), asked.job_uid(Facts(facts.cgroups, -1))) == (admitted, admitted)


def test_another_tree_may_tell_what_one_does_not() -> None:
    """A name that is refused in one is not the end."""
    facts = Facts({"": f"{ADA}/docker/{ID}", "cpuacct": f"/docker/{INNER}", "pids": "/x"}, 0)
    answers: dict[tuple[str, int], str | None] = {
        (f"container:{ID}", 1000): None,
        (f"container:{INNER}", 0): "container:inner",
    }
    assert resolver(answers).job_uid(facts) == "container:inner"
    assert resolver(answers).job_uid(Facts({"": "/x"}, 0)) is None
