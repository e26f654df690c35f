#!/usr/bin/env bash
# Make a virtual environment with Python 3.11 or newer: tools/python.sh PYTHON FOLDER
set -euo pipefail
python=$1 folder=$2
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "JobWatt needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Try: make PYTHON=python3.11 …" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  # Debian and Ubuntu ship venv apart from Python.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
  else
    echo "Python's venv is missing: sudo apt-get install python3-venv" >&2
    exit 1
  fi
fi
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
