from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from jobwatt.config import SETTINGS, Config, load_config
from jobwatt.errors import UsageError
from jobwatt.kubernetes.pod import JobLabel, PodRules


def from_file(tmp_path: Path, text: str | bytes, command: str = "") -> Config:
    """Load a configuration file with this content."""
    path = tmp_path / "jobwatt.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config({"config.file": str(path)}, {}, command=command)


def error_of(tmp_path: Path, text: str | bytes, command: str = "") -> str:
    """Return the usage error that a configuration file with this content makes."""
    with pytest.raises(UsageError) as caught:
        from_file(tmp_path, text, command)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_without_anything_the_defaults_hold() -> None:
    """No flag, no variable, no file: the defaults."""
    assert load_config({}, {}) == Config()


def test_a_flag_comes_before_a_variable_before_the_file(tmp_path: Path) -> None:
    """Each setting is taken from the first place that has it."""
    path = tmp_path / "jobwatt.yml"
    path.write_text("process: {max: 1, linger: 1s}\ngrid: {zone: FILE}\n")
    config = load_config(
        {"config.file": str(path), "process.max": "3", "process.linger": None, "grid.zone": None},
        {"JOBWATT_PROCESS_MAX": "2", "JOBWATT_PROCESS_LINGER": "2s"},
    )
    assert (config.process_max, config.process_linger, config.grid_zone) == (3, 2.0, "FILE")


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """JOBWATT_CONFIG_FILE names the file, and the flag comes before it."""
    path = tmp_path / "jobwatt.yml"
    path.write_text("grid.zone: FR\n")
    environment = {"JOBWATT_CONFIG_FILE": str(path)}
    (tmp_path / "other.yml").write_text("grid.zone: DE\n")
    by_flag = load_config({"config.file": str(tmp_path / "other.yml")}, environment)
    assert (load_config({}, environment).grid_zone, by_flag.grid_zone) == ("FR", "DE")


@pytest.mark.parametrize(
    "text",
    [
        "sample: {interval: 2s}\nprocess: {min_joules: 5}\n",
        "sample.interval: 2s\nprocess.min-joules: 5\n",
        "sample_interval: 2\nprocess_min_joules: '5'\n",
        "sample:\n  interval: 2.0\nprocess:\n  min-joules: 5.0\nlog:\n",
    ],
)
def test_keys_may_be_nested_or_flat(tmp_path: Path, text: str) -> None:
    """Dots, dashes and underscores, sections or none: the same settings."""
    config = from_file(tmp_path, text)
    assert config == dataclasses.replace(Config(), sample_interval=2.0, process_min_joules=5.0)


def test_settings_of_jobs(tmp_path: Path) -> None:
    """A bare `off`, which YAML takes for false, is one."""
    text = "job: {linger: 10m, max_per_user: 100, trust_environment: off}\n"
    assert from_file(tmp_path, text) == Config()
    trusting = from_file(tmp_path, "job: {trust_environment: same-uid}\n")
    assert trusting.job_trust_environment == "same-uid"
    assert "job.trust-environment" in error_of(tmp_path, "job: {trust_environment: any}\n")


