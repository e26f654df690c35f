"""Generate the PrometheusRule out of prometheus/rules: tools/kubernetes_rules.py [--check].

The text is taken as it is, with its comments, so that both can be read side by side.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "deploy/kubernetes/rules/prometheusrule.yaml"

HEAD = """\
# Generated from prometheus/rules by `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: jobwatt
  labels:
    app.kubernetes.io/name: jobwatt
spec:
  groups:
"""


def prometheus_rule() -> str:
    """Return the object: the groups of every file, recording rules first."""
    parts = [HEAD]
    for path in sorted((ROOT / "prometheus/rules").glob("*/*.yml"), key=_order):
        preface, _, groups = path.read_text().partition("groups:\n")
        parts.append(textwrap.indent(preface, "    "))
        parts.append(textwrap.indent(groups, "  "))
    return "".join(parts)


def _order(path: Path) -> tuple[bool, Path]:
    return path.parent.name != "recording", path


def main() -> int:
    """Return the exit code: 1 if the file is out of date under --check."""
    text = prometheus_rule()
    if "--check" in sys.argv[1:]:
        if not TARGET.is_file() or TARGET.read_text() != text:
            print(f"{TARGET.relative_to(ROOT)} is out of date: make docs", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
