"""A pod as the API has it: whose it is, and what is told of its job.

Labels, annotations and owner references are the users', within their namespace, which the API
vouches for. So a job's name always begins with its namespace, and what pays is the namespace: a
label that names an account is believed only where the operator says so.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobwatt.errors import Failed
from jobwatt.records import NO_ACCOUNT, BudgetOrigin, JobRecord, budget_of, shown_name

__all__ = [
    "JOB_LABELS",
    "JobLabel",
    "Pod",
    "PodRules",
    "by_cgroup",
    "job_record",
    "parse_cpus",
    "parse_job_labels",
    "parse_pod",
]

BUDGET = "jobwatt.io/energy-budget"
"""Annotation: what the whole job may use."""

_QUEUES = ("kueue.x-k8s.io/cluster-queue-name", "kueue.x-k8s.io/queue-name")

_MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a mirror pod: the digest that is its static pod's uid (kubelet's types.go)."""

_LABEL_KEYS = ("label", "kind", "uid")

_DIGEST = re.compile(r"[0-9a-f]{32}")
_QUANTITY = re.compile(r"(\d{1,12}(?:\.\d{0,12})?)([numk]?)", re.ASCII)
_MULTIPLES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}

MOST_CHARACTERS = 253
"""Of a name or uid, as the API allows them for objects (apimachinery's DNS subdomain)."""


@dataclass(frozen=True, slots=True)
class JobLabel:
    """A label whose value is the name of a job.

    Attributes:
        name: its key.
        kind: what the job is; with `kind_from`, where neither that nor the pod's owner tells.
        uid: the key of the label with the job's uid.
        kind_from: the key of the label that tells the kind.
        kinds: the kind by the value of that label, where the value is not the kind itself.
    """

    name: str
    kind: str = "Job"
    uid: str = ""
    kind_from: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)


_KUBEFLOW = {
    "jaxjob-controller": "JAXJob",
    "mpi-operator": "MPIJob",
    "mpijob-controller": "MPIJob",
    "paddlejob-controller": "PaddleJob",
    "pytorchjob-controller": "PyTorchJob",
    "tfjob-controller": "TFJob",
    "xgboostjob-controller": "XGBoostJob",
}

JOB_LABELS = (
    JobLabel("jobwatt.io/job"),
    JobLabel("ray.io/originated-from-cr-name", "RayJob", kind_from="ray.io/originated-from-crd"),
    JobLabel("ray.io/cluster", "RayCluster"),
    JobLabel(
        "training.kubeflow.org/job-name",
        "TrainingJob",
        kind_from="training.kubeflow.org/operator-name",
        kinds=_KUBEFLOW,
    ),
    JobLabel("jobset.sigs.k8s.io/jobset-name", "JobSet", uid="jobset.sigs.k8s.io/jobset-uid"),
    JobLabel("volcano.sh/job-name"),
    JobLabel("kueue.x-k8s.io/pod-group-name", "PodGroup"),
    JobLabel("batch.kubernetes.io/job-name", uid="batch.kubernetes.io/controller-uid"),
    JobLabel("job-name", uid="controller-uid"),
)
"""What names a job, the first that a pod has holds."""