def test_every_setting_has_a_variable() -> None:
    """What a flag sets, a variable sets, with dots and dashes as underscores."""
    values = {
        "JOBWATT_WEB_LISTEN_ADDRESS": "127.0.0.1:1",
        "JOBWATT_WEB_TELEMETRY_PATH": "/m",
        "JOBWATT_WEB_CONFIG_FILE": "/web.yml",
        "JOBWATT_PATH_PROCFS": "/host/proc",
        "JOBWATT_PATH_SYSFS": "/host/sys",
        "JOBWATT_PATH_ROOTFS": "/host",
        "JOBWATT_PATH_CGROUPFS": "/cg",
        "JOBWATT_STATE_DIRECTORY": "/state",
        "JOBWATT_SAMPLE_INTERVAL": "500ms",
        "JOBWATT_CPU_ESTIMATE": "off",
        "JOBWATT_CPU_TDP": "65",
        "JOBWATT_DRAM_POLICY": "cpu",
        "JOBWATT_PROCESS_MIN_JOULES": "1",
        "JOBWATT_PROCESS_MAX": "7",
        "JOBWATT_PROCESS_LINGER": "1m",
        "JOBWATT_JOB_LINGER": "5m",
        "JOBWATT_JOB_MAX_PER_USER": "9",
        "JOBWATT_JOB_TRUST_ENVIRONMENT": "same-uid",
        "JOBWATT_JOB_DIRECTORY": "/run/jobs",
        "JOBWATT_KUBERNETES_METADATA": "api",
        "JOBWATT_KUBERNETES_URL": "https://api:6443",
        "JOBWATT_KUBERNETES_NODE_NAME": "n1",
        "JOBWATT_KUBERNETES_TOKEN_FILE": "/token",
        "JOBWATT_KUBERNETES_CA_FILE": "/ca",
        "JOBWATT_KUBERNETES_POD_RESOURCES": "/run/kubelet.sock",
        "JOBWATT_KUBERNETES_ACCOUNT_LABEL": "example.com/team",
        "JOBWATT_GRID_ZONE": "FR",
        "JOBWATT_GRID_CARBON_INTENSITY": "52.5",
        "JOBWATT_GRID_PUE": "1.2",
        "JOBWATT_GRID_PRICE": "0.18",
        "JOBWATT_GRID_CURRENCY": "EUR",
        "JOBWATT_LOG_LEVEL": "debug",
        "JOBWATT_LOG_FORMAT": "json",
    }
    assert {s.variable for s in SETTINGS if s.metavar} == set(values)
    assert load_config({}, values) == Config(
        web_listen_address="127.0.0.1:1",
        web_telemetry_path="/m",
        web_config_file=Path("/web.yml"),
        path_procfs=Path("/host/proc"),
        path_sysfs=Path("/host/sys"),
        path_rootfs=Path("/host"),
        path_cgroupfs=Path("/cg"),
        state_directory=Path("/state"),
        sample_interval=0.5,
        cpu_estimate="off",
        cpu_tdp=65.0,
        dram_policy="cpu",
        process_min_joules=1.0,
        process_max=7,
        process_linger=60.0,
        job_linger=300.0,
        job_max_per_user=9,
        job_trust_environment="same-uid",
        job_directory=Path("/run/jobs"),
        kubernetes_metadata="api",
        kubernetes_url="https://api:6443",
        kubernetes_node_name="n1",
        kubernetes_token_file=Path("/token"),
        kubernetes_ca_file=Path("/ca"),
        kubernetes_pod_resources=Path("/run/kubelet.sock"),
        kubernetes_account_label="example.com/team",
        grid_zone="FR",
        grid_carbon_intensity=52.5,
        grid_pue=1.2,
        grid_price=0.18,
        grid_currency="EUR",
        log_level="debug",
        log_format="json",
    )


def test_unknown_variables_are_ignored() -> None:
    """Kubernetes injects JOBWATT_PORT and others for a service of this name."""
    environment = {
        "JOBWATT_PORT": "tcp://10.0.0.1:9743",
        "JOBWATT_SERVICE_HOST": "10.0.0.1",
        "JOBWATT_IDLE_POWER": "nonsense",
        "JOBWATT_JOB": "bert",
    }
    assert load_config({}, environment) == Config()


def test_idle_power_by_pattern(tmp_path: Path) -> None:
    """Idle power is a mapping of device patterns to watts, in the file's order."""
    config = from_file(tmp_path, 'idle_power: {"package-1": 10, "package-*": 20.5}\n')
    assert list(config.idle_power.items()) == [("package-1", 10.0), ("package-*", 20.5)]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "process:\n", "process: {}\n"])
def test_a_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    """An empty file, or an empty section, changes nothing."""
    assert from_file(tmp_path, text) == Config()


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_off_without_quotes(tmp_path: Path, word: str) -> None:
    """YAML reads a bare off as false; it is meant as off."""
    assert from_file(tmp_path, f"cpu: {{estimate: {word}}}\n").cpu_estimate == "off"


