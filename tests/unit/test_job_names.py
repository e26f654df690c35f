"""Names, budgets, times and accounts of jobs: when they are settled, and what they then keep."""

import json
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt import jobs as jobs_module
from jobwatt.budgets import parse_rules
from jobwatt.jobs import JobBook
from jobwatt.model import UNDECIDED, JobPresence, Process, Row, Usage
from jobwatt.records import BadBudget, Budget, BudgetOrigin, JobRecord
from jobwatt.snapshot import JobView

S = 1_000_000_000
EPOCH = 1_800_000_000.0
BERT = JobRecord(
    name="bert",
    account="vision",
    queue="gpu",
    deadline=EPOCH + 9000,
    budget=Budget(90e6, BudgetOrigin.ENVIRONMENT),
    cpus=16.0,
)
PROLOG = JobRecord(
    user="ada",
    account="vision",
    queue="gpu",
    started=EPOCH - 30,
    budget=Budget(50e6, BudgetOrigin.COMMENT),
    gpus=(0,),
)
CAPPED = parse_rules([{"match": {"account": "vision"}, "budget": "10MJ"}])


class Node:
    """A node on which a test says who is there and what is told of them."""

    def __init__(self, book: JobBook | None = None, now: int = 0) -> None:
        self.book = book or JobBook(linger_ns=60 * S)
        self.now = now
        self.there: dict[str, JobPresence] = {}
        self.records: dict[str, JobRecord] = {}

    def appears(
        self, job_uid: str, user: str = "ada", uid: int = 1000, record: JobRecord | None = None
    ) -> JobPresence:
        presence = JobPresence(1, EPOCH - 5, user, uid, record)
        self.there[job_uid] = presence
        return presence

    def second(self, energy: dict[str, int] | None = None, seconds: int = 1) -> None:
        """Let time pass; jobs use so many µJ of the first device."""
        self.now += seconds
        self.book.begin(EPOCH + self.now, Usage(jobs=self.there, records=self.records))
        for job_uid, uj in (energy or {}).items():
            self.book.account(job_uid).add(0, uj)
        self.book.close(self.now * S, seconds * S, self.there)

    def view(self, job_uid: str) -> JobView:
        return self.book.jobs[job_uid].view()

    def restarted(self, rules: object = ()) -> "Node":
        """Go on with another exporter."""
        rows = json.loads(json.dumps(self.book.dump()))
        book = JobBook(linger_ns=60 * S, rules=rules)  # type: ignore[arg-type]
        book.restore(rows, self.now * S, EPOCH + self.now)
        return Node(book, self.now)


def named(view: JobView) -> tuple[str | None, str, str | None]:
    return (view.record.name if view.record else None, view.user, view.account)


@pytest.mark.parametrize("job_uid", ["systemd:a.service", "session:ada", "run:x", "k8s:a-b"])
def test_most_jobs_are_named_by_what_they_are(job_uid: str) -> None:
    """At once."""
    node = Node()
    node.appears(job_uid)
    node.second()
    assert named(node.view(job_uid)) == ("", "ada", "none")


def test_a_scheduled_job_waits_for_a_process_that_names_it() -> None:
    """First there are the scheduler's daemons; until then it has no info, and no account."""
    node = Node()
    node.appears("slurm:7", "root", 0)
    for _ in range(20):
        node.second()
        assert node.view("slurm:7").record is None
        assert node.view("slurm:7").account is None
    presence = node.there["slurm:7"]
    presence.user, presence.uid, presence.record = "ada", 1000, BERT
    node.second()
    view = node.view("slurm:7")
    assert named(view) == ("bert", "ada", "vision")
    assert (view.record, view.budget, view.cpus) == (BERT, BERT.budget, 16.0)


def test_a_scheduled_job_whose_processes_stay_silent_is_named_by_its_id() -> None:
    """Their environment cannot be read: nobody waits for ever."""
    node = Node()
    node.appears("slurm:7")
    for _ in range(6):
        node.second()
        assert node.view("slurm:7").record is None
    node.second()
    assert named(node.view("slurm:7")) == ("", "ada", "none")
    node.there["slurm:7"].record = BERT
    node.second()
    assert named(node.view("slurm:7")) == ("", "ada", "none")
    assert node.view("slurm:7").budget == BERT.budget


def test_names_never_change() -> None:
    """Neither by another process nor by a file that comes late."""
    node = Node()
    node.appears("slurm:7", record=BERT)
    node.second()
    node.there["slurm:7"].record = JobRecord(name="other", account="rival")
    node.there["slurm:7"].user = "eve"
    node.records["slurm:7"] = replace(PROLOG, name="third", account="rival")
    node.second()
    assert named(node.view("slurm:7")) == ("bert", "ada", "vision")


