#!/usr/bin/env bash
# Fetch VictoriaMetrics with its vmalert, which Debian stable's package lacks, and print their
# folder: tools/victoria_metrics.sh [FOLDER]
set -euo pipefail
here=$(dirname "$0")
exec "$here/debian_testing.sh" "${1:-$here/../.cache/victoria-metrics}" VictoriaMetrics '.*' \
  victoria-metrics:victoria-metrics victoria-metrics:vmalert
