#!/usr/bin/env bash
# Install Debian packages: tools/packages.sh stack|test
#   stack  the servers of `make stack`
#   test   what the tests start: real servers, a real browser, a compiler
set -euo pipefail
declare -A wanted=(
  [prometheus]=prometheus
  [promtool]=prometheus
  [prometheus-alertmanager]=prometheus-alertmanager
)
case ${1:-} in
  stack) ;;
  test)
    wanted+=(
      [prometheus-node-exporter]=prometheus-node-exporter
      [prometheus-process-exporter]=prometheus-process-exporter
      [chromium]=chromium
      [cc]=gcc
      [systemd-analyze]=systemd
      [victoria-metrics]=victoria-metrics
    )
    ;;
  *)
    echo "usage: tools/packages.sh stack|test" >&2
    exit 2
    ;;
esac
declare -A missing=()
for program in "${!wanted[@]}"; do
  command -v "$program" >/dev/null || missing[${wanted[$program]}]=yes
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "these Debian packages are missing: sudo apt-get install --no-install-recommends ${!missing[*]}" >&2
  exit 1
fi
# Debian starts a server when it installs one; whoever calls us starts their own.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.jobwatt
if [ ! -e /usr/sbin/policy-rc.d ]; then
  mv /usr/sbin/policy-rc.d.jobwatt /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
else
  rm -f /usr/sbin/policy-rc.d.jobwatt
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${!missing[@]}"
# Nor must they take the ports after a reboot. Only what has just been installed is disabled:
# whoever had Prometheus as a service before keeps it. The helper, which Debian's own packages call,
# remembers it over upgrades; the variable tells it for whom.
for package in "${!missing[@]}"; do
  [ "$package" = systemd ] && continue
  for unit in $(dpkg -L "$package" | sed -n "s,.*/systemd/system/\([^/]*[.]service\)\$,\1,p"); do
    DPKG_MAINTSCRIPT_PACKAGE=$package deb-systemd-helper disable "$unit" > /dev/null
  done
done