def test_a_pod_is_named_when_there_is_more_than_its_sandbox() -> None:
    """Or after a while: who calls his own process so cannot hide his job for long."""
    job_uid = "k8s:ml/Job/bert:u"
    node = Node()
    node.records = {job_uid: JobRecord(name="bert", account="ml")}
    node.appears(job_uid, "", -1)
    for _ in range(5):
        node.second()
        assert node.view(job_uid).record is None
    named_in_time = node.restarted()
    named_in_time.records = node.records
    named_in_time.appears(job_uid, "ada", 1000)
    named_in_time.second()
    assert named(named_in_time.view(job_uid)) == ("bert", "ada", "ml")
    node.second(seconds=2)
    assert named(node.view(job_uid)) == ("bert", "", "ml")
    ended = Node()
    ended.records = node.records
    ended.appears(job_uid, "", -1)
    ended.second()
    ended.there.clear()
    ended.second()
    assert named(ended.view(job_uid)) == ("bert", "", "ml")


def test_what_is_no_label_may_come_later() -> None:
    """The API tells a pod's start, and so its deadline, after its processes have begun."""
    node = Node()
    job_uid = "k8s:ml/Job/bert:u"
    node.records = {job_uid: JobRecord(name="bert", account="ml", cpus=2.0)}
    node.appears(job_uid)
    node.second()
    assert (named(node.view(job_uid)), node.view(job_uid).budget) == (("bert", "ada", "ml"), None)
    later = JobRecord(
        name="other",
        account="rival",
        deadline=EPOCH + 60,
        cpus=4.0,
        budget=Budget(7.0, BudgetOrigin.ANNOTATION),
    )
    node.records = {job_uid: later, "k8s:unseen": later}
    node.second()
    view = node.restarted().view(job_uid)
    assert view.record == replace(later, name="bert", account="ml")
    assert (view.account, view.budget) == ("ml", later.budget)
    node.records = {job_uid: replace(later, budget=Budget(9.0, BudgetOrigin.ANNOTATION), cpus=None)}
    node.second()
    assert node.view(job_uid).record == view.record
    del node.there[job_uid]
    node.second()
    node.records = {job_uid: replace(later, deadline=EPOCH)}
    node.second()
    assert node.view(job_uid).record == view.record


def test_a_process_that_ends_undecided_makes_no_job() -> None:
    """What it used is nobody's."""
    book = JobBook()
    book.begin(EPOCH, Usage(ended=[Process(1, 0, job_uid=UNDECIDED)]))
    assert book.jobs == {}


def test_a_prolog_goes_before_the_environment() -> None:
    """It has the user, the account and the start; the environment has the name."""
    node = Node()
    node.records["slurm:7"] = PROLOG
    claims = replace(BERT, account="rival", queue="long")
    node.appears("slurm:7", "root", 0, claims)
    node.second()
    view = node.view("slurm:7")
    assert named(view) == ("bert", "ada", "vision")
    assert view.record is not None
    assert (view.record.queue, view.started, view.budget) == ("gpu", EPOCH - 30, PROLOG.budget)
    assert (view.record.deadline, view.cpus) == (BERT.deadline, 16.0)


def test_a_prolog_that_has_the_name_settles_at_once() -> None:
    """Nothing is left to wait for."""
    node = Node()
    node.records["slurm:7"] = replace(PROLOG, name="bert")
    node.appears("slurm:7", "root", 0)
    node.second()
    assert named(node.view("slurm:7")) == ("bert", "ada", "vision")


def test_the_operators_cap_holds_where_it_is_smaller() -> None:
    """One budget a job, and whose it is."""
    node = Node(JobBook(rules=CAPPED))
    node.appears("slurm:7", record=BERT)
    small = replace(BERT, budget=Budget(5e6, BudgetOrigin.ENVIRONMENT))
    node.appears("slurm:8", record=small)
    node.appears("slurm:9", record=replace(BERT, account="speech", budget=None))
    node.second()
    assert [node.view(f"slurm:{n}").budget for n in (7, 8, 9)] == [
        Budget(10e6, BudgetOrigin.OPERATOR),
        Budget(5e6, BudgetOrigin.ENVIRONMENT),
        None,
    ]


def test_a_container_may_name_its_budget_a_moment_later() -> None:
    """Its first process is its runtime; what is no label may still come."""
    node = Node()
    node.appears("container:a", "root", 0)
    node.second()
    node.there["container:a"].record = JobRecord(budget=BERT.budget, name="late")
    node.second()
    view = node.view("container:a")
    assert (named(view), view.budget) == (("", "root", "none"), BERT.budget)


