"""Write the dashboards: build.py [--check] [--into FOLDER]."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

import node

DASHBOARDS = Path(__file__).parent.parent / "dashboards"

BUILDERS = {"node": node.build}
"""Every dashboard, by the name of its file."""


def text(board: Dashboard) -> str:
    """Return a dashboard as JSON; its panels are numbered, so that links to one can be made."""
    model = board.build()
    for number, panel in enumerate(model.panels or (), start=1):
        panel.id_val = number
    return json.dumps(model, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def stale(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Return what is wrong with the dashboards in a folder, one sentence each."""
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    missing = [f"{name} is missing" for name in wanted if name not in found]
    surplus = [f"{name} is nobody's" for name in sorted(found) if name not in wanted]
    other = [
        f"{name} is not what grafana/source says"
        for name in wanted
        if found.get(name, wanted[name]) != wanted[name]
    ]
    return [*missing, *surplus, *other]


def main() -> int:
    """Write the dashboards, or with --check tell whether they are as they should be."""
    parser = argparse.ArgumentParser(description="Write the dashboards as Grafana reads them.")
    parser.add_argument("--check", action="store_true", help="write nothing, tell what differs")
    parser.add_argument("--into", type=Path, default=DASHBOARDS, help="the folder of the JSON")
    arguments = parser.parse_args()
    wanted = {f"{name}.json": text(build()) for name, build in BUILDERS.items()}
    if arguments.check:
        for sentence in (wrong := stale(arguments.into, wanted)):
            print(f"{sentence}: run `python grafana/source/build.py`", file=sys.stderr)
        return 1 if wrong else 0
    for name, content in wanted.items():
        (arguments.into / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
