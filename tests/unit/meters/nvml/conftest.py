from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.nvidia import Nvidia


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Nvidia]]:
    """Return what makes a machine with these GPUs, whose driver is the process's for the test."""
    with ExitStack() as stack:

        def make(*gpus: object, **options: object) -> Nvidia:
            nvidia = Nvidia(tmp_path, *gpus, **options)  # type: ignore[arg-type]
            stack.enter_context(nvidia.fake.installed())
            return nvidia

        yield make