@dataclass(frozen=True, slots=True)
class PodRules:
    """How jobs are found in pods.

    Attributes:
        labels: what names a job, the first that a pod has holds.
        account_label: what names an account, "" for none: the namespace pays.
    """

    labels: tuple[JobLabel, ...] = JOB_LABELS
    account_label: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Attributes:
        uid: as its cgroup has it.
        own_uid: as the API has it; another only of a mirror pod.
        job_uid: its job.
        record: what it tells of its job; the CPUs are those that it asked for.
        over: whether all that ran in it has ended.
        created: when, as the API writes it.
    """

    namespace: str
    name: str
    uid: str
    job_uid: str
    record: JobRecord = field(default_factory=JobRecord)
    over: bool = False
    created: str = ""
    own_uid: str = ""


def parse_pod(tree: object, rules: PodRules) -> Pod:
    """Read a pod out of its JSON; a value that is not of its kind counts as not there.

    Raises:
        Failed: it is no pod.
    """
    pod = _mapping(tree)
    meta, spec, status = (_mapping(pod.get(key)) for key in ("metadata", "spec", "status"))
    namespace, name, uid = (_text(meta, key) for key in ("namespace", "name", "uid"))
    if not (namespace and name and uid):
        raise Failed("an object without namespace, name and uid is no pod")
    labels, annotations = _mapping(meta.get("labels")), _mapping(meta.get("annotations"))
    kind, owner, owner_uid = _owner(meta, labels, rules, (name, uid))
    suffix = f":{_part(owner_uid)}" if owner_uid else ""
    record = JobRecord(
        name=shown_name(owner),
        account=shown_name(_text(labels, rules.account_label) or namespace) or NO_ACCOUNT,
        queue=shown_name(next((_text(labels, key) for key in _QUEUES if key in labels), "")),
        k8s_namespace=shown_name(namespace),
        deadline=_deadline(spec, status),
        cpus=_requested_cpus(spec),
    ).over(budget_of(_text(annotations, BUDGET), BudgetOrigin.ANNOTATION))
    return Pod(
        namespace,
        name,
        _cgroup_uid(uid, meta, _text(spec, "nodeName")),
        f"k8s:{_part(namespace)}/{_part(kind)}/{_part(owner)}{suffix}",
        record,
        over=_text(status, "phase") in {"Succeeded", "Failed"},
        created=_text(meta, "creationTimestamp"),
        own_uid=uid,
    )


def by_cgroup(pods: Iterable[Pod]) -> dict[str, Pod]:
    """Return pods by the uid of their cgroup.

    A pod's own uid is its own, whatever others say of themselves; of two mirrors the older holds:
    kubelet makes it when it starts the static pod, and removes what is made beside it.
    """
    found: dict[str, Pod] = {}
    for pod in sorted(pods, key=lambda pod: (pod.uid != pod.own_uid, pod.created, pod.own_uid)):
        found.setdefault(pod.uid, pod)
    return found


def job_record(pods: Iterable[Pod], gpu_ids: Iterable[str] = ()) -> JobRecord:
    """Return what the pods of one job on this node tell together.

    Names are the oldest pod's, the deadline is the last one, and CPUs add up.
    """
    by_age = sorted(pods, key=lambda pod: (pod.created, pod.name, pod.uid))
    record = JobRecord()
    for pod in by_age:
        record = record.over(pod.record)
    deadlines = [pod.record.deadline for pod in by_age]
    cpus = [pod.record.cpus for pod in by_age if not pod.over]
    return replace(
        record,
        deadline=max((deadline for deadline in deadlines if deadline is not None), default=None),
        bad_budgets=record.bad_budgets[:1],  # one origin; its pods may be thousands
        cpus=sum(amount for amount in cpus if amount is not None) or None,
        gpu_ids=tuple(dict.fromkeys(gpu_ids)),
    )


def parse_job_labels(value: object) -> tuple[JobLabel, ...]:
    """Read the operator's order of labels: names, or `{label: …, kind: …, uid: …}`.

    Raises:
        ValueError: it is no such list; the message says what is wrong.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("write a list of labels, the first that a pod has holds")
    known = {label.name: label for label in JOB_LABELS}
    found: list[JobLabel] = []
    for entry in value:
        if isinstance(entry, str):
            found.append(known.get(entry, JobLabel(entry)))
            continue
        if not isinstance(entry, dict) or not _text(entry, "label"):
            raise ValueError(f"{entry!r:.80}: write a label, or {{label: …, kind: …, uid: …}}")
        wrong = [k for k, v in entry.items() if k not in _LABEL_KEYS or not isinstance(v, str)]
        if wrong:
            raise ValueError(f"{wrong[0]!r:.80}: a label has {', '.join(_LABEL_KEYS)}, all texts")
        found.append(JobLabel(entry["label"], _text(entry, "kind") or "Job", _text(entry, "uid")))
    return tuple(found)


