"""What is deployed: valid for the tools that read it, with no more privileges than it needs."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import jobwatt
from jobwatt.cli import cli
from jobwatt.config import SETTINGS, Config, load_config
from jobwatt.grid_app import make_plan

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DEMO = ROOT / "deploy/docker/demo.yml"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
BASE = ROOT / "deploy/kubernetes/base"
GRID = ROOT / "deploy/kubernetes/components/grid"
UNIT = ROOT / "deploy/systemd/jobwatt.service"
IMAGE = f"ghcr.io/jobwatt/jobwatt:{jobwatt.__version__}"
PORT, GRID_PORT = 9743, 9744
APPLY = "kubectl apply -k deploy/kubernetes/base"
KINDS = [
    "ClusterRole",
    "ClusterRoleBinding",
    "DaemonSet",
    "Namespace",
    "PodMonitor",
    "ServiceAccount",
]
MOST_EXPOSED = 2.5
"""Of systemd-analyze's 10; the two capabilities and the network make up the most of it."""

# Neither is among Debian's packages in a version that will do; CONTRIBUTING.md says so.
needs_compose = pytest.mark.skipif(not shutil.which("docker-compose"), reason="no docker-compose")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")

POD_MONITOR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "jobLabel": {"type": "string"},
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["matchLabels"],
                    "properties": {"matchLabels": {"additionalProperties": {"type": "string"}}},
                },
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                            "scrapeTimeout": {"type": "string", "pattern": "^[0-9]+s$"},
                            "relabelings": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "properties": {
                                        "action": {"enum": ["replace", "labeldrop"]},
                                        "sourceLabels": {
                                            "type": "array",
                                            "items": {"type": "string"},
                                        },
                                        "targetLabel": {"type": "string"},
                                        "regex": {"type": "string"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
"""What we use of the operator's PodMonitor; a field beyond it is added here on purpose."""


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment, or else of the machine."""
    beside = Path(sys.executable).with_name(name)
    command = [str(beside) if beside.exists() else name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def accepted(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def services(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return found


def manifest(kind: str) -> dict[str, Any]:
    """Return the one object of a kind in the base."""
    (found,) = [
        document
        for path in BASE.glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == kind
    ]
    return dict(found)


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("DaemonSet")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)


def grid_pod() -> dict[str, Any]:
    """Return the pod of the one grid exporter."""
    deployment = yaml.safe_load((GRID / "deployment.yaml").read_text())
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def grid_container() -> dict[str, Any]:
    (found,) = grid_pod()["containers"]
    return dict(found)


def unit_settings() -> dict[str, list[str]]:
    """Return the lines of the unit's [Service], by key."""
    section, found = "", dict[str, list[str]]()
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif "=" in line and not line.startswith("#") and section == "[Service]":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def instructions(word: str) -> list[str]:
    """Return what follows a word of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    return [line[len(word) :].strip() for line in text.splitlines() if line.startswith(f"{word} ")]


def understood(arguments: list[str]) -> None:
    """Let the command line itself read a command with its flags."""
    name, *flags = arguments
    with click.Context(cli) as context:
        command = cli.get_command(context, name)
        assert command is not None, f"there is no command {name}"
        command.make_context(name, flags, parent=context)


# --- one version, flags that exist, files that exist --------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(lambda: services(COMPOSE)["exporter"]["image"], id="compose"),
        pytest.param(lambda: services(COMPOSE)["grid"]["image"], id="compose-grid"),
        pytest.param(lambda: services(DEMO)["exporter"]["image"], id="demo"),
        pytest.param(lambda: container()["image"], id="kubernetes"),
        pytest.param(lambda: grid_container()["image"], id="kubernetes-grid"),
        pytest.param(
            lambda: "ghcr.io/jobwatt/jobwatt:" + instructions("ARG")[1].partition("=")[2],
            id="dockerfile",
        ),
    ],
)
def test_image_is_this_version(image: Callable[[], str]) -> None:
    """Every place that names our image names the version of the package."""
    assert image() == IMAGE


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(lambda: services(COMPOSE)["exporter"]["command"], id="compose"),
        pytest.param(lambda: services(COMPOSE)["grid"]["command"], id="compose-grid"),
        pytest.param(lambda: services(DEMO)["exporter"]["command"], id="demo"),
        pytest.param(lambda: container()["args"], id="kubernetes"),
        pytest.param(lambda: grid_container()["args"], id="kubernetes-grid"),
        pytest.param(lambda: json.loads(instructions("CMD")[0]), id="dockerfile"),
        pytest.param(lambda: shlex.split(unit_settings()["ExecStart"][0])[1:], id="systemd"),
    ],
)
def test_flags_exist(arguments: Callable[[], list[str]]) -> None:
    """A flag that has been renamed is found before a node finds it."""
    understood(arguments())


def test_unknown_flag_is_noticed() -> None:
    """The check above sees a wrong flag, and one of another command."""
    with pytest.raises(click.NoSuchOption):
        understood(["serve", "--path.sys=/host/sys"])
    with pytest.raises(click.NoSuchOption):
        understood(["simulate", "--path.sysfs=/host/sys"])


def test_variables_of_the_instructions_exist() -> None:
    """Each `JOBWATT_…=` that a file here tells to set is one that is read."""
    known = {setting.variable for setting in SETTINGS if setting.metavar}
    named = {
        name
        for path in (ROOT / "deploy").rglob("*")
        if path.is_file()
        for name in re.findall(r"\b(JOBWATT_[A-Z_]+)=", path.read_text())
    }
    assert named
    assert named <= known


@pytest.mark.parametrize("path", [COMPOSE, DEMO], ids=["compose", "demo"])
def test_mounted_files_exist(path: Path) -> None:
    """What compose mounts or builds from is there: an engine would make an empty folder of it."""
    for service in services(path).values():
        here = [v.partition(":")[0] for v in service.get("volumes", []) if v.startswith(".")]
        if "build" in service:
            context = service["build"]["context"]
            here += [context, f"{context}/{service['build']['dockerfile']}"]
        for name in here:
            assert (path.parent / name).exists(), name


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_configuration_is_where_the_server_looks(name: str) -> None:
    """The server's --config.file lies in what is mounted, under the name it has here."""
    service = services(COMPOSE)[name]
    (flag,) = [a for a in service["command"] if a.startswith("--config.file=")]
    inside = Path(flag.partition("=")[2])
    mounts = [volume.split(":") for volume in service["volumes"]]
    (source,) = [source for source, target, *_ in mounts if target == str(inside.parent)]
    assert (ROOT / source / inside.name).is_file()


def test_build_sees_what_it_copies() -> None:
    """.dockerignore lets through exactly what the Dockerfile copies."""
    copied = [
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    ]
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied)
    assert all((ROOT / source).exists() for source in copied)


# --- compose ------------------------------------------------------------------------------------


def test_compose_files_are_valid() -> None:
    """Both files follow the compose specification."""
    accepted(tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE, DEMO))