@pytest.mark.parametrize(
    ("path_cgroupfs", "expected"),
    [(None, Path("/host/sys/fs/cgroup")), (Path("/cg"), Path("/cg"))],
)
def test_where_cgroups_are(path_cgroupfs: Path | None, expected: Path) -> None:
    """They are below sysfs, unless said otherwise."""
    assert Config(path_sysfs=Path("/host/sys"), path_cgroupfs=path_cgroupfs).cgroupfs == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sample.interval", "0.1s", "is outside of 0.2s to 60s"),
        ("sample.interval", "61", "is outside of 0.2s to 60s"),
        ("sample.interval", "soon", "is no duration"),
        ("sample.interval", "", "is no duration"),
        ("cpu.estimate", "on", "is none of auto, off"),
        ("cpu.tdp", "-1", "is not a number ≥ 0"),
        ("cpu.tdp", "nan", "is not a number ≥ 0"),
        ("cpu.tdp", "inf", "is not a number ≥ 0"),
        ("dram.policy", "equal", "is none of memory, cpu"),
        ("process.min-joules", "few", "is not a number ≥ 0"),
        ("process.max", "1.5", "is not a whole number"),
        ("process.max", "-3", "is not a number ≥ 0"),
        ("process.linger", "2 days", "is no duration"),
        ("log.level", "loud", "is none of debug, info, warning, error"),
        ("log.format", "xml", "is none of logfmt, json"),
        ("web.telemetry-path", "metrics", "must begin with /"),
    ],
)
def test_a_wrong_value_is_named_wherever_it_is_from(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    """A wrong value ends with its setting's name, from a flag, a variable or the file."""
    variable = f"JOBWATT_{name.upper().replace('.', '_').replace('-', '_')}"
    path = tmp_path / "jobwatt.yml"
    path.write_text(f"{name}: '{value}'\n")
    errors: list[str] = []
    for given, environment in (
        ({name: value}, {}),
        ({}, {variable: value}),
        ({"config.file": str(path)}, {}),
    ):
        with pytest.raises(UsageError) as caught:
            load_config(given, environment)
        errors.append(str(caught.value))
    assert [said in error for error in errors] == [True] * 3
    assert [name in error or variable in error for error in errors] == [True] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample: {interval: [1]}", "sample.interval: [1] is no duration"),
        ("sample: {interval: true}", "sample.interval: True is no duration"),
        ("sample: {interval: null}", "sample.interval: None is no duration"),
        ("process: {max: true}", "process.max: True is not a number"),
        ("process: {max: {a: 1}}", "process.max: {'a': 1} is not a number"),
        ("process: {min_joules: .inf}", "process.min-joules: inf is not a number"),
        ("process: {min_joules: 1" + 400 * "0" + "}", "process.min-joules: 10000"),
        ("grid: {zone: 5}", "grid.zone: 5 is not a text"),
        ("grid: {zone: no}", "grid.zone: False is not a text"),
        ("path: {procfs: [a]}", "path.procfs: ['a'] is not a text"),
        ("log: {level: {}}", "log.level: {} is none of"),
        ("log: {level: off}", "log.level: False is none of"),
        ("idle_power: 5", 'idle_power: write it as {"package-*": 20.0}'),
        ("idle_power: {5: 5}", "idle_power: 5 is not a text"),
        ("idle_power: {x: -5}", "idle_power: -5 is not a number"),
        ("idle_power: {x: much}", "idle_power: 'much' is not a number"),
    ],
)
def test_a_wrong_value_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    """A value of the wrong kind ends with the file's and the setting's name."""
    assert error_of(tmp_path, text).startswith(f"jobwatt.yml: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sample: {intervall: 1s}",
            "unknown key 'sample.intervall'; did you mean sample.interval?",
        ),
        (
            "process: {min_joule: 1}",
            "unknown key 'process.min_joule'; did you mean process.min-joules?",
        ),
        ("grid_zon: FR", "unknown key 'grid_zon'; did you mean grid.zone?"),
        ("idle_powers: {}", "unknown key 'idle_powers'; did you mean idle_power?"),
        ("zzz: 1", "unknown key 'zzz'"),
        ("process: 5", "unknown key 'process'"),
        ("process: {max: 1, zzz: 1}", "unknown key 'process.zzz'"),
        ("5: 5", "unknown key '5'"),
        ("null: 5", "unknown key 'None'"),
        ("? [a]\n: 5", "not YAML"),
    ],
)
def test_an_unknown_key(tmp_path: Path, text: str, said: str) -> None:
    """An unknown key is an error that names it, and the one that was probably meant."""
    assert error_of(tmp_path, text).startswith(f"jobwatt.yml: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid_zone: FR\ngrid_zone: DE", "line 2: the key 'grid_zone' stands twice"),
        ("job: {linger: 1m}\nlog: {}\njob: {linger: 2m}", "line 3: the key 'job' stands twice"),
        ("job:\n  linger: 1m\n  linger: 2m", "line 3: the key 'linger' stands twice"),
        ('zones:\n  FR: {pue: 1.2}\n  "FR": {pue: 1.3}', "line 3: the key 'FR' stands twice"),
        ("budgets: [{budget: 1kWh, match: {user: a, user: b}}]", "line 1: the key 'user' stands"),
        ("job: {linger: 1m}\njob.linger: 2m", "job.linger is set twice, in two ways"),
        ("job: {max_per_user: 1, max-per-user: 2}", "job.max-per-user is set twice, in two ways"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "grid", "run"])
