from __future__ import annotations

import json

from jobwatt.workloads.contract import Facts
from jobwatt.workloads.declared import DeclaredResolver
from jobwatt.workloads.owners import JobOwners, OwnedResolver

ADA, BOB = 1000, 1001


def make(most: int = 2) -> JobOwners:
    return JobOwners(most, lambda uid: {ADA: "ada", BOB: "bob"}.get(uid, str(uid)))


def test_the_first_user_of_an_id_has_it() -> None:
    """Another who names it gets nothing, and that is counted, once."""
    owners = make()
    answers = [owners.admit("run:a", uid) for uid in (ADA, BOB, ADA, BOB)]
    assert answers == ["run:a", None, "run:a", None]
    assert (owners.owner("run:a"), owners.refusals) == (ADA, {"job_cap": 0, "job_owner": 1})


def test_an_unknown_user_has_nothing() -> None:
    """Nor does he take an id from anybody."""
    owners = make()
    assert (owners.admit("run:a", -1), owners.owner("run:a")) == (None, None)


def test_what_does_not_fit_is_the_users_session() -> None:
    """Two jobs each; a third is not one, while those that are known go on."""
    owners = make()
    for uid in (ADA, BOB):
        for number in range(2):
            owners.admit(f"run:{uid}-{number}", uid)
    assert owners.admit("run:third", ADA) == "session:ada"
    assert owners.admit("run:third", ADA) == "session:ada"
    assert owners.admit(f"run:{ADA}-0", ADA) == f"run:{ADA}-0"
    assert (owners.owner("run:third"), owners.refusals["job_cap"]) == (None, 1)


def test_a_thousand_names_make_two_jobs() -> None:
    """Whatever a user declares, what is remembered of it is bounded."""
    owners = make()
    jobs = {owners.admit(f"run:{number}", ADA) for number in range(5000)}
    assert jobs == {"run:0", "run:1", "session:ada"}
    assert owners.refusals == {"job_cap": 4998, "job_owner": 0}
    assert len(owners._refused) <= 1000


def test_an_ended_job_makes_room() -> None:
    """The oldest that lingers goes first, and the accounting is told."""
    owners = make()
    for name in ("run:a", "run:b"):
        owners.admit(name, ADA)
    owners.end("run:b")
    owners.end("run:a")
    assert owners.admit("run:c", ADA) == "run:c"
    assert (owners.take_displaced(), owners.take_displaced()) == (["run:b"], [])
    assert owners.admit("run:b", BOB) == "run:b"


def test_a_lingering_job_counts_and_stays_its_users() -> None:
    """Its id is taken until it is forgotten."""
    owners = make(most=1)
    owners.admit("run:a", ADA)
    owners.end("run:a")
    assert owners.admit("run:a", BOB) is None
    owners.forget("run:a")
    assert owners.admit("run:a", BOB) == "run:a"
    assert owners.admit("run:b", ADA) == "run:b"


def test_a_job_that_returns_is_live() -> None:
    """Nobody makes room with it any more."""
    owners = make(most=1)
    owners.admit("run:a", ADA)
    owners.end("run:a")
    owners.admit("run:a", ADA)
    assert (owners.admit("run:b", ADA), owners.take_displaced()) == ("session:ada", [])


def test_what_is_not_known_may_end() -> None:
    """The accounting tells of all jobs, whoever vouches for them."""
    owners = make()
    owners.end("slurm:7")
    owners.forget("slurm:7")
    assert owners.owner("slurm:7") is None


def test_root_gives_way_where_schedulers_name_jobs() -> None:
    """A prolog has the job's variables before the job; it is not the job's user."""
    owners = make()
    assert owners.admit("lsf:7", 0, root_gives_way=True) == "lsf:7"
    assert owners.admit("lsf:7", ADA, root_gives_way=True) == "lsf:7"
    assert (owners.owner("lsf:7"), owners.admit("lsf:7", 0, root_gives_way=True)) == (ADA, None)


def test_root_keeps_what_it_declares() -> None:
    """Nobody else takes part in root's own job."""
    owners = make()
    assert owners.admit("run:backup", 0) == "run:backup"
    assert (owners.admit("run:backup", ADA), owners.owner("run:backup")) == (None, 0)


