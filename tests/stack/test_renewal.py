"""The exporter begins anew by itself when the NVIDIA driver has been replaced under it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fakes.nvml import FakeNvml, Gpu
from servers import eventually, free_port, get, running

VERSION_MISMATCH = 18

pytestmark = pytest.mark.stack


def test_another_driver_needs_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that does not fit its kernel module is told; once that has changed it is loaded."""
    version = tmp_path / "sys/module/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("1\n")
    driver = FakeNvml(tmp_path / "driver", [Gpu(uuid="GPU-7")], virtual=False)
    driver.fault("nvmlInit*", VERSION_MISMATCH)
    for name, value in driver.environment().items():
        monkeypatch.setenv(name, value)
    port = free_port()
    command: list[str | Path] = [
        Path(sys.executable).with_name("jobwatt"),
        "serve",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--path.sysfs={tmp_path / 'sys'}",
        f"--state.directory={tmp_path / 'state'}",
    ]

    def page() -> str:
        try:
            return get(f"http://127.0.0.1:{port}/metrics")[1].decode()
        except OSError:
            return ""

    log = tmp_path / "log"
    with running(command, log) as exporter:
        eventually(lambda: 'source_up{source="nvml_energy"} 0.0' in page(), 20)
        driver.heal()
        version.write_text("2\n")
        eventually(lambda: 'source_up{source="nvml_energy"} 1.0' in page(), 40)
        assert exporter.poll() is None
    text = log.read_text()
    assert text.count("starting anew: the NVIDIA driver is 2 now") == 1
    assert text.count("reload the module or reboot") == 1
    assert text.count("listening on") == 2