def test_bad_budgets_are_counted_once_a_job_and_stop_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By where they stood; a line each tells why, and the job keeps it."""
    node = Node()
    bad = JobRecord(name="a", bad_budgets=(BadBudget(BudgetOrigin.ENVIRONMENT, "'9' has no unit"),))
    node.appears("slurm:7", record=bad)
    comment = BadBudget(BudgetOrigin.COMMENT, "'x' is no energy")
    node.records["slurm:7"] = JobRecord(bad_budgets=(comment,))
    node.appears("run:x", record=bad)
    for _ in range(3):
        node.second()
    assert node.book.budget_errors == {"annotation": 0, "environment": 2, "comment": 1}
    assert sorted(caplog.messages) == [
        "run:x: no budget by its environment: '9' has no unit",
        "slurm:7: no budget by its comment: 'x' is no energy",
        "slurm:7: no budget by its environment: '9' has no unit",
    ]
    after = node.restarted()
    after.there, after.records = node.there, node.records
    after.second()
    assert after.book.budget_errors == {"annotation": 0, "environment": 0, "comment": 0}
    assert len(caplog.messages) == 3
    record = after.view("slurm:7").record
    assert record is not None
    assert record.bad_budgets == (comment, *bad.bad_budgets)


def test_bad_budgets_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Ten lines a minute, and one that says where the others are."""
    node = Node()
    bad = JobRecord(bad_budgets=(BadBudget(BudgetOrigin.ENVIRONMENT, "why"),))
    for number in range(50):
        node.appears(f"run:{number}", record=bad)
    node.second()
    assert len(caplog.messages) == 11
    assert caplog.messages[10] == "more budgets are none: jobwatt_budget_errors_total counts them"
    node.appears("run:later", record=bad)
    node.second(seconds=60)
    assert caplog.messages[11:] == ["run:later: no budget by its environment: why"]
    assert node.book.budget_errors["environment"] == 51


def test_an_epilog_tells_the_exact_end() -> None:
    """Once no process is left; it may come before or after we see that."""
    node = Node()
    node.records["slurm:7"] = replace(PROLOG, name="bert")
    node.appears("slurm:7")
    node.second()
    node.records["slurm:7"] = replace(node.records["slurm:7"], ended=EPOCH + 1.5)
    node.second()
    assert node.view("slurm:7").ended is None
    del node.there["slurm:7"]
    node.second()
    assert node.view("slurm:7").ended == EPOCH + 1.5


def test_the_end_of_an_earlier_life_is_not_taken() -> None:
    """A job that comes back after it was dropped has the closed file of before."""
    node = Node()
    node.records["slurm:7"] = replace(PROLOG, name="bert", ended=EPOCH + 1)
    node.appears("slurm:7")
    node.second()
    node.there.clear()
    node.second()
    assert node.view("slurm:7").ended == EPOCH + 1
    node.second(seconds=61)
    assert "slurm:7" not in node.book.jobs
    node.appears("slurm:7")
    node.second()
    node.there.clear()
    node.second()
    view = node.view("slurm:7")
    assert (view.measured_since, view.started, view.ended) == (EPOCH + 64, EPOCH - 30, EPOCH + 65)


def test_the_end_of_a_job_between_two_samples_is_taken() -> None:
    """It is measured since the first of them; an Epilog's clock has whole seconds."""
    node = Node()
    node.second()
    node.records["slurm:7"] = replace(PROLOG, name="bert", ended=EPOCH)
    node.second({"slurm:7": 5})
    for _ in range(8):  # until its names are settled
        node.second()
    view = node.view("slurm:7")
    assert (view.measured_since, view.started, view.ended) == (EPOCH + 1, EPOCH - 30, EPOCH + 1)


@pytest.mark.parametrize("ended", [EPOCH - 31, EPOCH + 10_000])
def test_an_end_that_cannot_be_is_not_taken(ended: float) -> None:
    """Before the start, or ahead."""
    node = Node()
    node.records["slurm:7"] = replace(PROLOG, name="bert", ended=ended)
    node.appears("slurm:7")
    node.second()
    del node.there["slurm:7"]
    node.second()
    assert node.view("slurm:7").ended == EPOCH + 2


def test_cpus_are_what_the_cgroup_leaves_else_the_schedulers_word() -> None:
    """And leave with the job's end."""
    node = Node()
    node.appears("slurm:7", record=BERT).cpus = 2.5
    node.appears("slurm:8", record=BERT)
    node.appears("run:x")
    node.second()
    assert [node.view(uid).cpus for uid in ("slurm:7", "slurm:8", "run:x")] == [2.5, 16.0, None]
    node.there.clear()
    node.second()
    assert [node.view(uid).cpus for uid in ("slurm:7", "slurm:8")] == [None, None]