def test_a_cgroup_wins_over_who_was_first() -> None:
    """Who takes the number of a job to come loses it when the job comes."""
    owners = make(most=1)
    owners.admit("slurm:7", BOB)
    owners.vouch("slurm:7", 0)
    owners.vouch("slurm:7", ADA)
    owners.vouch("slurm:7", BOB)
    answers = [owners.admit("slurm:7", uid, root_gives_way=True) for uid in (ADA, BOB, 0)]
    assert answers == ["slurm:7", None, None]
    assert owners.admit("run:b", BOB) == "run:b"
    assert owners.admit("run:a", ADA) == "run:a"
    owners.forget("slurm:7")
    assert owners.owner("slurm:7") is None


def test_what_root_wrote_wins_over_who_was_first() -> None:
    """It takes the job from whoever named it before, the job's cgroup included; for no cap."""
    told: dict[str, int] = {}
    owners = JobOwners(1, str, told.get)
    assert owners.admit("slurm:7", BOB, root_gives_way=True) == "slurm:7"
    owners.vouch("slurm:8", BOB)
    told |= {f"slurm:{job}": ADA for job in (7, 8, 9)}
    for job in told:
        assert [owners.admit(job, uid, root_gives_way=True) for uid in (BOB, 0, ADA)] == [
            None,
            None,
            job,
        ]
    assert owners.refusals == {"job_cap": 0, "job_owner": 6}
    again = JobOwners(1, str)
    again.restore(json.loads(json.dumps(owners.dump())), told)
    assert (again.owner("slurm:7"), again.owner("slurm:8")) == (ADA, ADA)


def test_what_root_made_is_roots() -> None:
    """However many: a user's cgroup of the same name is not that container, nor was it before."""
    owners = make(most=1)
    answers = [owners.admit_made("container:a", maker) for maker in (BOB, 0, BOB, 0, -1)]
    assert answers == ["container:a", "container:a", None, "container:a", "container:a"]
    assert [owners.admit_made(f"container:{n}", 0) for n in "bc"] == ["container:b", "container:c"]
    assert [owners.admit_made(f"container:{n}", BOB) for n in "de"] == [
        "container:d",
        "session:bob",
    ]


def test_an_unknown_maker_is_believed_and_takes_nothing() -> None:
    """Where the tree is not in sight, the path alone has to do."""
    owners = make()
    assert (owners.admit_made("container:a", -1), owners.owner("container:a")) == (
        "container:a",
        None,
    )


def test_a_restart_changes_no_owner() -> None:
    """Live or lingering, named or vouched for; of jobs that nobody knows any more nothing stays."""
    before = make()
    before.admit("run:a", ADA)
    before.admit("run:b", ADA)
    before.admit("run:gone", BOB)
    before.vouch("slurm:7", BOB)
    before.admit_made("container:c", 0)
    row = json.loads(json.dumps(before.dump()))
    after = make()
    after.admit("run:z", BOB)
    after.restore(row, ["run:a", "run:b", "slurm:7", "container:c"])
    after.end("run:b")
    jobs = ("run:a", "run:b", "run:gone", "slurm:7", "container:c", "run:z")
    assert [after.owner(job) for job in jobs] == [ADA, ADA, None, BOB, 0, None]
    assert [after.admit(job, BOB) for job in jobs[:2]] == [None, None]
    assert after.admit_made("container:c", BOB) is None
    assert after.admit("run:c", ADA) == "run:c"
    assert after.take_displaced() == ["run:b"]
    assert make().dump() == ((), ())


def test_what_is_to_be_kept_follows_every_change() -> None:
    """It is made anew only then: most samples change nothing."""
    owners = make()
    owners.admit("run:a", ADA)
    first = owners.dump()
    assert owners.dump() is first
    owners.admit("run:a", ADA)
    owners.end("run:a")
    assert owners.dump() is first
    owners.forget("run:a")
    assert owners.dump() == ((), ())
    owners.vouch("slurm:7", ADA)
    assert owners.dump() == ((), (("slurm:7", ADA),))
    owners.forget("slurm:7")
    assert owners.dump() == ((), ())


def test_a_resolver_is_asked_before_its_user() -> None:
    """Nothing named, nothing owned; else the first has it."""
    resolver = OwnedResolver(DeclaredResolver(), make(), root_gives_way=False)
    named = {"JOBWATT_JOB": "a"}
    facts = [Facts({}, ADA), Facts({}, ADA, named), Facts({}, BOB, named), Facts({}, -1, named)]
    assert [resolver.job_uid(f) for f in facts] == [None, "run:a", None, None]
