#!/usr/bin/env bash
# Fetch VictoriaMetrics' vmalert, which Debian stable's package lacks, and print its folder:
# tools/vmalert.sh [FOLDER]
set -euo pipefail
here=$(dirname "$0")
exec "$here/debian_testing.sh" "${1:-$here/../.cache/vmalert}" vmalert '.*' victoria-metrics:vmalert