def parse_cpus(quantity: object) -> float | None:
    """Return the CPUs of a quantity such as `500m` or `2`; None for what is none."""
    if isinstance(quantity, int | float) and not isinstance(quantity, bool):
        quantity = str(quantity)
    found = _QUANTITY.fullmatch(quantity) if isinstance(quantity, str) else None
    return None if found is None else float(found[1]) * _MULTIPLES[found[2]]


def _owner(
    meta: Mapping[str, Any], labels: Mapping[str, Any], rules: PodRules, itself: tuple[str, str]
) -> tuple[str, str, str]:
    """Return kind, name and uid ("" where nothing tells it) of the job that a pod belongs to."""
    controller = _controller(meta)
    owner_kind, owner_name = _text(controller, "kind"), _text(controller, "name")
    for label in rules.labels:
        name = _text(labels, label.name)
        if not name:
            continue
        kind = _kind(label, labels)
        if not kind and owner_name == name:
            kind = owner_kind
        kind = kind or label.kind
        same = (owner_kind, owner_name) == (kind, name)
        return kind, name, _text(labels, label.uid) or (_text(controller, "uid") if same else "")
    if owner_kind and owner_name:
        return owner_kind, owner_name, _text(controller, "uid")
    return "Pod", *itself


def _controller(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    references = [_mapping(reference) for reference in _list(meta.get("ownerReferences"))]
    return next((r for r in references if r.get("controller") is True), {})


def _kind(label: JobLabel, labels: Mapping[str, Any]) -> str:
    """Return what kind of job a label names, "" where the pod's labels do not tell."""
    if not label.kind_from:
        return label.kind
    told = _text(labels, label.kind_from)
    return label.kinds.get(told, "") if label.kinds else told


def _cgroup_uid(uid: str, meta: Mapping[str, Any], node: str) -> str:
    """Return a pod's uid as its node has it: of a static pod's mirror, the digest of its file.

    An annotation alone is any user's word. A mirror is owned by its node, and one that kubelet has
    not made has no containers: kubelet runs none for it, and removes it.
    """
    digest = _text(_mapping(meta.get("annotations")), _MIRROR)
    owner = _controller(meta)
    is_mirror = _text(owner, "kind") == "Node" and _text(owner, "name") == node
    return digest if is_mirror and _DIGEST.fullmatch(digest) else uid


def _deadline(spec: Mapping[str, Any], status: Mapping[str, Any]) -> float | None:
    """Return when kubelet will end a pod, Unix time."""
    seconds = spec.get("activeDeadlineSeconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds <= 0:
        return None
    try:
        started = dt.datetime.fromisoformat(_text(status, "startTime"))
        return (started + dt.timedelta(seconds=seconds)).timestamp()
    except (ValueError, OverflowError):
        return None


def _requested_cpus(spec: Mapping[str, Any]) -> float | None:
    """Return the CPUs that the scheduler has set aside for a pod."""
    whole = _request(spec)
    if whole is not None:  # of the pod itself; containers only divide it
        return whole or None
    sidecars = (
        container
        for container in map(_mapping, _list(spec.get("initContainers")))
        if container.get("restartPolicy") == "Always"
    )
    containers = (*map(_mapping, _list(spec.get("containers"))), *sidecars)
    return sum(_request(container) or 0.0 for container in containers) or None


def _request(holder: Mapping[str, Any]) -> float | None:
    requests = _mapping(_mapping(holder.get("resources")).get("requests"))
    return parse_cpus(requests.get("cpu"))


def _part(text: str) -> str:
    """Return a name as a part of a `job_uid`: printable, and no longer than the API's longest."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:MOST_CHARACTERS])
    return text[:MOST_CHARACTERS]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(tree: Mapping[str, Any], key: str) -> str:
    value = tree.get(key)
    return value if isinstance(value, str) else ""
