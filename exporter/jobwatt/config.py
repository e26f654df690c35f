"""One frozen configuration out of flags, environment and a YAML file, in this order.

Every setting has one dotted name: `--sample.interval` on the command line,
`JOBWATT_SAMPLE_INTERVAL` in the environment, `sample: {interval: 1s}` in the file. Keys of the file
that no setting has are errors; unknown variables are not, since Kubernetes injects some.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jobwatt.attribution.policy import DramPolicy
from jobwatt.budgets import (
    KEYS,
    PERIODS,
    AccountBudget,
    BudgetRule,
    parse_account_budgets,
    parse_rules,
)
from jobwatt.errors import ReadError, UsageError
from jobwatt.host.files import read_bytes
from jobwatt.kubernetes.pod import JOB_LABELS, JobLabel, PodRules, parse_job_labels
from jobwatt.units import duration_seconds

__all__ = ["SETTINGS", "Config", "Setting", "load_config"]

_MOST_SHOWN = 40
MOST = 1e12
"""No setting means anything beyond this; in microunits it is still an exact integer."""

LEAST_INTERVAL, MOST_INTERVAL = 0.2, 60.0


def _path(value: object) -> Path:
    return Path(_text(value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _duration(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no duration; write it like 90s, 10m or 500ms")
    return duration_seconds(str(value))


def _interval(value: object) -> float:
    seconds = _duration(value)
    if not LEAST_INTERVAL <= seconds <= MOST_INTERVAL:
        raise ValueError(f"{value!r} is outside of 0.2s to 60s")
    return seconds


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _number(value: object) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except OverflowError:
        number = MOST * 10
    except (TypeError, ValueError):
        number = float("nan")
    if not number >= 0 or number == float("inf"):
        raise ValueError(f"{_shown(value)} is not a number ≥ 0")
    if number > MOST:
        raise ValueError(f"{_shown(value)} is more than {MOST:g}")
    return number


def _at_least_one(value: object) -> float:
    number = _number(value)
    if number < 1:
        raise ValueError(f"{_shown(value)} is less than 1")
    return number


def _count(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        # YAML 1.1 reads a bare `off` as false.
        word = "off" if value is False and "off" in words else value
        if word not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(word)

    return parse


def _watts_by_pattern(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError('write it as {"package-*": 20.0}')
    return {_text(pattern): _number(watts) for pattern, watts in value.items()}


def _by_name(value: object) -> dict[object, object]:
    """Return a mapping; what it holds is read by the command that it is for."""
    if not isinstance(value, dict):
        raise ValueError(f"a mapping of names is expected, not {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted name, how a value is read, and what it says in `--help`.

    `metavar` is None for what can be set in the file only; `reader` names the one command that
    reads it, where the others leave it unread, so that they may share a file.
    """

    name: str
    parse: Callable[[object], Any]
    help: str
    metavar: str | None
    reader: str = ""

    @property
    def field(self) -> str:
        """Its name in `Config`, and as a YAML path with dots for underscores."""
        return self.name.replace(".", "_").replace("-", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"JOBWATT_{self.field.upper()}"


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one run; durations in seconds."""

    web_listen_address: str = ":9743"
    web_telemetry_path: str = "/metrics"
    web_config_file: Path | None = None
    path_procfs: Path = Path("/proc")
    path_sysfs: Path = Path("/sys")
    path_rootfs: Path = Path("/")
    path_cgroupfs: Path | None = None
    state_directory: Path = Path("/var/lib/jobwatt")
    sample_interval: float = 1.0
    cpu_estimate: str = "auto"
    cpu_tdp: float | None = None
    dram_policy: str = DramPolicy.MEMORY.value
    process_min_joules: float = 10.0
    process_max: int = 200
    process_linger: float = 120.0
    job_linger: float = 600.0
    job_max_per_user: int = 100
    job_trust_environment: str = "off"
    job_directory: Path = Path("/run/jobwatt/jobs")
    kubernetes_metadata: str = "auto"
    kubernetes_url: str = ""
    kubernetes_node_name: str = ""
    kubernetes_token_file: Path | None = None
    kubernetes_ca_file: Path | None = None
    kubernetes_pod_resources: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    kubernetes_account_label: str = ""
    grid_zone: str = ""
    grid_carbon_intensity: float | None = None
    grid_pue: float = 1.0
    grid_price: float | None = None
    grid_currency: str = ""
    log_level: str = "info"
    log_format: str = "logfmt"
    idle_power: Mapping[str, float] = field(default_factory=dict)
    budgets: tuple[BudgetRule, ...] = ()
    zones: Mapping[object, object] = field(default_factory=dict)
    providers: Mapping[object, object] = field(default_factory=dict)
    account_budgets: tuple[AccountBudget, ...] = ()
    kubernetes_job_labels: tuple[JobLabel, ...] = ()

    @property
    def cgroupfs(self) -> Path:
        """Where cgroups are found."""
        return self.path_cgroupfs or self.path_sysfs / "fs/cgroup"

    @property
    def pod_rules(self) -> PodRules:
        """How jobs are found in pods."""
        labels = self.kubernetes_job_labels or JOB_LABELS
        return PodRules(labels, self.kubernetes_account_label)

    @property
    def pod_resources(self) -> Path:
        """Where kubelet's socket is found."""
        return self.path_rootfs / str(self.kubernetes_pod_resources).lstrip("/")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "web.listen-address",
        _text,
        "Address of the page and the metrics: host:port or :port.",
        "ADDRESS",
    ),
    Setting("web.telemetry-path", _text, "Path of the metrics.", "PATH"),
    Setting("web.config.file", _path, "TLS and basic auth, in exporter-toolkit's format.", "FILE"),
    Setting("path.procfs", _path, "Mount point of the host's /proc.", "FOLDER"),
    Setting("path.sysfs", _path, "Mount point of the host's /sys.", "FOLDER"),
    Setting("path.rootfs", _path, "Mount point of the host's root, for names of users.", "FOLDER"),
    Setting(
        "path.cgroupfs",
        _path,
        "Root of the cgroup trees, where not <path.sysfs>/fs/cgroup.",
        "FOLDER",
    ),
    Setting("state.directory", _path, "Folder for what must outlive a restart.", "FOLDER"),
    Setting("sample.interval", _interval, "Time between two samples, 0.2s to 60s.", "DURATION"),
    Setting(
        "cpu.estimate",
        _one_of("auto", "off"),
        "Estimate CPU energy where no package can be read: auto or off.",
        "WHEN",
    ),
    Setting("cpu.tdp", _number, "Power of a fully busy package, for the estimate.", "WATTS"),
    Setting(
        "dram.policy",
        _one_of(*DramPolicy),
        "What DRAM's active energy follows: memory (anonymous, resident) or cpu time.",
        "POLICY",
    ),
    Setting("process.min-joules", _number, "Energy after which a process gets a series.", "JOULES"),
    Setting("process.max", _count, "Most processes that have a series.", "COUNT"),
    Setting("process.linger", _duration, "How long a series outlives its process.", "DURATION"),
    Setting("job.linger", _duration, "How long a job's series outlive its end.", "DURATION"),
    Setting(
        "job.max-per-user",
        _count,
        "Most jobs of a user that only environments name, live or lingering.",
        "COUNT",
    ),
    Setting(
        "job.trust-environment",
        _one_of("off", "same-uid"),
        "Believe SLURM_JOB_ID and PBS_JOBID outside of cgroups: off, or same-uid for processes of "
        "the job's own user, for sites where these schedulers make no cgroups.",
        "WHEN",
    ),
    Setting(
        "job.directory",
        _path,
        "Folder of the files that a scheduler's Prolog writes, below path.rootfs.",
        "FOLDER",
    ),
    Setting(
        "kubernetes.metadata",
        _one_of("auto", "api", "kubelet", "off"),
        "Who tells what pods belong to: api (the API server's watch), kubelet (its list of pods), "
        "off, or auto: the API server where a service account's token is mounted.",
        "WHO",
    ),
    Setting(
        "kubernetes.url",
        _text,
        "Address of the API server or kubelet. Without: the cluster's API server.",
        "URL",
    ),
    Setting(
        "kubernetes.node-name",
        _text,
        "This node's name in the cluster. Without: the variable NODE_NAME.",
        "NAME",
    ),
    Setting(
        "kubernetes.token-file",
        _path,
        "Token, read again at each request. Without: the mounted service account's.",
        "FILE",
    ),
    Setting(
        "kubernetes.ca-file",
        _path,
        "Who signs the server's certificate. Without: the mounted service account's.",
        "FILE",
    ),
    Setting(
        "kubernetes.pod-resources",
        _path,
        "The kubelet's socket that tells which pod holds which GPU, below path.rootfs.",
        "SOCKET",
    ),
    Setting(
        "kubernetes.account-label",
        _text,
        "Label of pods that names their account, where an admission policy guards it. Without: the "
        "namespace pays.",
        "LABEL",
    ),
    Setting("grid.zone", _text, "The electricity grid that feeds this node, e.g. FR.", "ZONE"),
    Setting(
        "grid.carbon-intensity",
        _number,
        "Carbon of electricity in g/kWh, for receipts; without, they name none.",
        "GRAMS",
    ),
    Setting(
        "grid.pue",
        _at_least_one,
        "What the site uses for each unit that its machines use (PUE), for carbon and cost.",
        "RATIO",
    ),
    Setting(
        "grid.price",
        _number,
        "Price of a kWh, for receipts; without, they name no cost.",
        "AMOUNT",
    ),
    Setting("grid.currency", _text, "What grid.price is in, e.g. EUR.", "CURRENCY"),
    Setting(
        "log.level", _one_of("debug", "info", "warning", "error"), "Least level logged.", "LEVEL"
    ),
    Setting("log.format", _one_of("logfmt", "json"), "Format of the log.", "FORMAT"),
    Setting(
        "idle_power",
        _watts_by_pattern,
        'Idle power in watts by device, first match: `{"package-*": 20.0}`. Learned without.',
        None,
    ),
    Setting(
        "budgets",
        parse_rules,
        "Caps on the energy of jobs, first match: "
        '`[{match: {account: "vision-*", queue: [gpu, long]}, budget: 25kWh}]`. '
        f"Patterns of {', '.join(KEYS[:-1])} and {KEYS[-1]}; a job's own budget holds where it is "
        "smaller.",
        None,
    ),
    Setting(
        "zones",
        _by_name,
        "Zones of the electricity grid, with what holds for the site there: "
        "`{FR: {pue: 1.2, price: 0.18, currency: EUR, providers: [rte_eco2mix]}}`. "
        "All keys: [grid](grid.md).",
        None,
        "grid",
    ),
    Setting(
        "providers",
        _by_name,
        "How to reach live providers: `{electricity_maps: {token_file: /etc/jobwatt/token}}`. "
        "All keys: [grid](grid.md).",
        None,
        "grid",
    ),
    Setting(
        "account_budgets",
        parse_account_budgets,
        "What all jobs of an account may use, for the alerts: "
        "`[{account: vision, period: month, budget: 2MWh}]`. "
        f"A period is {', '.join(PERIODS[:-1])} or {PERIODS[-1]}.",
        None,
        "grid",
    ),
    Setting(
        "kubernetes.job-labels",
        parse_job_labels,
        "Labels that name a pod's job, the first that it has holds, then its controlling owner: "
        "`[{label: example.com/run, kind: Run, uid: example.com/run-uid}, volcano.sh/job-name]`. "
        "Without: those of [kubernetes](kubernetes.md).",
        None,
    ),
)