def test_compose_files_are_whole() -> None:
    """Every `extends` leads to a service, every named volume is declared."""
    for path in (COMPOSE, DEMO):
        declared = set(yaml.safe_load(path.read_text())["volumes"])
        used = set[str]()
        for name, service in services(path).items():
            if extends := service.get("extends"):
                assert (path.parent / extends["file"]).resolve() == COMPOSE
                assert extends["service"] == name
                service = services(COMPOSE)[name]  # noqa: PLW2901 - the one that it stands for
            sources = (volume.partition(":")[0] for volume in service.get("volumes", []))
            used |= {source for source in sources if source[0] not in "./"}
        assert used == declared


@needs_compose
@pytest.mark.parametrize("path", [COMPOSE, DEMO], ids=["compose", "demo"])
def test_compose_understands_its_files(path: Path) -> None:
    """By its own reading."""
    accepted(tool("docker-compose", "-f", path, "config", "--quiet"))


ALL_SERVICES = [
    *[pytest.param(s, id=f"compose-{name}") for name, s in services(COMPOSE).items()],
    pytest.param(services(DEMO)["exporter"], id="demo-exporter"),
]


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_compose_gives_no_power_away(service: dict[str, Any]) -> None:
    """No capability, no new privileges, a read-only root, ports on this machine only."""
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "devices", "network_mode", "ipc"} & service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_compose_mounts_the_host_read_only(service: dict[str, Any]) -> None:
    """What comes from the host or the repository is read; what is written is a named volume."""
    for volume in service.get("volumes", []):
        source, _, *mode = volume.split(":")
        assert mode == (["ro"] if source[0] in "./" else [])


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_compose_pins_and_probes(service: dict[str, Any]) -> None:
    """Each image has a full version and a health check (the exporter's is in its Dockerfile)."""
    assert re.fullmatch(r"[a-z./-]+:v?\d+\.\d+\.\d+", service["image"])
    assert "healthcheck" in service or service["image"] == IMAGE
    assert instructions("HEALTHCHECK")