def test_a_key_that_stands_twice(tmp_path: Path, text: str, said: str, command: str) -> None:
    """Neither is taken, also of what another command reads."""
    message = error_of(tmp_path, text, command)
    assert message.startswith(f"jobwatt.yml: {said}")
    assert message.endswith("leave one of the two")


def test_a_merged_key_may_be_written_over(tmp_path: Path) -> None:
    """That is what merge keys are for."""
    text = "zones: {FR: &all {pue: 1.2, price: 1}, DE: {<<: *all, pue: 1.3}}\n"
    config = from_file(tmp_path, text, "grid")
    assert config.zones == {"FR": {"pue": 1.2, "price": 1}, "DE": {"pue": 1.3, "price": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"a: \xff", "not YAML"),
        ("\x00", "not YAML"),
        ("!!python/object:os.system x", "not YAML"),
        ("a: *b", "not YAML"),
        ("- a", "a mapping of settings is expected, not list"),
        ("text", "a mapping of settings is expected, not str"),
        ("5", "a mapping of settings is expected, not int"),
        ("a: 2001-99-99", "not a configuration"),
        ("[" * 5000, "not a configuration"),
        ("a: " + "9" * 5000, "not a configuration"),
        ("a: !!bool x", "not"),
        ("a: !!int ''", "not"),
        ("a: !!float ''", "not"),
        ("a: !!timestamp x", "not"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str | bytes, said: str) -> None:
    """Whatever the file holds, the answer is one line that names it."""
    message = error_of(tmp_path, text)
    assert message.startswith(f"jobwatt.yml: {said}")
    assert message.count("\n") == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that was named must be there."""
    with pytest.raises(UsageError, match=r"--config\.file: .*gone\.yml: No such file"):
        load_config({"config.file": str(tmp_path / "gone.yml")}, {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder instead of a file is a plain error."""
    with pytest.raises(UsageError, match=r"--config\.file: .*Is a directory"):
        load_config({"config.file": str(tmp_path)}, {})


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without the right to read it is a plain error."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match=r"--config\.file: /etc/jobwatt\.yml: Permission denied"):
        load_config({"config.file": "/etc/jobwatt.yml"}, {})


def test_labels_of_pods_jobs(tmp_path: Path) -> None:
    """In the operator's order; without it, all that are known."""
    assert Config().pod_rules == PodRules()
    text = (
        "kubernetes:\n  job-labels:\n    - volcano.sh/job-name\n    - {label: a/run, kind: Run}\n"
    )
    labels = from_file(tmp_path, text).pod_rules.labels
    assert labels == (JobLabel("volcano.sh/job-name"), JobLabel("a/run", "Run"))
    assert "kubernetes.job-labels" in error_of(tmp_path, "kubernetes: {job-labels: []}\n")


def test_kubelets_socket_is_below_the_root() -> None:
    """Of the host, as it is mounted."""
    expected = Path("/host/root/var/lib/kubelet/pod-resources/kubelet.sock")
    assert Config(path_rootfs=Path("/host/root")).pod_resources == expected