def load_config(
    given: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    command: str = "",
    defaults: Config | None = None,
) -> Config:
    """Return the configuration.

    Args:
        given: flags by setting's name, None where not given; `config.file` names the file.
        environment: of the process.
        command: which is to run: it reads its own settings, too.
        defaults: what holds where nothing is said.

    Raises:
        UsageError: a value is wrong, the file cannot be read, or has an unknown key.
    """
    file_name = given.get("config.file") or environment.get("JOBWATT_CONFIG_FILE")
    in_file = _read_file(Path(str(file_name))) if file_name else {}
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.reader not in {"", command}:
            continue
        if given.get(setting.name) is not None:
            raw, where = given[setting.name], f"--{setting.name}"
        elif setting.metavar and setting.variable in environment:
            raw, where = environment[setting.variable], setting.variable
        elif setting.field in in_file:
            raw, where = in_file[setting.field], f"{file_name}: {setting.name}"
        else:
            continue
        try:
            values[setting.field] = setting.parse(raw)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
    config = replace(defaults or Config(), **values)
    if not config.web_telemetry_path.startswith("/"):
        raise UsageError(f"--web.telemetry-path: {config.web_telemetry_path!r} must begin with /")
    return config


def _read_file(path: Path) -> dict[str, Any]:
    """Return the file's values by setting's field name."""
    import yaml  # noqa: PLC0415 - only where there is a file

    from jobwatt.yaml_keys import DuplicateKeyError, ValueLoader  # noqa: PLC0415 - likewise

    try:
        tree = yaml.load(read_bytes(path), ValueLoader)  # noqa: S506 - a safe loader
    except DuplicateKeyError as error:
        raise UsageError(f"{path}: {error}") from error
    except ReadError as error:
        raise UsageError(f"--config.file: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # What PyYAML's own constructors raise on tags that do not fit their values.
        raise UsageError(f"{path}: not a configuration: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a mapping of settings is expected, not {type(tree).__name__}")
    values: dict[str, Any] = {}
    _flatten(path, tree, "", {setting.field: setting.name for setting in SETTINGS}, values)
    return values


def _flatten(
    path: Path, tree: dict[Any, Any], above: str, known: dict[str, str], values: dict[str, Any]
) -> None:
    """Collect the leaves of nested sections: `sample: {interval: 1s}` is `sample.interval`."""
    for key, value in tree.items():
        name = f"{above}{key}"
        field_name = name.replace(".", "_").replace("-", "_")
        if field_name in values:
            raise UsageError(
                f"{path}: {known[field_name]} is set twice, in two ways; leave one of the two"
            )
        if field_name in known:
            values[field_name] = value
        elif isinstance(value, dict) and any(k.startswith(f"{field_name}_") for k in known):
            _flatten(path, value, f"{name}.", known, values)
        elif value is None and any(k.startswith(f"{field_name}_") for k in known):
            continue  # an empty section
        else:
            near = difflib.get_close_matches(name.replace("_", "-"), known.values(), 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{path}: unknown key {name!r}{hint}")


_FIELDS = {f.name for f in fields(Config)}
if {setting.field for setting in SETTINGS} != _FIELDS:  # pragma: no cover - a slip of the author
    raise AssertionError("SETTINGS and Config must name the same settings")