def test_compose_exporter_sees_the_machine() -> None:
    """The exporter is uid 0 of the machine, in its PID and cgroup namespaces."""
    exporter = services(COMPOSE)["exporter"]
    assert exporter["user"] == "0:0"
    assert (exporter["pid"], exporter["cgroup"], exporter["userns_mode"]) == ("host",) * 3


def test_compose_grid_is_nobody_and_probed() -> None:
    """It needs no power; its check is the image's, on its own port."""
    grid = services(COMPOSE)["grid"]
    assert grid["user"] == "65534:65534"
    assert not {"pid", "cgroup", "userns_mode"} & grid.keys()
    (line,) = instructions("HEALTHCHECK")
    code = json.loads(line[line.index("[") :])[-1].replace(str(PORT), str(GRID_PORT))
    assert grid["healthcheck"]["test"] == ["CMD", "python", "-ISc", code]


@pytest.mark.parametrize(
    "path", [ROOT / "deploy/docker/grid/zones.yml", GRID / "jobwatt.yml"], ids=["compose", "k8s"]
)
def test_shipped_zones_are_right(path: Path) -> None:
    """What is shipped can be read, also with its examples, and has the zone of the exporters."""
    plan = make_plan(load_config({"config.file": str(path)}, {}, command="grid"), {})
    assert [site.zone for site in plan.snapshot.sites] == ["WORLD"]


def test_examples_of_zones_are_right(tmp_path: Path) -> None:
    """The lines that are commented out work without their mark."""
    text = (ROOT / "deploy/docker/grid/zones.yml").read_text()
    path = tmp_path / "zones.yml"
    path.write_text(re.sub(r"^( *)# (?=[A-Z]{2}: |account_|  - )", r"\1", text, flags=re.MULTILINE))
    plan = make_plan(load_config({"config.file": str(path)}, {}, command="grid"), {})
    assert [site.zone for site in plan.snapshot.sites] == ["WORLD", "FR", "GB"]
    assert [budget.account for budget in plan.snapshot.budgets] == ["vision"]


@pytest.mark.parametrize("path", [COMPOSE, DEMO], ids=["compose", "demo"])
def test_compose_zone_is_exported(path: Path) -> None:
    """The exporter's zone is one that the grid exporter knows, as shipped."""
    zone = services(path)["exporter"]["environment"]["JOBWATT_GRID_ZONE"]
    assert zone == "${GRID_ZONE:-WORLD}"


def test_demo_reads_nothing_of_the_machine() -> None:
    """The made-up node runs as nobody, with no mount and no namespace of the host."""
    demo = services(DEMO)["exporter"]
    assert demo["command"] == ["simulate", "--scenario=slurm-node"]
    assert demo["user"] == "65534:65534"
    assert not {"pid", "cgroup", "userns_mode", "volumes"} & demo.keys()


# --- image --------------------------------------------------------------------------------------


def test_dockerfile_is_clean() -> None:
    """Hadolint has nothing to say."""
    accepted(tool("hadolint", DOCKERFILE))


def test_base_image_is_pinned() -> None:
    """Both stages come from one image with a full version."""
    name, _, image = instructions("ARG")[0].partition("=")
    assert name == "BASE"
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-[a-z]+", image)
    assert {line.split()[0] for line in instructions("FROM")} == {"${BASE}"}


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/-/healthy" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def answering() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def probe(port: int) -> int:
    """Run the image's health check against another port."""
    (line,) = instructions("HEALTHCHECK")
    program, *arguments = json.loads(line[line.index("[") :])
    assert program == "python"
    code = arguments.pop()
    assert code.count(str(PORT)) == 1
    command = [sys.executable, *arguments, code.replace(str(PORT), str(port))]
    return subprocess.run(command, check=False, capture_output=True).returncode


