from __future__ import annotations

import pytest

from jobwatt.workloads.contract import Facts, resolve
from jobwatt.workloads.systemd import SystemdResolver

CONTAINER = "e" * 64


def user_name(uid: int) -> str:
    return {0: "root", 1000: "ada"}.get(uid, str(uid))


RESOLVER = SystemdResolver(user_name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", None),
        ("/init.scope", "systemd:init.scope"),
        ("/system.slice", None),
        ("/system.slice/ssh.service", "systemd:ssh.service"),
        ("/system.slice/systemd-udevd.service/udev", "systemd:systemd-udevd.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "systemd:getty@tty1.service"),
        (
            "/system.slice/system-postgresql.slice/postgresql@14-main.service",
            "systemd:postgresql@14-main.service",
        ),
        ("/system.slice/dev-hugepages.mount", "systemd:dev-hugepages.mount"),
        ("/system.slice/dbus.socket", "systemd:dbus.socket"),
        (f"/system.slice/docker-{CONTAINER}.scope", f"systemd:docker-{CONTAINER}.scope"),
        (f"/system.slice/docker.service/{CONTAINER}", "systemd:docker.service"),
        (
            "/system.slice/containerd.service/kubepods-besteffort.slice:cri-containerd:x",
            "systemd:containerd.service",
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            "systemd:machine-qemu\\x2d1\\x2dvm.scope",
        ),
        ("/user.slice/user-1000.slice/session-3.scope", "session:ada"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox@1.service",
            "session:ada",
        ),
        ("/user.slice/user-1000.slice", "session:ada"),
        ("/user.slice/user-0.slice/session-c1.scope", "session:root"),
        ("/user.slice/user-4242.slice/session-9.scope", "session:4242"),
        ("/user.slice", None),
        ("/user-x.slice/y", None),
        ("/lxc.payload.web/system.slice/nginx.service", "systemd:nginx.service"),
        ("/kubepods/burstable/pod1/x", None),
        ("/../../system.slice/x.service", "systemd:x.service"),
        ("/custom/path", None),
        ("", None),
    ],
)
def test_paths(path: str, expected: str | None) -> None:
    """Sessions go to their user, all else to the outermost unit."""
    assert RESOLVER.job_uid(Facts({"": path}, 1000)) == expected


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [
        ({"name=systemd": "/system.slice/a.service", "cpuacct": "/"}, "systemd:a.service"),
        ({"": "/", "name=systemd": "/system.slice/a.service"}, "systemd:a.service"),
        ({"": "/system.slice/a.service", "cpuacct": "/b.service"}, "systemd:a.service"),
        ({"cpuacct": "/system.slice/a.service"}, "systemd:a.service"),
        ({"memory": "/system.slice/a.service"}, None),
        ({}, None),
    ],
)
def test_trees(cgroups: dict[str, str], expected: str | None) -> None:
    """Version 2 is asked first, then systemd's own tree, then the one that counts CPU time."""
    assert RESOLVER.job_uid(Facts(cgroups, 0)) == expected


def test_the_session_is_its_slices_not_the_process_users() -> None:
    """A setuid program in a session stays in the session of the user who logged in."""
    facts = Facts({"": "/user.slice/user-1000.slice/session-3.scope"}, 0)
    assert RESOLVER.job_uid(facts) == "session:ada"


def test_what_nobody_claims_is_the_systems() -> None:
    """Without a unit a process belongs to the system."""
    assert resolve(Facts({"": "/"}, 0), (RESOLVER,)) == "system"


def test_the_first_resolver_that_claims_has_it() -> None:
    """Resolvers are asked in order."""
    other = SystemdResolver(lambda uid: "other")
    facts = Facts({"": "/user.slice/user-1000.slice"}, 0)
    assert resolve(facts, (other, RESOLVER)) == "session:other"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system.slice/ssh.service", "systemd:ssh.service"),
        ("/given/ssh.service", "session:ada"),
        ("/given/user-0.slice/session-1.scope", "session:ada"),
        ("/given", None),
        ("/given.service/ssh.service", "systemd:given.service"),
        ("/user.slice/user-1000.slice/user@1000.service/given/x.service", "session:ada"),
    ],
)
def test_what_users_make_is_no_unit(path: str, expected: str | None) -> None:
    """Whatever they call it, it is their session's: only root makes units and slices of users."""
    resolver = SystemdResolver(user_name, lambda _, parts: 1000 if "given" in parts[:-1] else 0)
    assert resolver.job_uid(Facts({"": path}, 0)) == expected