def test_a_job_that_nobody_saw_live_is_named_after_a_moment() -> None:
    """It may have begun this very second, its processes too short to be seen."""
    node = Node()
    node.second({"slurm:7": 5, "systemd:a.service": 5})
    node.second({"slurm:8": 5})
    node.records["slurm:8"] = replace(PROLOG, name="bert")
    assert [job.settled for job in node.book.jobs.values()] == [False, False, False]
    node.appears("slurm:7", record=BERT)
    for _ in range(6):
        node.second()
    assert named(node.view("slurm:7")) == ("bert", "ada", "vision")
    assert named(node.view("slurm:8")) == ("bert", "ada", "vision")
    assert named(node.view("systemd:a.service")) == ("", "", "none")


def test_names_outlive_a_restart() -> None:
    """Also budgets, under the operator's rules of now, and that there are none yet."""
    node = Node()
    node.appears("slurm:7", record=BERT)
    node.appears("slurm:8", "root", 0)
    node.second({"slurm:7": 5, "slurm:8": 6})
    after = node.restarted(CAPPED)
    after.appears("slurm:7", "eve", 1001, JobRecord(name="x", account="rival"))
    after.appears("slurm:8", record=BERT)
    after.second()
    seven = after.view("slurm:7")
    assert (named(seven), seven.record) == (("bert", "ada", "vision"), BERT)
    assert seven.budget == Budget(10e6, BudgetOrigin.OPERATOR)
    assert named(after.view("slurm:8")) == ("bert", "ada", "vision")


def test_jobs_of_an_earlier_release_go_on() -> None:
    """Their rows have no records."""
    book = JobBook()
    rows = {
        "jobs": ((1, None, 5, 0, 7), (2, EPOCH, 5, 0, 7)),
        "job 1": ("slurm:7", "ada", EPOCH - 5, EPOCH),
        "job 2": ("run:x", "ada", EPOCH - 5, EPOCH),
    }
    book.restore(rows, 0, EPOCH)
    node = Node(book)
    node.appears("slurm:7", record=BERT)
    node.second()
    assert named(node.view("slurm:7")) == ("", "ada", "none")
    assert accounts(node) == {"none": 14}


def accounts(node: Node) -> dict[str, int]:
    """The energy of each account, as the page adds it up."""
    totals: dict[str, int] = {}
    alive = ((job.account, job.energy_uj) for job in node.book.jobs.values())
    for account, uj in (*node.book.account_views(), *alive):
        if account is not None:
            totals[account] = totals.get(account, 0) + sum(uj)
    return totals


