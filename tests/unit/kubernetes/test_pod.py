"""From a pod's JSON to its job."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kubernetes import pod
from jobwatt.errors import Failed
from jobwatt.kubernetes.pod import (
    JOB_LABELS,
    JobLabel,
    Pod,
    PodRules,
    by_cgroup,
    job_record,
    parse_cpus,
    parse_job_labels,
    parse_pod,
)
from jobwatt.records import Budget, BudgetOrigin, JobRecord

RULES = PodRules()
UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
VICTIM = "99999999-2fa1-11d2-883f-0016d3cca427"
DIGEST = "0123456789abcdef0123456789abcdef"
STATIC = {"kubernetes.io/config.hash": DIGEST, "kubernetes.io/config.source": "file"}
MIRROR = {**STATIC, "kubernetes.io/config.mirror": DIGEST}
JOB = ("Job", "bert", "j-uid")
BATCH = {
    "batch.kubernetes.io/job-name": "bert",
    "batch.kubernetes.io/controller-uid": "j-uid",
    "job-name": "bert",
    "controller-uid": "j-uid",
}


def job_uid(rules: PodRules = RULES, **facts: Any) -> str:  # noqa: ANN401 - as `pod` takes them
    return parse_pod(pod(**facts), rules).job_uid


@pytest.mark.parametrize(
    ("labels", "owner", "expected"),
    [
        # Nothing but an owner, or not even that.
        ({}, None, f"k8s:ml/Pod/bert-0:{UID}"),
        ({}, ("ReplicaSet", "web-6d4", "r-uid"), "k8s:ml/ReplicaSet/web-6d4:r-uid"),
        ({}, ("SparkApplication", "etl", "s-uid"), "k8s:ml/SparkApplication/etl:s-uid"),
        ({"app": "x"}, ("DaemonSet", "agent", "d-uid"), "k8s:ml/DaemonSet/agent:d-uid"),
        # Batch, new and old labels, and a label alone.
        (BATCH, JOB, "k8s:ml/Job/bert:j-uid"),
        ({"job-name": "bert", "controller-uid": "j-uid"}, JOB, "k8s:ml/Job/bert:j-uid"),
        ({"job-name": "bert"}, JOB, "k8s:ml/Job/bert:j-uid"),
        ({"job-name": "bert"}, None, "k8s:ml/Job/bert"),
        ({"job-name": "bert"}, ("Workflow", "bert", "w-uid"), "k8s:ml/Job/bert"),
        # The operator's own label goes before all others.
        ({**BATCH, "jobwatt.io/job": "sweep"}, JOB, "k8s:ml/Job/sweep"),
        # Ray: what the cluster was made for, else the cluster.
        (
            {
                "ray.io/cluster": "r-x7",
                "ray.io/originated-from-cr-name": "r",
                "ray.io/originated-from-crd": "RayJob",
            },
            ("RayCluster", "r-x7", "c-uid"),
            "k8s:ml/RayJob/r",
        ),
        (
            {
                "ray.io/cluster": "r",
                "ray.io/originated-from-cr-name": "r",
                "ray.io/originated-from-crd": "RayCluster",
            },
            ("RayCluster", "r", "c-uid"),
            "k8s:ml/RayCluster/r:c-uid",
        ),
        (
            {"ray.io/cluster": "r-x7"},
            ("RayCluster", "r-x7", "c-uid"),
            "k8s:ml/RayCluster/r-x7:c-uid",
        ),
        # Kubeflow: its operator tells the kind, else the owner.
        (
            {
                "training.kubeflow.org/job-name": "bert",
                "training.kubeflow.org/operator-name": "pytorchjob-controller",
                "training.kubeflow.org/replica-type": "worker",
                "training.kubeflow.org/replica-index": "3",
            },
            ("PyTorchJob", "bert", "p-uid"),
            "k8s:ml/PyTorchJob/bert:p-uid",
        ),
        (
            {"training.kubeflow.org/job-name": "bert"},
            ("NewJob", "bert", "n-uid"),
            "k8s:ml/NewJob/bert:n-uid",
        ),
        (
            {
                "training.kubeflow.org/job-name": "mpi",
                "training.kubeflow.org/operator-name": "mpi-operator",
                **BATCH,
            },
            ("Job", "mpi-launcher", "l-uid"),
            "k8s:ml/MPIJob/mpi",
        ),
        ({"training.kubeflow.org/job-name": "bert"}, None, "k8s:ml/TrainingJob/bert"),
        # JobSet (and Trainer v2) before the batch jobs that it makes.
        (
            {
                "jobset.sigs.k8s.io/jobset-name": "bert",
                "jobset.sigs.k8s.io/jobset-uid": "s-uid",
                "batch.kubernetes.io/job-name": "bert-node-0",
                "batch.kubernetes.io/controller-uid": "j-uid",
            },
            ("Job", "bert-node-0", "j-uid"),
            "k8s:ml/JobSet/bert:s-uid",
        ),
        (
            {"jobset.sigs.k8s.io/jobset-name": "bert"},
            ("Job", "bert-node-0", "j-uid"),
            "k8s:ml/JobSet/bert",
        ),
        ({"volcano.sh/job-name": "v"}, ("Job", "v", "v-uid"), "k8s:ml/Job/v:v-uid"),
        ({"kueue.x-k8s.io/pod-group-name": "g"}, None, "k8s:ml/PodGroup/g"),
        (
            {"kueue.x-k8s.io/pod-group-name": "g", **BATCH},
            JOB,
            "k8s:ml/PodGroup/g",
        ),
        # A static pod's mirror: kubelet makes the node its owner.
        ({}, ("Node", "n1", "n-uid"), "k8s:ml/Node/n1:n-uid"),
    ],
)
def test_the_first_label_names_the_job(
    labels: dict[str, str], owner: tuple[str, str, str] | None, expected: str
) -> None:
    """Then the controlling owner, then the pod; the uid is a label's, or the same owner's."""
    assert job_uid(labels=labels, owner=owner) == expected


def test_the_operator_orders_labels() -> None:
    """Known ones by name, others with their kind and uid; what he leaves out does not count."""
    rules = PodRules(
        parse_job_labels(
            [
                {"label": "example.com/run", "kind": "Run", "uid": "example.com/run-uid"},
                "jobset.sigs.k8s.io/jobset-name",
                "example.com/team-job",
            ]
        )
    )
    assert rules.labels == (
        JobLabel("example.com/run", "Run", "example.com/run-uid"),
        JOB_LABELS[4],
        JobLabel("example.com/team-job", "Job"),
    )
    run = {"example.com/run": "r7", "example.com/run-uid": "u7", **BATCH}
    assert job_uid(rules, labels=run, owner=JOB) == "k8s:ml/Run/r7:u7"
    assert job_uid(rules, labels={"example.com/team-job": "t"}) == "k8s:ml/Job/t"
    assert job_uid(rules, labels={"volcano.sh/job-name": "v"}) == f"k8s:ml/Pod/bert-0:{UID}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("app", "write a list of labels"),
        ([], "write a list of labels"),
        ([7], "7: write a label"),
        ([{"kind": "Run"}], "write a label, or {label"),
        ([{"label": "a", "name": "b"}], "'name': a label has label, kind, uid"),
        ([{"label": "a", "kind": 7}], "'kind': a label has label, kind, uid"),
    ],
)
def test_a_wrong_order_of_labels_is_told(value: object, message: str) -> None:
    """With what is wrong about it."""
    with pytest.raises(ValueError, match=message):
        parse_job_labels(value)


def test_names_queue_deadline_budget_and_cpus() -> None:
    """All that a pod tells of its job; the namespace pays."""
    tree = pod(
        labels={
            **BATCH,
            "kueue.x-k8s.io/queue-name": "ml-gpu",
            "kueue.x-k8s.io/cluster-queue-name": "gpu",
            "jobwatt.io/account": "somebody-else",
        },
        annotations={"jobwatt.io/energy-budget": "25kWh"},
        owner=JOB,
        spec={
            "activeDeadlineSeconds": 3600,
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "2"}}},
                {"name": "c"},
            ],
            "initContainers": [
                {"name": "init", "resources": {"requests": {"cpu": "64"}}},
                {
                    "name": "sidecar",
                    "restartPolicy": "Always",
                    "resources": {"requests": {"cpu": "250m"}},
                },
            ],
        },
    )
    parsed = parse_pod(tree, RULES)
    assert (parsed.namespace, parsed.name, parsed.uid) == ("ml", "bert-0", UID)
    assert parsed.record == JobRecord(
        name="bert",
        account="ml",
        queue="gpu",
        k8s_namespace="ml",
        deadline=dt.datetime(2026, 11, 29, 11, 0, 5, tzinfo=dt.UTC).timestamp(),
        budget=Budget(90e6, BudgetOrigin.ANNOTATION),
        cpus=3.75,
    )


def test_an_account_label_is_believed_where_the_operator_says_so() -> None:
    """A pod without it is its namespace's."""
    rules = PodRules(account_label="example.com/team")
    vision, without = (
        parse_pod(pod(labels=labels), rules).record.account
        for labels in ({"example.com/team": "vision"}, {})
    )
    assert (vision, without) == ("vision", "ml")


