"""What every resolver owes: an owner that can be a label, whatever users write."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobwatt.workloads import declared, flux, htcondor, lsf, pbs, slurm
from jobwatt.workloads.containers import ContainerResolver
from jobwatt.workloads.contract import Facts, Resolver, resolve
from jobwatt.workloads.kubernetes import KubernetesScheduler
from jobwatt.workloads.owners import JobOwners, OwnedResolver
from jobwatt.workloads.schedulers import SchedulerResolver
from jobwatt.workloads.systemd import SystemdResolver

MOST_CHARACTERS = 300
VARIABLES = tuple(
    name for module in (declared, flux, htcondor, lsf, pbs, slurm) for name in module.VARIABLES
)
RESOLVERS: dict[str, Resolver] = {
    "slurm": SchedulerResolver([slurm.SlurmScheduler(lambda *_: None)], lambda *_: 0),
    "kubernetes": SchedulerResolver([KubernetesScheduler()], lambda *_: 0),
    "pbs": SchedulerResolver([pbs.PbsScheduler()], lambda *_: 0),
    "slurm by environment": slurm.SlurmEnvironment(),
    "pbs by environment": pbs.PbsEnvironment(),
    "lsf": lsf.LsfResolver(),
    "htcondor": htcondor.HtcondorResolver(lambda name: (len(name), 0)),
    "flux": flux.FluxResolver(),
    "declared": declared.DeclaredResolver(),
    "containers": ContainerResolver(lambda *_: 0, lambda job_uid, _: job_uid),
    "systemd": SystemdResolver(str),
}
KINDS = re.compile(r"(slurm|k8s|pbs|lsf|htcondor|flux|run|container|systemd|session):.+", re.DOTALL)

words = st.sampled_from(
    [
        *("system.slice", "slurmstepd.scope", "n1_slurmstepd.scope", "job_7", "job_", "step_0"),
        *("slurm", "uid_1000", "sEKNKTV3WPV500", "kubepods", "burstable", f"pod{'a' * 32}"),
        *("kubepods.slice", f"kubepods-pod{'a' * 32}.slice", "pbs_jobs.service", "jobid", "jobs"),
        *("7[1].srv", "pbspro.slice", r"pbspro-7\x5b1\x5d.slice", "docker", "e" * 64),
        *(f"docker-{'e' * 64}.scope", "lxc", "lxc.payload.web", "user-1000.slice", "x.service"),
        *("..", "", " (deleted)", "a\nb", '"', "ƒ", "\ufffd", "x" * 255),
    ]
)
paths = st.lists(words | st.text(max_size=12), max_size=8).map(lambda parts: "/" + "/".join(parts))
trees = st.dictionaries(st.sampled_from(["", "name=systemd", "cpuacct", "pids"]), paths)
values = (
    st.text()
    | st.from_regex(r"[1-9][0-9]*", fullmatch=True)
    | st.sampled_from(["ƒD7j8aT", "7[3].srv", "x" * 1024, "\ud800", "a\x00b", "\u202e"])
)
environments = st.dictionaries(st.sampled_from(VARIABLES), values)
fuzz = settings(deadline=None, max_examples=200)


@pytest.mark.parametrize("name", RESOLVERS)
@fuzz
@given(trees, st.integers(-1, 2**32), environments)
@example({"": "/slurm/uid_1/job_" + "7" * 5000}, 0, {})
@example({"": "/lxc.payload." + "x" * 5000}, 0, {"JOBWATT_JOB": "\n" * 5000 + "x" * 5000})
def test_an_owner_can_be_a_label(
    name: str, cgroups: dict[str, str], uid: int, environment: dict[str, str]
) -> None:
    """Valid text of one line and of bounded length, of a known kind; the same when asked again."""
    facts = Facts(cgroups, uid, environment)
    job_uid = RESOLVERS[name].job_uid(facts)
    assert RESOLVERS[name].job_uid(facts) == job_uid
    if job_uid is None:
        return
    assert KINDS.fullmatch(job_uid)
    assert len(job_uid.encode()) <= 4 * MOST_CHARACTERS
    if name != "systemd":  # units are root's
        assert (job_uid.isprintable(), len(job_uid) <= MOST_CHARACTERS) == (True, True)


@pytest.mark.parametrize("name", RESOLVERS)
def test_nobody_claims_what_says_nothing(name: str) -> None:
    """A process in the root, without a word: nobody's."""
    nothing = (Facts({}, 0), Facts({"": "/"}, -1), Facts({"": "", "pids": "/"}, 1000))
    assert [RESOLVERS[name].job_uid(facts) for facts in nothing] == [None, None, None]


@fuzz
@given(st.lists(st.tuples(st.integers(1, 3), st.text(min_size=1, max_size=3)), max_size=60))
def test_no_user_is_in_anothers_job(claims: list[tuple[int, str]]) -> None:
    """Whoever names what in whatever order: a declared job has one uid, and a uid has few jobs."""
    owners = JobOwners(3, lambda uid: f"u{uid}")
    resolvers = (OwnedResolver(declared.DeclaredResolver(), owners, root_gives_way=False),)
    users_of: dict[str, set[int]] = {}
    jobs_of: dict[int, set[str]] = {}
    for uid, job in claims:
        owner = resolve(Facts({}, uid, {"JOBWATT_JOB": job}), resolvers)
        if owner.startswith("run:"):
            users_of.setdefault(owner, set()).add(uid)
            jobs_of.setdefault(uid, set()).add(owner)
        else:
            assert owner in {"system", f"session:u{uid}"}
    assert [users for users in users_of.values() if len(users) > 1] == []
    assert [jobs for jobs in jobs_of.values() if len(jobs) > 3] == []
