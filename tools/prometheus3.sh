#!/usr/bin/env bash
# Fetch Prometheus 3 and its promtool, and print their folder: tools/prometheus3.sh [FOLDER]
set -euo pipefail
here=$(dirname "$0")
exec "$here/debian_testing.sh" "${1:-$here/../.cache/prometheus3}" "Prometheus 3" 'version 3\.' \
  prometheus:prometheus promtool:promtool