def test_a_budget_that_is_none_is_noted() -> None:
    """And counted once for a job, however many pods it has."""
    one, two = (
        parse_pod(pod(uid=uid, annotations={"jobwatt.io/energy-budget": "lots"}), RULES)
        for uid in ("a", "b")
    )
    assert [bad.origin for bad in one.record.bad_budgets] == [BudgetOrigin.ANNOTATION]
    assert job_record([one, two]).bad_budgets == one.record.bad_budgets


def test_pods_of_a_job_tell_together() -> None:
    """The oldest names it, the last deadline counts, and what is over holds no CPUs."""

    def member(uid: str, minute: int, cpus: str, seconds: int, phase: str, queue: str) -> Pod:
        tree = pod(
            uid=uid,
            owner=JOB,
            labels={"kueue.x-k8s.io/queue-name": queue},
            spec={
                "activeDeadlineSeconds": seconds,
                "containers": [{"name": "a", "resources": {"requests": {"cpu": cpus}}}],
            },
            status={"phase": phase, "startTime": "2026-11-29T10:00:00+00:00"},
        )
        tree["metadata"]["creationTimestamp"] = f"2026-11-29T10:{minute:02}:00Z"
        return parse_pod(tree, RULES)

    record = job_record(
        [
            member("a", 7, "2", 60, "Running", "new"),
            member("b", 3, "4", 600, "Pending", "old"),
            member("c", 5, "8", 120, "Succeeded", "ended"),
        ],
        ["GPU-1", "GPU-2", "GPU-1"],
    )
    assert record == JobRecord(
        name="bert",
        account="ml",
        queue="old",
        k8s_namespace="ml",
        deadline=dt.datetime(2026, 11, 29, 10, 10, tzinfo=dt.UTC).timestamp(),
        cpus=6.0,
        gpu_ids=("GPU-1", "GPU-2"),
    )


