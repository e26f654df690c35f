from __future__ import annotations

import pytest

from jobwatt.workloads.contract import Facts
from jobwatt.workloads.lsf import LsfResolver


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LSB_JOBID": "9020", "LSB_JOBINDEX": "0"}, "lsf:9020"),
        ({"LSB_JOBID": "9020", "LSB_JOBINDEX": "17"}, "lsf:9020[17]"),
        ({"LSB_JOBID": "9020"}, "lsf:9020"),
        ({"LSB_JOBID": "9020", "LSB_JOBINDEX": ""}, "lsf:9020"),
        ({"LSB_JOBID": "9020", "LSB_JOBINDEX": "1]\n"}, "lsf:9020"),
        ({"LSB_JOBINDEX": "17"}, None),
        ({"LSB_JOBID": ""}, None),
        ({"LSB_JOBID": "0"}, None),
        ({"LSB_JOBID": "9020x"}, None),
        ({"LSB_JOBID": "9020\n"}, None),
        ({"LSB_JOBID": "٩"}, None),
        ({"LSB_JOBID": "9" * 1000}, None),
        ({}, None),
    ],
)
def test_environments(environment: dict[str, str], expected: str | None) -> None:
    """A job, or the element of an array."""
    assert LsfResolver().job_uid(Facts({}, 1000, environment)) == expected
