"""What a job's environment may say of it, and what not."""

import pytest

from jobwatt.model import Process
from jobwatt.records import BadBudget, Budget, BudgetOrigin, JobRecord
from jobwatt.workloads.names import VARIABLES, JobNames, told_by_environment

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "bert",
    "SLURM_JOB_ACCOUNT": "vision",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_QOS": "normal",
    "SLURM_JOB_END_TIME": "1800086400",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_JOB_GPUS": "0,1",
    "JOBWATT_BUDGET": "25kWh",
}
BERT = JobRecord(
    name="bert",
    account="vision",
    queue="gpu",
    deadline=1_800_086_400.0,
    budget=Budget(90e6, BudgetOrigin.ENVIRONMENT),
    cpus=16.0,
    gpus=(0, 1),
)
BUDGET = {"JOBWATT_BUDGET": "1kWh", "JOBWATT_ACCOUNT": "rival"}
KWH = Budget(3.6e6, BudgetOrigin.ENVIRONMENT)


@pytest.mark.parametrize("job_uid", ["slurm:7", "slurm:7:r2"])
def test_slurm_tells_all_in_the_environment(job_uid: str) -> None:
    """Of each run of the job."""
    assert told_by_environment(job_uid, SLURM, proven=True) == BERT


def test_another_jobs_environment_is_not_heard() -> None:
    """Nor the daemon's, which has none."""
    assert told_by_environment("slurm:8", SLURM, proven=True) is None
    assert told_by_environment("slurm:7", {**SLURM, "SLURM_JOB_ID": ""}, proven=True) is None
    assert told_by_environment("slurm:7", {"SLURM_JOB_NAME": "bert"}, proven=True) is None


def test_a_job_whose_id_nobody_knows_is_told_of_by_any_of_its_processes() -> None:
    """Its cgroup is named by the SLUID."""
    assert told_by_environment("slurm:s0123456789ABC", SLURM, proven=True) == BERT


def test_only_a_schedulers_word_is_an_account() -> None:
    """What a user may write beside it, or in a pod, charges nobody."""
    both = {**SLURM, "JOBWATT_ACCOUNT": "rival"}
    assert told_by_environment("slurm:7", both, proven=True) == BERT
    without = {"SLURM_JOB_ID": "7", "JOBWATT_ACCOUNT": "rival"}
    assert told_by_environment("slurm:7", without, proven=True) == JobRecord()
    assert told_by_environment("pbs:7", {**BUDGET, "PBS_JOBID": "7"}, proven=True) == JobRecord(
        budget=KWH
    )
    assert told_by_environment("k8s:a-b", BUDGET, proven=True) == JobRecord(budget=KWH)
    assert told_by_environment("k8s:a-b", {"JOBWATT_ACCOUNT": "rival"}, proven=True) is None


@pytest.mark.parametrize(
    ("job_uid", "more"),
    [
        ("slurm:7", SLURM),
        ("pbs:7", {"PBS_JOBID": "7", "PBS_ACCOUNT": "rival"}),
        ("lsf:7", {"LSB_JOBNAME": "a"}),
        ("flux:f1", {}),
        ("htcondor:1.0", {}),
        ("run:bert", {}),
        ("container:abc", {}),
        ("systemd:a.service", {}),
    ],
)
def test_who_is_not_vouched_for_by_a_scheduler_has_no_account(
    job_uid: str, more: dict[str, str]
) -> None:
    """Anybody may claim any job's name; nobody may charge others."""
    record = told_by_environment(job_uid, {**BUDGET, **more}, proven=False)
    assert record is not None
    assert (record.account, record.budget is not None) == ("none", True)


def test_a_declared_job_may_have_a_name_beside_its_id() -> None:
    """`jobwatt run --name bert` makes an id of it for each run."""
    told = told_by_environment("run:bert-0701", {"JOBWATT_NAME": "bert"}, proven=False)
    assert told == JobRecord(name="bert")
    assert told_by_environment("slurm:7", {"JOBWATT_NAME": "bert"}, proven=True) is None


