"""Generate docs/metrics.md and docs/configuration.md from the code: tools/docs.py [--check]."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from jobwatt.config import SETTINGS, Config
from jobwatt.exposition.catalog import GRID_METRICS, NODE_METRICS, MetricSpec

DOCS = Path(__file__).parent.parent / "docs"

METRICS_HEAD = """\
# Metrics

Every metric that the exporter serves, generated from `exporter/jobwatt/exposition/catalog.py` by
`make docs`. Energy is counted in joules with microjoule resolution and begins at 0 when JobWatt
first runs on a node. At any scrape, for each device, exactly:

    device energy = Σ process energy + other + retired{level="process"} + idle + unattributed

What is absent on a machine is absent from the page, not 0.

"""

GRID_HEAD = """
## Of `jobwatt grid`

What these numbers mean, and where they are from: [grid](grid.md).

"""

TABLE_HEAD = """\
| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""

CONFIGURATION_HEAD = """\
# Configuration

Generated from `exporter/jobwatt/config.py` by `make docs`. A flag goes before the environment, the
environment before the file (`--config.file`, YAML). In the file the dots of a name are sections:
`sample: {interval: 1s}` is `--sample.interval=1s`. Durations are written like `90s`, `10m` or
`500ms`. All commands may share one file: what only `jobwatt grid` reads, the others leave unread.

| setting | environment | default | meaning |
| --- | --- | --- | --- |
"""


def metrics_page() -> str:
    """Return docs/metrics.md."""
    return METRICS_HEAD + _table(NODE_METRICS) + GRID_HEAD + _table(GRID_METRICS)


def _table(metrics: tuple[MetricSpec, ...]) -> str:
    rows = (
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |"
        for m in metrics
    )
    return TABLE_HEAD + "\n".join(rows) + "\n"


def configuration_page() -> str:
    """Return docs/configuration.md."""
    return CONFIGURATION_HEAD + "\n".join(_settings()) + "\n"


def _settings() -> Iterator[str]:
    defaults = Config()
    for setting in SETTINGS:
        value = getattr(defaults, setting.field)
        default = f"`{value}`" if value not in (None, "", {}, ()) else ""
        if setting.metavar is None:
            of = f", `jobwatt {setting.reader}`" if setting.reader else ""
            name, variable = f"`{setting.name}`", f"file only{of}"
        else:
            name, variable = f"`--{setting.name}`", f"`{setting.variable}`"
        yield f"| {name} | {variable} | {default} | {setting.help} |"


def main() -> int:
    """Write the pages, or with --check tell whether they are as they should be."""
    stale = 0
    for name, text in (("metrics.md", metrics_page()), ("configuration.md", configuration_page())):
        path = DOCS / name
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"docs/{name} is not what the code says: run `make docs`", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
