from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is no defect; and what CI says of a commit is the same each time.
settings.register_profile("jobwatt", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("jobwatt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option that writes the machines' pages anew."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/machines/*/metrics.prom anew instead of comparing with them",
    )