def test_a_static_pod_is_known_by_its_digest() -> None:
    """Of its mirror in the API, and as kubelet lists it, where that is its uid."""
    mirror = parse_pod(pod("etcd-n1", annotations=MIRROR, owner=("Node", "n1", "n-uid")), RULES)
    assert (mirror.uid, mirror.own_uid) == (DIGEST, UID)
    assert mirror.job_uid == "k8s:ml/Node/n1:n-uid"
    itself = parse_pod(pod("etcd-n1", DIGEST, annotations=STATIC), RULES)
    assert (itself.uid, itself.own_uid) == (DIGEST, DIGEST)


@pytest.mark.parametrize(
    ("annotations", "owner"),
    [
        ({"kubernetes.io/config.hash": "0" * 32}, None),
        (STATIC, ("Node", "n1", "n-uid")),  # kubelet's own note of a file, in the API
        (MIRROR, None),
        (MIRROR, ("Job", "n1", "j-uid")),
        (MIRROR, ("Node", "n2", "n-uid")),
        ({"kubernetes.io/config.mirror": VICTIM}, ("Node", "n1", "n-uid")),
    ],
)
def test_an_annotation_alone_is_any_users_word(
    annotations: dict[str, str], owner: tuple[str, str, str] | None
) -> None:
    """The cgroup of a pod that is no mirror of its own node has the pod's uid."""
    assert parse_pod(pod(annotations=annotations, owner=owner), RULES).uid == UID