def test_accounts_keep_what_their_jobs_have_used() -> None:
    """Live, lingering and long gone; over a restart, too."""
    node = Node()
    node.appears("slurm:7", record=BERT)
    node.appears("session:ada")
    node.second({"slurm:7": 5, "session:ada": 3})
    assert accounts(node) == {"vision": 5, "none": 3}
    del node.there["slurm:7"]
    node.second({"slurm:7": 2, "session:ada": 1})
    node.second({"session:ada": 1}, seconds=61)
    assert list(node.book.jobs) == ["session:ada"]
    assert accounts(node) == {"vision": 7, "none": 5}
    after = node.restarted()
    after.appears("slurm:9", record=BERT)
    after.second({"slurm:9": 10})
    assert accounts(after) == {"vision": 17, "none": 5}


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is `other`, and counted; none is always there."""
    monkeypatch.setattr(jobs_module, "MOST_ACCOUNTS", 2)
    node = Node()
    for number in range(4):
        node.appears(f"slurm:{number}", record=replace(BERT, account=f"a{number}"))
    node.appears("session:ada")
    node.second(dict.fromkeys(node.there, 1))
    assert accounts(node) == {"a0": 1, "a1": 1, "other": 2, "none": 1}
    assert node.book.accounts_dropped == 2


life = st.tuples(
    st.sampled_from(["slurm:1", "slurm:2", "run:x", "session:ada"]),
    st.sampled_from(["appears", "leaves", "speaks", "prolog", "restart", "waits"]),
    st.integers(0, 9),
    st.integers(1, 40),
)


@given(st.lists(life, max_size=40))
def test_accounts_never_go_back_and_miss_nothing(
    history: list[tuple[str, str, int, int]],
) -> None:
    """Whatever becomes of jobs; in the end each microjoule is in one account."""
    node = Node()
    spent, before = 0, dict[str, int]()
    for job_uid, event, uj, seconds in history:
        if event == "appears":
            node.there.setdefault(job_uid, JobPresence(1, EPOCH, "root", 0))
        elif event == "leaves":
            node.there.pop(job_uid, None)
        elif event == "speaks" and job_uid in node.there:
            node.there[job_uid].record = replace(BERT, account=f"of {job_uid}")
        elif event == "prolog":
            node.records[job_uid] = PROLOG
        elif event == "restart":
            there, records = node.there, node.records
            node = node.restarted()
            node.there, node.records = there, records
        node.second({job_uid: uj} if uj else {}, seconds)
        spent += uj
        after = accounts(node)
        assert all(after[name] >= amount for name, amount in before.items())
        before = after
    node.there.clear()
    node.second(seconds=61)
    node.second(seconds=61)
    assert sum(accounts(node).values()) == spent


def test_a_job_is_not_named_by_who_only_passes_by() -> None:
    """CPU time of a process opens the job that it names now."""
    node = Node()
    process = Process(1, 0, job_uid="slurm:7")
    node.book.begin(EPOCH, Usage({process: 5}))
    assert node.view("slurm:7").record is None


class Bounds:
    """Remembers what it is told, and makes room as a test says."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.displaced: list[str] = []
        self.known: list[str] = []
        self.refusals = {"job_cap": 3}

    def end(self, job_uid: str) -> None:
        self.told.append(("end", job_uid))

    def forget(self, job_uid: str) -> None:
        self.told.append(("forget", job_uid))

    def take_displaced(self) -> list[str]:
        displaced, self.displaced = self.displaced, []
        return displaced

    def dump(self) -> Row:
        return ("all", "of it")

    def restore(self, row: Row, known: Collection[str]) -> None:
        self.told.append(("restore", " ".join(map(str, row))))
        self.known = list(known)


def test_who_bounds_jobs_is_told_of_their_ends_and_heard() -> None:
    """A job that must make room goes at once, its energy to its account; a live one stays."""
    bounds = Bounds()
    node = Node(JobBook(linger_ns=60 * S, owners=bounds))
    node.appears("run:a")
    node.appears("run:b")
    node.second({"run:a": 5, "run:b": 6})
    del node.there["run:a"]
    node.second()
    bounds.displaced = ["run:a", "run:b", "run:c"]
    node.second()
    assert list(node.book.jobs) == ["run:b"]
    assert accounts(node) == {"none": 11}
    assert bounds.told == [("end", "run:a")]
    assert node.book.dropped == {"job_cap": 3, "account_cap": 0}


def test_the_id_of_a_job_that_had_to_make_room_is_free_at_once() -> None:
    """Who takes it in the same look has a job of his own, and not what the other has used."""
    bounds = Bounds()
    node = Node(JobBook(linger_ns=60 * S, owners=bounds))
    node.appears("run:a")
    node.second({"run:a": 5})
    del node.there["run:a"]
    node.second()
    before = node.view("run:a")
    bounds.displaced = ["run:a"]
    node.appears("run:a")
    node.second({"run:a": 7})
    after = node.view("run:a")
    assert (sum(before.energy_uj), sum(after.energy_uj), after.ended) == (5, 7, None)
    assert after.measured_since > before.measured_since
    assert accounts(node) == {"none": 12}
    assert bounds.told == [("end", "run:a")]


def test_whose_jobs_are_is_kept_over_a_restart() -> None:
    """Who has ended is told again, the first first."""
    node = Node(JobBook(linger_ns=60 * S, owners=Bounds()))
    for job_uid in ("run:a", "run:b", "run:c"):
        node.appears(job_uid)
    node.second()
    for job_uid in ("run:b", "run:a"):
        del node.there[job_uid]
        node.second()
    bounds = Bounds()
    book = JobBook(linger_ns=60 * S, owners=bounds)
    book.restore(node.book.dump(), 0, EPOCH + 60)
    assert bounds.told == [("restore", "all of it"), ("end", "run:b"), ("end", "run:a")]
    assert bounds.known == ["run:a", "run:b", "run:c"]


def test_a_job_whose_process_came_and_went_is_one() -> None:
    """Though it used nothing that can be measured: it has a start and an end."""
    bounds = Bounds()
    node = Node(JobBook(linger_ns=60 * S, owners=bounds))
    node.book.begin(EPOCH, Usage(ended=[Process(1, 0, job_uid="run:a")]))
    node.book.close(0, S, {})
    assert node.view("run:a").ended == EPOCH
    assert bounds.told == [("end", "run:a")]
