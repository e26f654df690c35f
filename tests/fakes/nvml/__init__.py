"""A fake libnvidia-ml.so.1 on which the real pynvml runs, and a scenario that drives it.

`nvml.c` is the library, built by gcc; `FakeNvml` writes the state file that it answers from, and
knows what everything really took.
"""

from fakes.nvml.library import BuildError, build, functions
from fakes.nvml.model import (
    UNAVERAGED,
    WITHOUT_ENERGY,
    WITHOUT_SAMPLES,
    Architecture,
    Field,
    Gpu,
    GpuProcess,
    Instance,
    Kind,
    Sample,
    Scope,
    Trace,
    Truth,
)
from fakes.nvml.scenario import FakeNvml, Rule

__all__ = [
    "UNAVERAGED",
    "WITHOUT_ENERGY",
    "WITHOUT_SAMPLES",
    "Architecture",
    "BuildError",
    "FakeNvml",
    "Field",
    "Gpu",
    "GpuProcess",
    "Instance",
    "Kind",
    "Rule",
    "Sample",
    "Scope",
    "Trace",
    "Truth",
    "build",
    "functions",
]
