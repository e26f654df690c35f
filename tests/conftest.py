from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option that writes the machines' pages anew."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/machines/*/metrics.prom anew instead of comparing with them",
    )