@pytest.mark.parametrize("job_uid", ["run:bert", "container:abc", "systemd:a.service", "lsf:7"])
def test_a_cgroup_proves_no_account_where_no_scheduler_made_it(job_uid: str) -> None:
    """A unit's or a container's own cgroup says nothing about who pays."""
    record = told_by_environment(job_uid, BUDGET, proven=True)
    assert record is not None
    assert record.account == "none"


@pytest.mark.parametrize("job_uid", ["system", "session:ada"])
def test_nobody_speaks_for_a_session(job_uid: str) -> None:
    """Nor for the system."""
    assert told_by_environment(job_uid, {**SLURM, **BUDGET}, proven=True) is None


def test_an_environment_that_says_nothing_is_silent() -> None:
    """So that a later process may speak."""
    assert told_by_environment("run:bert", {"SLURM_JOB_NAME": "a"}, proven=False) is None


def test_hostile_values_are_bounded() -> None:
    """Names are cut and printable, numbers are numbers, and a bad budget is noted."""
    hostile = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": 'a"\n\x00\x1b' + "x" * 5000,
        "SLURM_JOB_END_TIME": "soon",
        "SLURM_CPUS_ON_NODE": "-1",
        "SLURM_JOB_GPUS": "all",
        "JOBWATT_BUDGET": "free",
    }
    record = told_by_environment("slurm:7", hostile, proven=True)
    name = 'a"\\n\\x00\\x1b' + "x" * 116
    reason = "'free' is no energy; write it like 2kWh, 500Wh or 90MJ"
    bad = BadBudget(BudgetOrigin.ENVIRONMENT, reason)
    assert record == JobRecord(name=name, bad_budgets=(bad,))


def test_what_root_wrote_is_merged_the_first_source_first() -> None:
    """And merged once: who follows it sees by the mapping that nothing has changed."""
    first = {"slurm:7": JobRecord(name="a")}
    second = {"slurm:7": JobRecord(name="b", queue="q"), "slurm:8": JobRecord(name="c")}
    sources = {"first": first, "second": second}
    jobs = JobNames(lambda: sources["first"], lambda: sources["second"])
    records = jobs.refresh()
    assert records == {"slurm:7": JobRecord(name="a", queue="q"), "slurm:8": JobRecord(name="c")}
    assert jobs.refresh() is records
    sources["second"] = {}
    assert jobs.refresh() == first


def test_a_site_without_cgroups_trusts_the_environment_of_its_schedulers() -> None:
    """Because its operator says so; of nobody else."""
    process = Process(1, 0, job_uid="slurm:7", environment=SLURM)
    declared = Process(2, 0, job_uid="run:x", environment=BUDGET)
    accounts = {}
    for trust in (False, True):
        source = JobNames(trust_environment=trust)
        for one in (process, declared):
            record = source.told_by(one, by_cgroup=False)
            assert record is not None
            accounts[trust, one.pid] = record.account
    assert accounts == {
        (False, 1): "none",
        (False, 2): "none",
        (True, 1): "vision",
        (True, 2): "none",
    }


def test_a_prolog_does_not_speak_for_its_job() -> None:
    """It is root's, with the job's variables, before the job has a process of its own."""
    source = JobNames(trust_environment=True)
    prolog = Process(1, 0, uid=0, job_uid="slurm:7", environment=SLURM)
    assert source.told_by(prolog, by_cgroup=False) is None
    assert source.told_by(prolog, by_cgroup=True) == BERT


def test_all_variables_are_named() -> None:
    """What is not named is not read."""
    assert set(SLURM) <= set(VARIABLES)
    assert "JOBWATT_ACCOUNT" not in VARIABLES
    assert len(set(VARIABLES)) == len(VARIABLES)