def test_of_two_that_claim_a_cgroup_the_older_mirror_has_it() -> None:
    """And whose own uid it is goes before all."""
    at = "2026-11-29T10:00:0{}Z"
    real = Pod("kube-system", "etcd-n1", DIGEST, "etcd", created=at.format(2), own_uid="b")
    late = Pod("evil", "a", DIGEST, "evil", created=at.format(3), own_uid="a")
    assert by_cgroup([late, real]) == by_cgroup([real, late]) == {DIGEST: real}
    itself = Pod("kube-system", "etcd-n1", DIGEST, "own", created=at.format(9), own_uid=DIGEST)
    assert by_cgroup([late, itself, real]) == {DIGEST: itself}


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("2", 2.0),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("2k", 2000.0),
        ("100u", 1e-4),
        (4, 4.0),
        ("", None),
        ("-1", None),
        ("lots", None),
        (True, None),
        (None, None),
    ],
)
def test_quantities_of_cpus(quantity: object, expected: float | None) -> None:
    """As the API writes them."""
    assert parse_cpus(quantity) == (None if expected is None else pytest.approx(expected))


def test_a_pods_own_request_goes_before_its_containers() -> None:
    """Pod-level resources are what the scheduler sets aside."""
    spec = {
        "resources": {"requests": {"cpu": "8"}},
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}],
    }
    assert parse_pod(pod(spec=spec), RULES).record.cpus == 8.0


@pytest.mark.parametrize("tree", [None, [], {}, {"metadata": {}}, {"metadata": {"name": "a"}}])
def test_what_is_no_pod_is_told(tree: object) -> None:
    """Nothing is made up for it."""
    with pytest.raises(Failed, match="is no pod"):
        parse_pod(tree, RULES)


def test_hostile_names_are_shown_in_printable_characters() -> None:
    """An owner's name is any text; it stays within its namespace and within a length."""
    parsed = job_uid(owner=("Ki\nnd", 'a"}\x1b[2J' + "x" * 1000, "u\0"))
    assert parsed.startswith('k8s:ml/Ki\\nnd/a"}\\x1b[2Jxxx')
    assert parsed.endswith("xxx:u\\x00")
    assert (parsed.isprintable(), len(parsed) < 300) == (True, True)


FIELDS = ("labels", "annotations", "ownerReferences", "creationTimestamp", "uid")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(FIELDS, JSON),
    ),
    JSON,
    JSON,
)
def test_any_json_is_a_pod_or_an_error(meta: dict[str, Any], spec: object, status: object) -> None:
    """It is one where its uid is a text, and nothing else is raised."""
    tree = {"metadata": {"name": "a", "namespace": "b", **meta}, "spec": spec, "status": status}
    if isinstance(meta.get("uid"), str) and meta["uid"]:
        assert parse_pod(tree, RULES).job_uid.startswith("k8s:b/")
    else:
        with pytest.raises(Failed, match="is no pod"):
            parse_pod(tree, RULES)
