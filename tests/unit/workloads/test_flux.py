from __future__ import annotations

import pytest

from jobwatt.workloads.contract import Facts
from jobwatt.workloads.flux import FluxResolver


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FLUX_JOB_ID": "ƒD7j8aT"}, "flux:fD7j8aT"),
        ({"FLUX_JOB_ID": "fD7j8aT"}, "flux:fD7j8aT"),
        ({"FLUX_ENCLOSING_ID": "ƒTKuuBXJyV", "FLUX_JOB_ID": "ƒD7j8aT"}, "flux:fTKuuBXJyV"),
        ({"FLUX_ENCLOSING_ID": "ƒTKuuBXJyV"}, "flux:fTKuuBXJyV"),
        ({"FLUX_ENCLOSING_ID": "4711", "FLUX_JOB_ID": "ƒD7j8aT"}, "flux:fD7j8aT"),
        ({"FLUX_JOB_ID": "ƒ"}, None),
        ({"FLUX_JOB_ID": "D7j8aT"}, None),
        ({"FLUX_JOB_ID": "ƒ0OIl"}, None),
        ({"FLUX_JOB_ID": "ƒD7j8aT\n"}, None),
        ({"FLUX_JOB_ID": "ƒ" + "1" * 100}, None),
        ({}, None),
    ],
)
def test_environments(environment: dict[str, str], expected: str | None) -> None:
    """One spelling, and the outer job where the environment tells it."""
    assert FluxResolver().job_uid(Facts({}, 1000, environment)) == expected
