"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import jobwatt
from jobwatt.grid_app import PROVIDERS

PACKAGE = Path(jobwatt.__file__).parent
ALLOWED = ("jobwatt.model.", "jobwatt.gpus.", "jobwatt.units.", "jobwatt.attribution.")


def imports(path: Path) -> set[str]:
    """The modules of jobwatt that a file imports, also within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobwatt"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("jobwatt")}
    return found


def modules(folder: str) -> list[Path]:
    paths = sorted((PACKAGE / folder).glob("*.py"))
    assert paths
    return paths


def test_attribution_knows_the_model_and_the_units_only() -> None:
    """What is pure stays pure."""
    for path in modules("attribution"):
        for name in imports(path):
            assert name.startswith(ALLOWED)


def test_attribution_reads_no_clock_and_no_file() -> None:
    """Time comes in as an argument."""
    for path in modules("attribution"):
        tree = ast.parse(path.read_text())
        names = {
            alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        }
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert names.isdisjoint({"time", "os", "pathlib", "random", "threading", "datetime"})


def test_concrete_providers_are_named_by_the_grids_composition_root_only() -> None:
    """Everybody else asks the contract."""
    concrete = tuple(f"jobwatt.grid.{name}" for name in PROVIDERS)
    assert {f"jobwatt.grid.{path.stem}" for path in modules("grid")} > set(concrete)
    for path in PACKAGE.rglob("*.py"):
        if path.name != "grid_app.py":
            for name in imports(path):
                assert not name.startswith(concrete), (path, name)


def test_the_nodes_exporter_loads_nothing_of_the_grids() -> None:
    """Nor what other commands ask servers by: it must stay small."""
    code = (
        "import sys, jobwatt.app, jobwatt.exposition.routes, jobwatt.exposition.serving as _; "
        "print([m for m in sys.modules if m.startswith(('jobwatt.grid', 'jobwatt.http_client'))])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert loaded.stdout == b"[]\n"


def test_concrete_parts_are_named_by_the_composition_root_only() -> None:
    """Everybody else asks a contract; the doctor looks into the parts themselves."""
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE).parts[0]
        if inside in {"app.py", "doctor", "simulation"}:
            continue
        for name in imports(path):
            for folder in ("meters", "usage", "workloads"):
                if name.startswith(f"jobwatt.{folder}.") and inside != folder:
                    assert name.startswith(f"jobwatt.{folder}.contract."), (path, name)


def test_what_a_report_adds_up_asks_nobody() -> None:
    """Questions, jobs and rows are arithmetic on answers; who asks is another module."""
    known = ("jobwatt.units.", "jobwatt.report.")
    asking = ("jobwatt.report.client.", "jobwatt.report.asking.", "jobwatt.report.collect.")
    for module in ("questions", "jobs", "rows", "timerange", "sample"):
        for name in imports(PACKAGE / f"report/{module}.py"):
            assert name.startswith(known), (module, name)
            assert not name.startswith(asking), (module, name)