def test_health_check_follows_the_answer(
    answering: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image's own check passes on 200 and fails on 503."""
    assert probe(answering.server_port) == 0
    monkeypatch.setattr(_Answer, "status", 503)
    assert probe(answering.server_port) == 1


def test_health_check_fails_where_nobody_listens() -> None:
    """A dead exporter is not healthy."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert probe(bound.getsockname()[1]) == 1


# --- Kubernetes ---------------------------------------------------------------------------------


def test_kustomization_names_every_file() -> None:
    """Nothing lies in the base that is not applied, and nothing is missing."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    there = {path.name for path in BASE.iterdir()} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there
    assert kustomization["namespace"] == manifest("Namespace")["metadata"]["name"]


def pod_monitor_result(folder: Path, monitor: object) -> subprocess.CompletedProcess[str]:
    schema, instance = folder / "schema.json", folder / "monitor.json"
    schema.write_text(json.dumps(POD_MONITOR_SCHEMA))
    instance.write_text(json.dumps(monitor))
    return tool("check-jsonschema", "--schemafile", schema, instance)


def check_objects(folder: Path, text: str) -> None:
    """Validate objects of Kubernetes strictly, PodMonitors by our own schema."""
    builtin = []
    for document in yaml.safe_load_all(text):
        if document["kind"] == "PodMonitor":
            accepted(pod_monitor_result(folder, document))
        else:
            builtin.append(document)
    path = folder / "builtin.yaml"
    path.write_text(yaml.safe_dump_all(builtin))
    if builtin:
        accepted(tool("kubernetes-validate", "--strict", path))


@pytest.mark.parametrize(
    "path", sorted(set(BASE.glob("*.yaml")) - {BASE / "kustomization.yaml"}), ids=lambda p: p.name
)
def test_manifest_is_valid(path: Path, tmp_path: Path) -> None:
    """Each file is valid by itself, with no field that Kubernetes does not know."""
    check_objects(tmp_path, path.read_text())


def test_base_is_whole() -> None:
    """One object of each kind."""
    kinds = [
        d["kind"] for path in BASE.glob("*.yaml") for d in yaml.safe_load_all(path.read_text())
    ]
    assert sorted(kinds) == sorted([*KINDS, "Kustomization"])


def test_grid_component_is_whole(tmp_path: Path) -> None:
    """It names its files; its objects are valid; what its pod mounts is what it makes."""
    kustomization = yaml.safe_load((GRID / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Component"
    (made,) = kustomization["configMapGenerator"]
    named = {*kustomization["resources"], *made["files"], "kustomization.yaml"}
    assert {path.name for path in GRID.iterdir()} == named
    for name in kustomization["resources"]:
        check_objects(tmp_path, (GRID / name).read_text())
    config, tokens = grid_pod()["volumes"]
    assert config["configMap"]["name"] == made["name"] == "jobwatt-grid"
    assert tokens["secret"]["optional"] is True
    assert grid_container()["args"][1] == f"--config.file=/etc/jobwatt/{made['files'][0]}"


def test_grid_runs_once_and_without_power() -> None:
    """One pod at a time, as nobody, with nothing of its node."""
    spec = yaml.safe_load((GRID / "deployment.yaml").read_text())["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert grid_pod()["securityContext"]["runAsNonRoot"] is True
    assert grid_pod()["automountServiceAccountToken"] is False
    assert grid_container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & grid_pod().keys()
    assert not [volume for volume in grid_pod()["volumes"] if "hostPath" in volume]
    assert grid_container()["ports"] == [{"name": "metrics", "containerPort": GRID_PORT}]
    for probe_name, path in (("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")):
        assert grid_container()[probe_name]["httpGet"] == {"path": path, "port": "metrics"}


def test_grid_is_one_instance_of_its_own_job() -> None:
    """The PodMonitor finds its pod, not the exporters', and a rollout begins no new series."""
    spec = yaml.safe_load((GRID / "deployment.yaml").read_text())["spec"]
    monitor = yaml.safe_load((GRID / "podmonitor.yaml").read_text())["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == monitor["selector"]["matchLabels"] == labels
    assert labels[monitor["jobLabel"]] == "jobwatt-grid"
    base = manifest("PodMonitor")["spec"]["selector"]["matchLabels"]
    assert not base.items() <= labels.items()
    replace, drop = monitor["podMetricsEndpoints"][0]["relabelings"]
    assert replace["targetLabel"] == "instance"
    assert drop["regex"] == "pod|container"


@needs_kubectl
def test_kustomize_output_is_valid(tmp_path: Path) -> None:
    """What is applied is what its parts are, and valid too."""
    text = accepted(tool("kubectl", "kustomize", BASE))
    check_objects(tmp_path, text)
    kinds = [document["kind"] for document in yaml.safe_load_all(text)]
    assert sorted(kinds) == KINDS


def test_instructions_apply_alike() -> None:
    """One command, wherever it is told."""
    pages = [ROOT / "README.md", *(ROOT / "deploy").rglob("*.md")]
    told = [c for page in pages for c in re.findall(r"kubectl apply [^\n`]*", page.read_text())]
    assert len(told) >= 3
    assert set(told) == {APPLY}


def test_wrong_manifest_is_noticed(tmp_path: Path) -> None:
    """The checks above see a field that does not exist, in both kinds of schema."""
    daemonset = manifest("DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostPid"] = True
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(daemonset))
    assert tool("kubernetes-validate", "--strict", wrong).returncode != 0
    monitor = manifest("PodMonitor")
    monitor["spec"]["podMetricsEndpoints"][0]["relabeling"] = []
    assert pod_monitor_result(tmp_path, monitor).returncode != 0


def test_pod_has_no_power() -> None:
    """Uid 0 for the counters, and nothing else of root."""
    assert container()["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert manifest("ServiceAccount")["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostIPC", "initContainers"} & pod().keys()


def test_pod_sees_the_node() -> None:
    """The node's pids; its /sys and passwd read-only, and one writable folder."""
    assert pod()["hostPID"] is True
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod()["volumes"]}
    mounts = {
        paths[mount["name"]]: (mount["mountPath"], mount.get("readOnly", False))
        for mount in container()["volumeMounts"]
    }
    assert mounts == {
        "/sys": ("/host/sys", True),
        "/etc/passwd": ("/host/root/etc/passwd", True),
        "/var/lib/kubelet/pod-resources": ("/host/root/var/lib/kubelet/pod-resources", True),
        "/var/lib/jobwatt": ("/var/lib/jobwatt", False),
    }


def test_pod_reads_pods_and_nothing_else() -> None:
    """Its account may get, list and watch pods; the pod has its token and its node's name."""
    assert pod()["automountServiceAccountToken"] is True
    assert pod()["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert manifest("ClusterRole")["rules"] == rules
    binding = manifest("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == manifest("ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": pod()["serviceAccountName"], "namespace": "jobwatt"}
    ]
    node_name = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert container()["env"] == [{"name": "NODE_NAME", "valueFrom": node_name}]


def test_pod_mounts_the_kubelets_socket_where_it_is_looked_for() -> None:
    """Below path.rootfs, as the settings have it."""
    (flag,) = [a for a in container()["args"] if a.startswith("--path.rootfs=")]
    config = Config(path_rootfs=Path(flag.partition("=")[2]))
    mounted = [mount["mountPath"] for mount in container()["volumeMounts"]]
    assert str(config.pod_resources.parent) in mounted


def test_image_has_the_extra() -> None:
    """What speaks to the kubelet's socket is installed in it."""
    (line,) = [line for line in instructions("RUN") if "pip wheel" in line]
    assert '"jobwatt[kubernetes] @ file://' in line


def test_pod_runs_on_every_node() -> None:
    """Taints do not stop it, full nodes neither, and a rollout goes step by step."""
    assert pod()["tolerations"] == [{"operator": "Exists"}]
    assert pod()["priorityClassName"] == "system-node-critical"
    strategy = manifest("DaemonSet")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == "10%"


def test_pod_is_bounded_and_probed() -> None:
    """Memory is limited, CPU is not throttled, and both probes ask the exporter's port."""
    resources = container()["resources"]
    assert resources["limits"] == {"memory": "96Mi"}
    assert resources["requests"] == {"cpu": "10m", "memory": "64Mi"}
    assert container()["ports"] == [{"name": "metrics", "containerPort": PORT}]
    for probe_name, path in (("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")):
        assert container()[probe_name]["httpGet"] == {"path": path, "port": "metrics"}


def test_selectors_find_the_pods() -> None:
    """The DaemonSet and the PodMonitor select by labels that the pods carry."""
    spec = manifest("DaemonSet")["spec"]
    monitor = manifest("PodMonitor")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    for selector in (spec["selector"], monitor["selector"]):
        assert selector["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "jobwatt"


def test_instance_is_the_node() -> None:
    """A rollout begins no new series: no label of a target names a pod."""
    (endpoint,) = manifest("PodMonitor")["spec"]["podMetricsEndpoints"]
    replace, drop = endpoint["relabelings"]
    assert replace == {
        "sourceLabels": ["__meta_kubernetes_pod_node_name"],
        "targetLabel": "instance",
    }
    assert drop["action"] == "labeldrop"
    dropped = re.compile(drop["regex"])
    assert all(dropped.fullmatch(label) for label in ("pod", "container"))
    assert not any(dropped.fullmatch(label) for label in ("instance", "job", "namespace"))


# --- systemd ------------------------------------------------------------------------------------


def test_unit_has_two_capabilities() -> None:
    """A user of its own with what RAPL and the environments need, and no way to more."""
    unit = unit_settings()
    assert unit["DynamicUser"] == ["yes"]
    assert unit["AmbientCapabilities"] == ["CAP_DAC_READ_SEARCH CAP_SYS_PTRACE"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["StateDirectory"] == ["jobwatt"]
    assert unit["EnvironmentFile"] == ["-/etc/default/jobwatt"]
    assert unit["Restart"] == ["on-failure"]
    assert "MemoryMax" in unit


def test_unit_hides_nothing() -> None:
    """What would hide other users' processes or take root's files away is off, in so many words."""
    unit = unit_settings()
    assert (unit["ProtectProc"], unit["ProcSubset"], unit["PrivateUsers"]) == (
        ["default"],
        ["all"],
        ["no"],
    )


def test_systemd_knows_every_line(tmp_path: Path) -> None:
    """The unit is read without a word, and found well closed."""
    assert all(len(v) == 1 for k, v in unit_settings().items() if k != "SystemCallFilter")
    here = tmp_path / UNIT.name
    program = unit_settings()["ExecStart"][0].split()[0]
    # It wants the program to be there.
    here.write_text(UNIT.read_text().replace(program, shutil.which("true") or "/bin/true"))
    verified = tool("systemd-analyze", "verify", "--man=no", here)
    assert (verified.returncode, verified.stderr) == (0, "")
    threshold = round(MOST_EXPOSED * 10)
    accepted(tool("systemd-analyze", "security", "--offline=yes", f"--threshold={threshold}", here))


# --- alerts -------------------------------------------------------------------------------------


def test_alertmanager_sends_nothing_into_the_void() -> None:
    """As shipped no receiver names an address that nobody serves; how to set one is told."""
    config = yaml.safe_load((ROOT / "prometheus/alertmanager.yml").read_text())
    assert config["receivers"] == [{"name": config["route"]["receiver"]}]
    hosts = services(COMPOSE)["alertmanager"]["extra_hosts"]
    assert hosts == ["host.docker.internal:host-gateway"]
    assert "host.docker.internal" in (ROOT / "deploy/docker/README.md").read_text()


# --- Debian's packages --------------------------------------------------------------------------


def packages(which: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("bash") or "bash", str(ROOT / "tools/packages.sh"), which]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("stack", {"prometheus", "prometheus-alertmanager"}),
        (
            "test",
            {
                "prometheus",
                "prometheus-alertmanager",
                "prometheus-node-exporter",
                "prometheus-process-exporter",
                "chromium",
                "gcc",
                "systemd",
                "victoria-metrics",
            },
        ),
    ],
)
def test_packages_are_those_of_the_task(tmp_path: Path, which: str, wanted: set[str]) -> None:
    """Whoever is not root is told what to install: for the stack, only its servers."""
    fake = tmp_path / "id"
    fake.write_text("#!/bin/sh\necho 1000\n")
    fake.chmod(0o755)
    result = packages(which, PATH=str(tmp_path))
    assert result.returncode == 1
    told = result.stderr.partition("sudo apt-get install --no-install-recommends ")[2]
    assert set(told.split()) == wanted


def test_packages_have_two_sets() -> None:
    """A set that does not exist is told, with those that do."""
    result = packages("everything")
    assert result.returncode == 2
    assert "stack|test" in result.stderr


# --- all YAML -----------------------------------------------------------------------------------


def yaml_files() -> set[Path]:
    """Return every YAML file, from the top; folders that begin with a dot are tools' own."""
    paths = {path.relative_to(ROOT) for path in ROOT.rglob("*.y*ml")}
    mine = {p for p in paths if not any(part.startswith(".") for part in p.parts[:-1])}
    return mine | {p for p in paths if p.parts[0] == ".github"} | {Path(".yamllint")}


def test_all_yaml_is_clean() -> None:
    """Yamllint has nothing to say about any file."""
    files = yaml_files()
    assert {COMPOSE.relative_to(ROOT), DEMO.relative_to(ROOT)} <= files
    accepted(tool("yamllint", "--strict", *sorted(files)))
